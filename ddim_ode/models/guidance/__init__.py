"""Guidance: a denoiser around a denoiser, in an interval of sigma."""

from ddim_ode.models.guidance.around import Around, Guidance, GuidanceError
from ddim_ode.models.guidance.by_classifier import GuidedByClassifier, Unconditional
from ddim_ode.models.guidance.by_loss import GuidedByLoss
from ddim_ode.models.guidance.classifier_free import Guided
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.models.guidance.projected import GuidedByProjection
from ddim_ode.models.guidance.weaker import GuidedByWeaker
from ddim_ode.models.guidance.window import Window

__all__ = [
    "Around",
    "Cost",
    "Guidance",
    "GuidanceError",
    "Guided",
    "GuidedByClassifier",
    "GuidedByLoss",
    "GuidedByProjection",
    "GuidedByWeaker",
    "Unconditional",
    "Window",
    "cost",
]
