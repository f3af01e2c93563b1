"""Autoguidance (Karras et al. 2024, arXiv:2406.02507, Eq. 3): away from a worse version of the model itself.

    guided = weaker + scale (model - weaker)

Both are told the same. Where the weaker one, smaller or less trained, errs in the model's direction, only further, the
difference points to better images, without the loss of variety that guidance towards a condition brings.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.models.guidance.around import Guidance, GuidanceError, check_inner
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.models.guidance.scales import Scale, checked_scale, extrapolated, facts_of, scale_at, scales_at


@dataclass(frozen=True)
class GuidedByWeaker(Guidance):
    """A model whose predictions are pushed away from those of a weaker one, conditional or not.

    Args:
        model: any denoiser.
        weaker: one of the same images and classes, on whatever path. `Unconditional(model)` makes it classifier-free
            guidance.
        scale: 1 is the model itself, 0 the weaker one, more than 1 exaggerates the difference. Or a function of sigma.
        sigma_range: (low, high): outside it the model alone is evaluated.

    Inside the range a prediction costs an evaluation of each, and where the scale is 1 of the model alone.

    Raises:
        GuidanceError: models of other shapes or numbers of classes, a scale that is not finite, or an empty range.
        ArgumentError: what is no model.
    """

    weaker: Model
    scale: Scale
    sigma_range: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_inner(self.weaker, "weaker")
        object.__setattr__(self, "scale", checked_scale(self.scale))
        if self.weaker.shape != self.shape:
            raise GuidanceError(
                f"the weaker model's samples are {self.weaker.shape}, and the model's {self.shape}; they must agree"
            )
        if self.weaker.num_classes not in (0, self.num_classes):
            raise GuidanceError(
                f"the weaker model has {self.weaker.num_classes} classes, and the model {self.num_classes}; give one"
                " of these classes, or without any"
            )

    @property
    def facts(self) -> tuple[object, ...]:
        return facts_of(self.scale, self.model), self.sigma_range, self.weaker

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        return super().acts(sigma) and scale_at(self.scale, sigma) != 1

    def guided_cost(self, sigma: float) -> Cost:
        return cost(self.model, sigma) + cost(self.weaker, sigma)

    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        strong, weak = self.model(xbar, sigma, told), self.weaker(xbar, sigma, told)
        return extrapolated(weak, strong, scales_at(self.scale, sigma))
