"""Schedules in continuous time, which score networks, v-prediction, flows and EDM's networks are trained on.

    VPSDE     a = exp(-B / 2),    b = sqrt(1 - exp(-B)),    B = beta_min t + (beta_max - beta_min) t^2 / 2
    VESDE     a = 1,              b = sigma_min (sigma_max / sigma_min)^t
    Cosine    a = cos(pi t / 2),  b = sin(pi t / 2)

The first two are Song et al. 2021 ("Score-Based ..."), Eqs. 30-33; the third is Salimans & Ho 2022, Sec. 2. Their
time t is in [0, 1]. The time of those below is what networks in the hands of diffusers are told:

    TimedFlow       a = 1 - s,  b = s,  told 1000 s, or 1000 (1 - s), or 1000 s before a shift
    Preconditioned  a = 1 / sqrt(sigma^2 + sigma_data^2),  told log(sigma) / 4 or the angle (Karras et al. 2022)
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddim_ode.paths import Flow, Noise, Path, PathError, VariancePreserving, f64


@dataclass(frozen=True)
class Timed(VariancePreserving):
    """A variance-preserving path of which a model knows the times t_min to t_max; sigma follows from them.

    Raises:
        PathError: not 0 < t_min < t_max <= 1.
    """

    sigma_min: float = field(init=False)
    sigma_max: float = field(init=False)
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        self._check_numbers("t_min", "t_max")
        if not 0 < self.t_min < self.t_max <= 1:
            raise PathError(f"times {self.t_min:g} to {self.t_max:g} are no range; give 0 < t_min < t_max <= 1")
        low, high = self.sigma(f64([self.t_min, self.t_max])).tolist()
        if not 0 < low < high < math.inf:
            raise PathError(f"times {self.t_min:g} to {self.t_max:g} are sigma={low:g} to {high:g}; give other numbers")
        object.__setattr__(self, "sigma_min", low)
        object.__setattr__(self, "sigma_max", high)


@dataclass(frozen=True)
class VPSDE(Timed):
    """The variance-preserving SDE, to which DDPM's linear schedule tends (Song et al. 2021, Eqs. 32, 33).

    Raises:
        PathError: times that are no range, or not 0 <= beta_min < beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        self._check_numbers("beta_min", "beta_max")
        if not 0 <= self.beta_min < self.beta_max < math.inf:
            raise PathError(
                f"beta from {self.beta_min:g} to {self.beta_max:g} must rise; give 0 <= beta_min < beta_max"
            )
        super().__post_init__()

    def sigma(self, u: Tensor) -> Tensor:
        return torch.sqrt(torch.expm1(self._integral(u)))

    def u(self, sigma: Tensor) -> Tensor:
        integral = torch.log1p(sigma**2)
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * self._rise * integral))

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.coefficients(u)
        half = (self.beta_min + self._rise * u) / 2
        return -half * a, half * a**2 / b

    @property
    def _rise(self) -> float:
        return self.beta_max - self.beta_min

    def _integral(self, u: Tensor) -> Tensor:
        return self.beta_min * u + self._rise * u**2 / 2


@dataclass(frozen=True)
class VESDE(Noise):
    """The variance-exploding SDE; its time is linear in log sigma (Song et al. 2021, Eqs. 30, 31).

    Raises:
        PathError: not 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        self._check_numbers("sigma_min", "sigma_max")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise PathError(
                f"sigma from {self.sigma_min:g} to {self.sigma_max:g} has no logarithms between; give 0 < sigma_min"
                " < sigma_max"
            )

    def sigma(self, u: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._log_ratio * u)

    def u(self, sigma: Tensor) -> Tensor:
        return torch.log(sigma / self.sigma_min) / self._log_ratio

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(u), self._log_ratio * self.sigma(u)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class Cosine(Timed):
    """The angle in units of a right one, t = 2 / pi atan sigma (Salimans & Ho 2022, Sec. 2)."""

    t_max: float = 1 - 1e-3

    def sigma(self, u: Tensor) -> Tensor:
        return torch.tan(math.pi / 2 * u)

    def u(self, sigma: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan(sigma)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.coefficients(u)
        return -math.pi / 2 * b, math.pi / 2 * a


@dataclass(frozen=True)
class TimedFlow(Flow):
    """Rectified flow whose network is told its share of noise s in steps of training.

    timesteps: what it is told at s = 1. inverted: it is told timesteps * (1 - s). shift: it is told the share before a
    shift, s / (shift - (shift - 1) s) (Esser et al. 2024, Eq. 23).
    """

    timesteps: float = 1000.0
    inverted: bool = False
    shift: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_numbers("timesteps", "shift")
        if not (0 < self.timesteps < math.inf and 0 < self.shift < math.inf):
            raise PathError(f"timesteps={self.timesteps:g} and shift={self.shift:g} must be numbers > 0")

    def sigma(self, u: Tensor) -> Tensor:
        share = self._share(u)
        return share / (1 - share)

    def u(self, sigma: Tensor) -> Tensor:
        told = sigma / (self.shift + sigma)
        return self.timesteps * (1 - told if self.inverted else told)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        told = self._told(u)
        rise = self.shift / (1 + (self.shift - 1) * told) ** 2 / self.timesteps * (-1 if self.inverted else 1)
        return -rise, rise

    def _told(self, u: Tensor) -> Tensor:
        return 1 - u / self.timesteps if self.inverted else u / self.timesteps

    def _share(self, u: Tensor) -> Tensor:
        told = self._told(u)
        return self.shift * told / (1 + (self.shift - 1) * told)


@dataclass(frozen=True)
class Preconditioned(Path):
    """The state that a network of EDM's kind sees, x = xbar / sqrt(sigma^2 + sigma_data^2) (Karras et al. 2022, Eq. 7).

    told: "log", the network is told log(sigma) / 4, as EDM and Stable Video Diffusion are; or "angle", it is told
    2 / pi atan(sigma), as Stable Audio is.
    """

    sigma_data: float = 1.0
    told: str = "log"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_numbers("sigma_data")
        if not 0 < self.sigma_data < math.inf:
            raise PathError(f"sigma_data={self.sigma_data:g} must be a number > 0, such as 0.5")
        if self.told not in ("log", "angle"):
            raise PathError(f"told={self.told!r} is unknown; choose 'log' or 'angle'")

    def scale(self, sigma: Tensor) -> Tensor:
        return torch.rsqrt(sigma**2 + self.sigma_data**2)

    def sigma(self, u: Tensor) -> Tensor:
        return torch.exp(4 * u) if self.told == "log" else torch.tan(math.pi / 2 * u)

    def u(self, sigma: Tensor) -> Tensor:
        return torch.log(sigma) / 4 if self.told == "log" else 2 / math.pi * torch.atan(sigma)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.sigma(u)
        rise = 4 * sigma if self.told == "log" else math.pi / 2 * (1 + sigma**2)
        a = self.scale(sigma)
        return -sigma * a**3 * rise, self.sigma_data**2 * a**3 * rise
