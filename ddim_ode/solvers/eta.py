"""The scale of the noise, and where it comes from."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ddim_ode.errors import DDIMError
from ddim_ode.ode.brownian import NoiseSource
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number

MOST = 1e3  # times DDPM's noise: in the least step a square of more is nothing but noise

#: what `sample` takes as eta
EtaLike = float | Callable[[float], float] | Literal["ddpm_large"] | None


class EtaError(DDIMError):
    """Noise of a scale that cannot be, or with a solver that cannot have it."""


@dataclass(frozen=True)
class Eta:
    """The scale of the noise as a function of sigma: `value`, a number or a function, in a range of sigma; else 0."""

    value: float | Callable[[float], float] = 1.0
    low: float = 0.0
    high: float = math.inf

    def __call__(self, sigma: float) -> float:
        if not self.low <= sigma <= self.high:
            return 0.0
        given = self.value(sigma) if callable(self.value) else self.value
        if not 0 <= (eta := number(given)) <= MOST:
            raise EtaError(f"eta={shown(given)} at sigma={sigma:.6g} must be a finite number >= 0; at most {MOST:g}")
        return eta


DDPM = Eta()  # 1 everywhere


def noise_of(ode: ProbabilityFlow) -> NoiseSource:
    """The Brownian paths that a flow draws from. Raises EtaError where it has none."""
    if ode.brownian is None:
        raise EtaError("eta > 0 draws noise, and there are no seeds to draw it from; sample with seeds")
    return ode.brownian


def is_scale(given: object) -> bool:
    """Whether it is a function; a class is none."""
    return callable(given) and not isinstance(given, type)
