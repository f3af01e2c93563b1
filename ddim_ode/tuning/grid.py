"""The grid alone of a method of ours: its places are moved, its coefficients follow from them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.grids import GRIDS, make_grid
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.paths import f64
from ddim_ode.solvers import Method, integrate
from ddim_ode.tuning.numbers import CLOSEST, in_order
from ddim_ode.tuning.problem import Asked, Samples, missed

STEP = 0.02  # of a finite difference, in log sigma


@dataclass(frozen=True, eq=False)
class Places:
    """Where a method steps: from the model's largest sigma through `u` (N - 1,), in log sigma, to 0."""

    method: Method
    first: float
    u: Tensor

    @property
    def count(self) -> int:
        return len(self.u) + 1

    @property
    def sigmas(self) -> Tensor:
        """(N + 1,) float64."""
        return torch.cat([f64([self.first]), self.u.exp(), f64([0.0])])

    @property
    def price(self) -> int:
        """Predictions that the Jacobian costs for a sample, or a few less."""
        return self.count * self.count * self.method.evaluations

    def vector(self) -> Tensor:
        return self.u

    def result(self) -> tuple[float, ...]:
        return tuple(self.sigmas.tolist())

    def moved(self, vector: Tensor, low: float, high: float) -> "Places":
        return Places(self.method, self.first, in_order(vector, low, high - CLOSEST))

    def images(self, asked: Asked, samples: Samples) -> Tensor:
        """What the method makes of the noise, (B, *shape)."""
        model, sigmas, found = asked.model, self.sigmas, []
        for start in range(0, len(samples), asked.batch_size):
            part = samples.part(slice(start, start + asked.batch_size))
            ode = ProbabilityFlow(model, self.method.path, (model.sigma_min, model.sigma_max), part.labels)
            xbar = part.z * along(model.path.prior_std(sigmas[0]), part.z)
            found.append(integrate(ode, self.method.solver, sigmas, xbar))
            asked.passes += int(torch.as_tensor(ode.nfe).expand(len(part)).sum())
        return torch.cat(found)

    def jacobian(self, asked: Asked, samples: Samples) -> tuple[Tensor, Tensor]:
        """The images (B, *shape) and how they change with the places, (N - 1, B, *shape)."""
        x, low, high = self.images(asked, samples), asked.low, asked.high
        changes = []
        for n in range(len(self.u)):
            up = n > 0 and float(self.u[n - 1] - self.u[n]) > 2 * STEP  # else the next above would be met
            vector = self.u.clone()
            vector[n] += STEP if up else -STEP
            other = self.moved(vector, low, high)
            by = float(other.u[n] - self.u[n])
            changes.append((other.images(asked, samples) - x) / by if by else torch.zeros_like(x))
        return x, torch.stack(changes)


def best_named(asked: Asked, method: Method, intervals: int, samples: Samples, told: Callable[[float], None]) -> Places:
    """Places of the named grid on which the method misses least, the method's own among them."""
    found = list[tuple[float, Places]]()
    for name in dict.fromkeys((method.grid, *GRIDS)):
        try:
            sigmas = make_grid(name, asked.model.path, intervals, "denoise")
            places = Places(method, float(sigmas[0]), sigmas[1:-1].log())
            errors = missed(places.images(asked, samples), samples.x)
        except DDIMError:  # a grid that this path has not, or one that sends the state away
            continue
        found.append((float(errors.clamp(min=1e-15).log().mean()), places))
        told(float(errors.median()))
    return min(found, key=lambda pair: pair[0])[1]
