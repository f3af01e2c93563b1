"""Guidance by a loss of the predicted image: samples of the density times exp(-scale loss).

    data - scale sigma^2 g,    noise + scale sigma g,        g = d loss(data(xbar)) / d xbar

which takes the loss of the predicted image for that of the images it may become (Chung et al. 2023, arXiv:2209.14687,
Eq. 11; Yu et al. 2023, arXiv:2303.09833; Bansal et al. 2023, arXiv:2302.07121, Eq. 6). It is right where sigma is small
against the loss's features, and a guess elsewhere: choose the scale by what comes out, or make it a function of sigma.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ddim_ode.models.arguments import check_net
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Prediction
from ddim_ode.models.guidance.around import Guidance
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.models.guidance.gradient import with_gradient
from ddim_ode.models.guidance.scales import Scale, checked_scale, facts_of, scale_at, scales_at, tilted


@dataclass(frozen=True)
class GuidedByLoss(Guidance):
    """A model whose samples are led to a small loss.

    Args:
        model: any denoiser whose network can be differentiated.
        loss: of predicted images (B, *shape), in data units, the losses (B,), in nats. Each is of its own sample alone,
            whatever batch that comes in.
        scale: 0 is the model itself; a negative one leads to a large loss. Or a function of sigma.
        sigma_range: (low, high): outside it the model is evaluated once, without guidance.

    Inside the range a prediction costs twice what it costs the model: a pass, and a vector-Jacobian product. It carries
    a graph where grad mode is on, for gradients through sampling.

    Raises:
        GuidanceError: the scale is not finite or the range is empty; when called, losses of another shape than (B,).
        NonFiniteLossError: when called, a loss or its gradient is not finite; it names sigma and the sample.
        ArgumentError: what is no model, or no function.
    """

    loss: Callable[[Tensor], Tensor]
    scale: Scale = 1.0
    sigma_range: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_net(self.loss, "loss")
        object.__setattr__(self, "scale", checked_scale(self.scale))

    @property
    def facts(self) -> tuple[object, ...]:
        return facts_of(self.scale, self.model), self.sigma_range, self.loss

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        return super().acts(sigma) and scale_at(self.scale, sigma) != 0

    def guided_cost(self, sigma: float) -> Cost:
        of_model = cost(self.model, sigma)
        return of_model + Cost(0, of_model.evaluations)

    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        prediction, gradient = with_gradient(self.model, xbar, sigma, told, self.loss)
        return tilted(prediction, gradient, sigma, scales_at(self.scale, sigma))
