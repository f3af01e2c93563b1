"""The guidance that options ask for, around a model that may have some of its own."""

import math

from ddim_ode.models.denoiser import Model
from ddim_ode.models.guidance import Guided, GuidedByClassifier
from ddim_ode.models.guidance.around import layers
from ddim_ode.models.guidance.classifier_free import Contrast
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions


def with_guidance(model: Model, options: SolveOptions) -> Model:
    """The model, guided if the options say so.

    Raises SampleError for one that is guided already, or has a classifier tell its labels alone; and as `Guided`.
    """
    if options.guidance == 1:
        return model
    given = f"guidance={options.guidance:g}"
    for layer in layers(model):
        if isinstance(layer, Contrast):
            raise SampleError(f"the model is guided already, at scale {layer.words()}; leave {given} out")
        if isinstance(layer, GuidedByClassifier) and not layer.model.num_classes:
            raise SampleError(
                f"the model is told no labels, and {given} would scale its classifier; scale that instead"
            )
    return Guided(model, options.guidance, options.guidance_range or (0.0, math.inf))
