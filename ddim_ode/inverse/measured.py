"""A Model around a Model that knows what was measured of each sample: what the methods for inverse problems share.

The measurement y travels as a condition of the name `MEASUREMENT`, so that it is cut with the batch as labels are; the
model inside is told the rest. A changed prediction keeps xbar = data + sigma noise.

x0 given xbar is taken for N(data, r^2 I), r^2 = p^2 sigma^2 / (p^2 + sigma^2): what it is for x0 ~ N(., p^2 I) (Song et
al. 2023, "Pseudoinverse-guided ...", Appendix A.3, with p = 1).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ddim_ode.inverse.measurements import LinearOperator, Measurement, MeasurementError, checked_noise
from ddim_ode.models.arguments import check_state, noise_level
from ddim_ode.models.conditions import Conditions, Told, tensors_of
from ddim_ode.models.denoiser import Prediction
from ddim_ode.models.guidance import Around
from ddim_ode.models.guidance.around import outside_inference
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.models.guidance.scales import per_sample
from ddim_ode.support.checks import of_kind, shown
from ddim_ode.support.scalars import number

MEASUREMENT = "measurement"  # the name of y among the conditions
SMALLEST = 1e-10  # sigma that 1 / sigma^2 is taken of


@dataclass(frozen=True)
class Measured(Around, ABC):
    """A model whose predictions agree with what was measured of the image.

    Args:
        model: any denoiser; with guidance, that goes inside.
        operator: what was measured.
        noise_std: standard deviation s >= 0 of the noise in y, in data units.
        prior_std: p, the standard deviation of a pixel that is known of the data alone, in data units.

    Call it as a model, with the measurement among the conditions: `Conditions(labels, {"measurement": y})`.

    Raises:
        MeasurementError: a noise level that cannot be, an operator that is not linear for a method that needs it, or,
            when called, no measurement. ArgumentError: what is no model or no operator.
    """

    operator: Measurement
    noise_std: float = 0.0
    prior_std: float = 1.0

    linear: ClassVar[bool] = False  # whether the method asks for an adjoint
    products: ClassVar[int] = 0  # vector-Jacobian products of a prediction

    def __post_init__(self) -> None:
        super().__post_init__()
        of_kind(
            "operator", self.operator, Measurement, "one such as Mask(known), Blur.gaussian(1.5), Differentiable(f)"
        )
        if self.linear and not isinstance(self.operator, LinearOperator):
            name = type(self).__name__
            raise MeasurementError(f"{name} needs a linear operator; use method='mmps' or 'dps' for any other function")
        prior = number(self.prior_std)
        if not 0 < prior < math.inf:
            raise MeasurementError(f"prior_std={shown(self.prior_std)} must be a finite number > 0, such as 1.0")
        object.__setattr__(self, "noise_std", checked_noise(self.noise_std))
        object.__setattr__(self, "prior_std", prior)

    @property
    def facts(self) -> tuple[object, ...]:
        return type(self.operator).__name__, *self.operator.facts, self.noise_std, self.prior_std

    def cost(self, sigma: float) -> Cost:
        """What a prediction at sigma costs, network passes and gradients apart."""
        inner = cost(self.model, sigma)
        return inner + Cost(0, self.products * inner.evaluations)

    def evaluations(self, sigma: float) -> int:
        return self.cost(sigma).evaluations

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        """Predict as a `Denoiser` does, given xbar and y. Raises MeasurementError without a measurement."""
        check_state(xbar, self.shape, MeasurementError)
        sigma = noise_level(sigma, len(xbar), MeasurementError, zero=True)
        return outside_inference(self._given_told, xbar, sigma, labels)

    def _given_told(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        y, others = self._apart(told)
        return self.given(y.to(xbar), xbar, sigma, others)

    @abstractmethod
    def given(self, y: Tensor, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        """The prediction that agrees with y (B, *measured), at sigma () or (B,)."""

    def precision(self, sigma: Tensor) -> Tensor:
        """1 / r^2, of sigma's shape."""
        return 1 / sigma.clamp(min=SMALLEST) ** 2 + 1 / self.prior_std**2

    def ridge(self, y: Tensor, sigma: Tensor) -> float | Tensor:
        """s^2 / r^2, so that it multiplies y: by how much noise exceeds what y could teach."""
        return per_sample(self.noise_std**2 * self.precision(sigma), y) if self.noise_std else 0.0

    def _apart(self, told: Told) -> tuple[Tensor, Told]:
        """The measurement, and what the model inside is told."""
        if not isinstance(told, Conditions) or MEASUREMENT not in told.tensors:
            raise MeasurementError(f"nothing was measured; give conditions={{{MEASUREMENT!r}: y}}, or call restore")
        others = told.without(MEASUREMENT)
        return told.tensors[MEASUREMENT], others if others.tensors else told.labels


def with_measurement(told: Told, y: Tensor) -> Conditions:
    """What a model is told, and y (B, *measured) with it."""
    tensors = {**tensors_of(told), MEASUREMENT: y}
    return replace(told, tensors=tensors) if isinstance(told, Conditions) else Conditions(told, tensors)
