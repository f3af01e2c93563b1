"""Adaptive projected guidance (Sadat et al. 2024, arXiv:2410.02416, Alg. 1): classifier-free guidance without what
oversaturates. Of the predicted images, D under the condition and D0 under none,

    d = (D - D0) min(1, norm / |D - D0|),        d = d_parallel + d_across, of which d_parallel lies along D
    guided D = D + (scale - 1) (d_across + eta d_parallel)

At eta = 1 and norm = inf it is classifier-free guidance. The paper's momentum is left out: it adds what d was at the
steps before, and a denoiser that remembers gives a solver another answer each time it asks.
"""

import math
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Prediction
from ddim_ode.models.guidance.around import GuidanceError
from ddim_ode.models.guidance.classifier_free import Contrast
from ddim_ode.models.guidance.scales import (
    Scale,
    checked_scale,
    facts_of,
    per_sample,
    scale_at,
    scales_at,
    with_data,
    words,
)
from ddim_ode.support.checks import real

NONE = 1e-100  # of a square


@dataclass(frozen=True)
class GuidedByProjection(Contrast):
    """A model guided by what its condition changes across the predicted image, more than along it.

    Args:
        model: a class-conditional denoiser, or one that is told conditions with null values.
        scale: 1 is the model itself, more than 1 exaggerates the condition. Or a function of sigma.
        sigma_range: (low, high): outside it the model is evaluated once, without guidance.
        eta: the share that is kept of the change along the predicted image, which is contrast and saturation.
        norm: the largest change of a sample, as a Euclidean norm in data units; the paper's r.

    Inside the range a prediction costs two evaluations, and one where the scale is 1.

    Raises:
        GuidanceError: a scale or an eta that is not finite, a norm that is not positive, or an empty range.
        ArgumentError: what is no model.
    """

    scale: Scale
    sigma_range: tuple[float, float] = (0.0, math.inf)
    _: KW_ONLY
    eta: float = 0.0
    norm: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", checked_scale(self.scale))
        object.__setattr__(self, "eta", real("eta", self.eta, GuidanceError, -1e6, 1e6, "0.0"))
        object.__setattr__(self, "norm", real("norm", self.norm, GuidanceError, 1e-12, math.inf, "2.5"))

    @property
    def facts(self) -> tuple[object, ...]:
        return facts_of(self.scale, self.model), self.sigma_range, self.eta, self.norm

    def words(self) -> str:
        return words(self.scale)

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        return super().acts(sigma) and scale_at(self.scale, sigma) != 1

    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        conditional, null = self.both(xbar, sigma, told)
        change = projected(conditional.data - null.data, conditional.data, self.eta, self.norm)
        scale = scales_at(self.scale, sigma)
        spent = conditional.evaluations + null.evaluations
        return with_data(conditional, per_sample(scale - 1, change) * change, sigma)._replace(evaluations=spent)


def projected(change: Tensor, image: Tensor, eta: float, norm: float) -> Tensor:
    """A change of images, both (B, *shape), cut to a norm, with a share eta of what of it lies along the image."""
    d, along = (x.flatten(1).double() for x in (change, image))
    # NONE, since an image of zeros has no direction and a change of zero no norm, nor a derivative of one
    if norm < math.inf:
        d = d * (norm / d.square().sum(1, keepdim=True).clamp(min=NONE).sqrt()).clamp(max=1)
    parallel = (d * along).sum(1, keepdim=True) / along.square().sum(1, keepdim=True).clamp(min=NONE) * along
    return (d + (eta - 1) * parallel).to(change).reshape(change.shape)
