"""From a measurement to predictions: null-space projection, pseudo-inverse guidance, moment matching, DPS.

All of them are estimates of E[x0 | xbar, y] in place of E[x0 | xbar] = data. If x0 given xbar is N(data, C), it is

    data + C A' (A C A' + s^2 I)^-1 (y - A data),        C = Cov[x0 | xbar] = sigma^2 J,    J = d data / d xbar

(the second by Tweedie; Boys et al. 2023, arXiv:2310.06721). The methods differ in what they take for C.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from ddim_ode.inverse.conjugate import inner
from ddim_ode.inverse.measured import Measured
from ddim_ode.inverse.measurements import LinearOperator, Measurement, MeasurementError
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.models.guidance import Window
from ddim_ode.models.guidance.gradient import with_gradient
from ddim_ode.models.guidance.scales import per_sample, tilted, with_data
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number


@dataclass(frozen=True)
class Projected(Measured):
    """DDNM (Wang et al. 2023, arXiv:2212.00490, Eq. 13): data + A^+ (y - A data), C = r^2 I in both places.

    With noise A^+ becomes A' (A A' + s^2 / r^2 I)^-1. The paper's noisy form (DDNM+, Eq. 17) pays for the noise in y
    with the noise that its stochastic steps add; an ODE adds none, and takes from y what is more than noise.
    """

    linear: ClassVar[bool] = True

    def given(self, y: Tensor, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        prediction, operator = self.model(xbar, sigma, told), cast(LinearOperator, self.operator)
        left = y - operator.apply(prediction.data)
        return with_data(prediction, operator.pseudo_inverse(left, self.ridge(y, sigma)), sigma)


@dataclass(frozen=True)
class PseudoInverse(Measured):
    """PiGDM (Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems", ICLR, Eq. 7):

        data + sigma^2 J' A' (r^2 A A' + s^2 I)^-1 (y - A data)

    the covariance in front is the network's own, that in the inverse r^2 I. Where the two differ, the step is too long
    by their ratio: at large sigma that is the variance of the data along the measured direction, in units of p^2, and
    for images a hundred and more. So `restore` has DDNM there; `MomentMatching` measures the ratio.
    """

    linear: ClassVar[bool] = True
    products: ClassVar[int] = 1

    def given(self, y: Tensor, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        operator = cast(LinearOperator, self.operator)

        def missing(data: Tensor) -> Tensor:
            image = operator.pseudo_inverse(y - operator.apply(data.detach()), self.ridge(y, sigma))
            return -(image * data).flatten(1).sum(1)

        prediction, gradient = with_gradient(self.model, xbar, sigma, told, missing)
        return tilted(prediction, gradient, sigma, self.precision(sigma))


def pigdm(
    model: Model, operator: Measurement, noise_std: float = 0.0, *, prior_std: float = 1.0, highest: float = 3.0
) -> Window:
    """PiGDM up to the sigma `highest`, and DDNM above. Raises as `Measured`, and GuidanceError for no such sigma."""
    shared = (model, operator, noise_std, prior_std)
    return Window(Projected(*shared), PseudoInverse(*shared), (0.0, highest))


@dataclass(frozen=True)
class MomentMatching(Measured):
    """C = sigma^2 J in both places, solved by one step of conjugate gradients (Rozet et al. 2024, arXiv:2405.13712,
    Algorithm 2), preconditioned by PiGDM's inverse, and DDNM for what that step leaves:

        q = (r^2 A A' + s^2 I)^-1 e,   e = y - A data,   g = J' A' q,   step = e'q / (sigma^2 q'A g + s^2 q'q)
        data + sigma^2 step g + r^2 A' (r^2 A A' + s^2 I)^-1 (e - step (sigma^2 A g + s^2 q))

    It costs what PiGDM costs, whose direction it takes: the step is 1 where r^2 I is the covariance, and shorter or
    longer by exactly the ratio along that direction where it is not. Where the network's Jacobian has no positive
    curvature there, which no covariance has, the step is 0 and DDNM remains.

    A function that is not linear is linearised at the data, with q = e and without the last term.
    """

    products: ClassVar[int] = 1

    def given(self, y: Tensor, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        operator, ridge, seen = self.operator, self.ridge(y, sigma), dict[str, Tensor]()

        def explained(data: Tensor) -> Tensor:
            measured = operator.apply(data)
            seen["left"] = y - measured.detach()
            seen["dual"] = operator.solve(seen["left"], ridge)
            return -(seen["dual"] * measured).flatten(1).sum(1)

        prediction, gradient = with_gradient(self.model, xbar, sigma, told, explained)
        left, dual = seen["left"], seen["dual"]
        image = -per_sample(sigma**2, dual) * operator.derivative(prediction.data, gradient) + self.noise_std**2 * dual
        curvature = inner(dual, image)
        step = torch.where(curvature > 0, inner(left, dual) / torch.where(curvature > 0, curvature, 1), 0)
        prediction = tilted(prediction, gradient, sigma, step.flatten())
        if not isinstance(operator, LinearOperator):
            return prediction
        return with_data(prediction, operator.pseudo_inverse(left - step * image, ridge), sigma)


@dataclass(frozen=True)
class PosteriorSampling(Measured):
    """DPS (Chung et al. 2023, arXiv:2209.14687): data - scale (sigma^2 / r^2) d|y - A data| / dxbar.

    The paper corrects x after a step of DDPM by -zeta d|y - A data| / dx (Algorithm 1, line 7, with the step size of
    Appendix C.2), and with p = 1 sigma^2 / r^2 = 1 + sigma^2 is 1 / a^2 there. Here it is a change of the predicted
    image, so that any solver makes it: DDIM's step from sigma to sigma' carries the share 1 - sigma' / sigma of it. It
    does not shrink with what is missing, so that it needs many steps; the noise level of y plays no part.
    """

    scale: float = 0.03

    products: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < number(self.scale) < math.inf:
            raise MeasurementError(f"scale={shown(self.scale)} must be a finite number > 0, such as 0.03")
        object.__setattr__(self, "scale", number(self.scale))

    @property
    def facts(self) -> tuple[object, ...]:
        return *super().facts, self.scale

    def given(self, y: Tensor, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        def distance(data: Tensor) -> Tensor:
            return torch.linalg.vector_norm((y - self.operator.apply(data)).flatten(1), dim=1)

        prediction, gradient = with_gradient(self.model, xbar, sigma, told, distance)
        return tilted(prediction, gradient, sigma, self.scale * self.precision(sigma))
