"""Many numbers at once, by Gauss-Newton on a robust loss.

    loss = mean log(e_i^2 + s^2),       e_i what sample i misses, s a share of their median

Samples that end in another mode, far off whatever the numbers are, have little to say. Steps are damped (Levenberg
1944, Marquardt 1963). Samples come in chunks, of which J'J and J'r are summed.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.solvers import DivergedError
from ddim_ode.solvers.tuned import Table
from ddim_ode.tuning.problem import Asked, Samples, missed

FLOOR = 0.3  # s, as a share of the median error
LEAST_GAIN = 2e-3  # in the loss, of an iteration after which another is worth its price
MOST = 12  # iterations
TRIALS = 6  # of a step, with more damping each time
FIRST, LEAST, UP, DOWN = 1e-3, 1e-8, 6.0, 1 / 8  # damping, and the factors after a failure and a success
MEMORY = 2**27  # numbers of a chunk's tangents
PIXELS = 2**16  # of them at once in float64


class Movable(Protocol):
    """What has parameters, makes images of noise, and can tell how they change."""

    @property
    def count(self) -> int:
        """Predictions."""
        ...

    @property
    def price(self) -> int:
        """Predictions that the Jacobian costs for a sample."""
        ...

    def vector(self) -> Tensor:
        """(P,) the parameters."""
        ...

    def moved(self: "Kind", vector: Tensor, low: float, high: float) -> "Kind":
        """The same with others; places in log sigma stay in order, and in [low, high]."""
        ...

    def images(self, asked: Asked, samples: Samples) -> Tensor: ...

    def jacobian(self, asked: Asked, samples: Samples) -> tuple[Tensor, Tensor]: ...

    def result(self) -> Table | tuple[float, ...]:
        """A table, or the sigmas of a grid."""
        ...


Kind = TypeVar("Kind", bound=Movable)


def refine(
    asked: Asked,
    begin: Kind,
    samples: Samples,
    limit: int,
    told: Callable[[Tensor], None],
) -> Kind:
    """Move the parameters until the loss does no more, or the next iteration would take `asked` past `limit` passes.

    told: gets the errors (B,) before each iteration.
    """
    at, x, damping, price = begin, begin.images(asked, samples), FIRST, 0
    for _ in range(MOST):
        errors, spent = missed(x, samples.x), asked.passes
        told(errors)
        if spent + price > limit:
            break
        floor = FLOOR * float(errors.median())
        try:
            matrix, slope = _normal_equations(asked, at, samples, 1 / (floor**2 + errors**2))
        except (NonFiniteError, DivergedError):  # beside a state that was still finite
            break
        scale = matrix.diagonal().clamp(min=1e-300).rsqrt()
        matrix, slope = matrix * scale[:, None] * scale, slope * scale
        before, gain = _loss(errors, floor), -math.inf
        for _ in range(TRIALS):
            step = scale * torch.linalg.solve(matrix + damping * torch.eye(len(slope)).to(matrix), slope)
            other = at.moved(at.vector() + step, asked.low, asked.high)
            with suppress(NonFiniteError, DivergedError):  # of a step that was too long
                x = other.images(asked, samples)
                gain = before - _loss(missed(x, samples.x), floor)
            if gain > 0:
                break
            damping *= UP
        if gain > 0:
            at, damping, price = other, max(damping * DOWN, LEAST), asked.passes - spent
        if gain < LEAST_GAIN:
            break
    return at


def _loss(errors: Tensor, floor: float) -> float:
    value = float((errors**2 + floor**2).log().mean())
    return value if math.isfinite(value) else math.inf


def _normal_equations(asked: Asked, at: Movable, samples: Samples, weights: Tensor) -> tuple[Tensor, Tensor]:
    """J'WJ (P, P) and J'Wr (P,), float64 on the CPU, with r what is missed and W samples' weights (B,)."""
    size = len(at.vector()) * (at.count + 1) * math.prod(samples.z.shape[1:])
    chunk = max(1, MEMORY // size)
    matrix, slope = torch.zeros(()).double(), torch.zeros(()).double()
    for first in range(0, len(samples), chunk):
        rows = slice(first, first + chunk)
        part = samples.part(rows)
        x, change = at.jacobian(asked, part)
        root = (weights[rows] / weights.mean()).sqrt()
        flat = change.reshape(*change.shape[:2], -1)
        missing = (part.x - x).reshape(len(part), -1)
        for some, left in zip(flat.split(PIXELS, 2), missing.split(PIXELS, 1), strict=True):
            weighed = (some * root[:, None]).double().flatten(1)
            matrix = matrix + (weighed @ weighed.T).cpu()
            slope = slope + (weighed @ (left * root[:, None]).flatten()).cpu()
    return matrix, slope
