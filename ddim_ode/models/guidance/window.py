"""Another model in an interval of sigma."""

from dataclasses import dataclass

from torch import Tensor

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.models.guidance.around import Guidance, check_inner
from ddim_ode.models.guidance.cost import Cost, cost


@dataclass(frozen=True)
class Window(Guidance):
    """One model at the sigmas in a range, `inside`, and another outside of it; both are told the same.

    Raises:
        GuidanceError: the range is empty. ArgumentError: what is no model.
    """

    inside: Model
    sigma_range: tuple[float, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_inner(self.inside, "inside")

    @property
    def facts(self) -> tuple[object, ...]:
        return self.inside, self.sigma_range

    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        return self.inside(xbar, sigma, told)

    def guided_cost(self, sigma: float) -> Cost:
        return cost(self.inside, sigma)
