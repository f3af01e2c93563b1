"""Gaussian paths: the curves along which a model noises data and along which a solver integrates.

    x_u = a(u) x0 + b(u) eps,        sigma(u) = b(u) / a(u)        (noise-to-signal ratio)

At equal sigma all paths hold the same state up to the scale a: x_u / a(u) = x0 + sigma eps =: xbar (DDIM, Song et al.
2021, Sec. 4.3; Karras et al. 2022, Eq. 1). A path is therefore two things, a time u <-> sigma and a scale a(sigma). It
serves twice: as the schedule of a model and as the coordinate of a solver. Times and sigmas are float64 tensors of any
shape; coefficients are computed in float64.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError, real, shown, whole
from ddim_ode.support.scalars import number
from ddim_ode.support.tables import table_of

ArrayLike = Tensor | np.ndarray | Sequence[float] | float
MOST_TIMESTEPS = 10**6  # of a discrete schedule: a thousand times those that anybody trains with


class PathError(DDIMError):
    """A schedule that no path can be made of."""


def f64(x: ArrayLike) -> Tensor:
    """x as a float64 tensor. Raises ArgumentError for what is no number and no array of them."""
    try:
        return torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ArgumentError(f"{shown(x)} is no number and no array of numbers") from None


@dataclass(frozen=True)
class Path(ABC):
    """A curve (a(u), b(u)) and the range of sigma in which a model on it was trained.

    Subclasses give `scale`, `sigma`, `u` and `slopes`; u may rise or fall with sigma. Every parameter must be a field
    of the frozen dataclass, and stay as it is: what follows is kept by its hash, or found anew where it has none.
    """

    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def __post_init__(self) -> None:
        self._check_numbers("sigma_min", "sigma_max")
        if not 0 <= self.sigma_min < self.sigma_max:
            raise PathError(f"sigma from {self.sigma_min:g} to {self.sigma_max:g} is no range; give 0 <= low < high")

    def _check_numbers(self, *names: str) -> None:
        """Raise PathError for a field that is no number; those of numpy and torch become Python's."""
        for name in names:
            given = getattr(self, name)
            if math.isnan(found := number(given)):
                raise PathError(f"{name}={shown(given)} must be a number")
            object.__setattr__(self, name, given if type(given) in (int, float) else found)

    @property
    def num_timesteps(self) -> int:
        """Timesteps of a discrete schedule, 0 for a continuous path."""
        return 0

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the model was also trained on pure noise, sigma = inf, which lies beyond `sigma_max`."""
        return False

    @property
    def kinks(self) -> Tensor:
        """Sigmas (K,) at which the time is not a smooth function of sigma."""
        return f64([])

    @abstractmethod
    def scale(self, sigma: Tensor) -> Tensor:
        """a as a function of sigma."""

    @abstractmethod
    def sigma(self, u: Tensor) -> Tensor:
        """Noise-to-signal ratio at time u."""

    @abstractmethod
    def u(self, sigma: Tensor) -> Tensor:
        """Time at noise-to-signal ratio sigma, the inverse of `sigma`."""

    @abstractmethod
    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(a'(u), b'(u))."""

    def coefficients(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(a(u), b(u))."""
        sigma = self.sigma(u)
        a = self.scale(sigma)
        return a, a * sigma

    def prior_std(self, sigma: Tensor) -> Tensor:
        """Standard deviation of xbar where sampling begins: x = a xbar is a standard normal, as in DDPM's code."""
        return 1 / self.scale(sigma)


@dataclass(frozen=True)
class Noise(Path):
    """(a, b) = (1, u): u is sigma itself, the variance-exploding chart of DDIM's Eq. 14 and of EDM."""

    def scale(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def sigma(self, u: Tensor) -> Tensor:
        return u

    def u(self, sigma: Tensor) -> Tensor:
        return sigma

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(u), torch.ones_like(u)

    def prior_std(self, sigma: Tensor) -> Tensor:
        """sigma: a variance-exploding model starts at sigma_max times a standard normal."""
        return sigma


@dataclass(frozen=True)
class Data(Path):
    """(a, b) = (u, 1): u = 1 / sigma, on which the slope is the predicted image."""

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / sigma

    def sigma(self, u: Tensor) -> Tensor:
        return 1 / u

    def u(self, sigma: Tensor) -> Tensor:
        return 1 / sigma

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(u), torch.zeros_like(u)


@dataclass(frozen=True)
class VariancePreserving(Path):
    """a^2 + b^2 = 1, whatever the time."""

    def scale(self, sigma: Tensor) -> Tensor:
        return torch.rsqrt(1 + sigma**2)


@dataclass(frozen=True)
class Angle(VariancePreserving):
    """(a, b) = (cos u, sin u): bounded state in bounded time; the slope is v (Salimans & Ho 2022, App. D)."""

    def sigma(self, u: Tensor) -> Tensor:
        return torch.tan(u)

    def u(self, sigma: Tensor) -> Tensor:
        return torch.atan(sigma)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.sin(u), torch.cos(u)


@dataclass(frozen=True)
class Flow(Path):
    """(a, b) = (1 - u, u): rectified flow (Liu et al. 2023); the slope is eps - x0."""

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def sigma(self, u: Tensor) -> Tensor:
        return u / (1 - u)

    def u(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(u), torch.ones_like(u)


class DiscreteVP(VariancePreserving):
    """The schedule of DDPM: (a, b) = (sqrt(abar_t), sqrt(1 - abar_t)) at timesteps t = 0..T-1.

    Between timesteps log sigma is linear in t, so that u and sigma are exact inverses of each other.
    Outside 0..T-1 the time is clamped; the scale is not.

    Args:
        alphas_cumprod: T strictly decreasing values in (0, 1), at least 2. One more value of 0 at the end
            (zero terminal SNR, sigma = inf) is allowed; the path then ends at the largest finite sigma.

    Raises:
        PathError: a table that is not such a sequence.
    """

    alphas_cumprod: np.ndarray
    _log_sigma: np.ndarray
    _timesteps: int

    def __init__(self, alphas_cumprod: Sequence[float] | np.ndarray | Tensor):
        table = table_of("alphas_cumprod", alphas_cumprod, MOST_TIMESTEPS, PathError)
        object.__setattr__(self, "_timesteps", len(table))
        table = table[:-1] if len(table) and table[-1] == 0 else table
        if len(table) < 2:
            raise PathError(f"alphas_cumprod has {len(table)} values above 0; it must have at least 2")
        if not (np.all(np.diff(table) < 0) and table[-1] > 0 and table[0] < 1):
            raise PathError(
                f"alphas_cumprod runs from {table[0]:g} to {table[-1]:g}; it must decrease strictly inside (0, 1)"
                ", so give the cumulative product of 1 - beta, not the betas"
            )
        table.flags.writeable = False
        object.__setattr__(self, "alphas_cumprod", table)
        object.__setattr__(self, "_log_sigma", 0.5 * (np.log1p(-table) - np.log(table)))
        super().__init__(*np.exp(self._log_sigma[[0, -1]]).tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DiscreteVP) or self.num_timesteps != other.num_timesteps:
            return False
        return np.array_equal(self.alphas_cumprod, other.alphas_cumprod)

    def __hash__(self) -> int:  # of little, since coefficients are looked up by the path at every evaluation
        return hash((self._timesteps, self.sigma_min, self.sigma_max))

    @property
    def num_timesteps(self) -> int:
        return self._timesteps

    @property
    def kinks(self) -> Tensor:
        return f64(np.exp(self._log_sigma))

    @property
    def zero_terminal_snr(self) -> bool:
        return self._timesteps > len(self.alphas_cumprod)

    def sigma(self, u: Tensor) -> Tensor:
        return f64(np.exp(np.interp(u.cpu().numpy(), np.arange(len(self._log_sigma)), self._log_sigma)))

    def u(self, sigma: Tensor) -> Tensor:
        log_sigma = np.log(np.maximum(sigma.cpu().numpy(), np.finfo(np.float64).tiny))
        return f64(np.interp(log_sigma, self._log_sigma, np.arange(len(self._log_sigma))))

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        below = np.clip(np.floor(u.cpu().numpy()).astype(int), 0, len(self._log_sigma) - 2)
        sigma = self.sigma(u)
        inside = (u >= 0) & (u <= len(self._log_sigma) - 1)
        dsigma = inside * sigma * f64(self._log_sigma[below + 1] - self._log_sigma[below])
        a = self.scale(sigma)
        return -sigma * a**3 * dsigma, a**3 * dsigma

    @classmethod
    def from_betas(cls, betas: Sequence[float] | np.ndarray) -> "DiscreteVP":
        """The path of the variances beta_t added at each timestep (DDPM, Eq. 2)."""
        table = table_of("betas", betas, MOST_TIMESTEPS, PathError)
        for n in np.flatnonzero(~((table > 0) & (table <= 1))):
            raise PathError(f"betas[{n}]={table[n]:g} is no variance of noise; give numbers in (0, 1)")
        return cls(np.cumprod(1 - table))

    @classmethod
    def linear(cls, timesteps: int = 1000, first: float = 1e-4, last: float = 0.02) -> "DiscreteVP":
        """DDPM's schedule: beta linear in t (Ho et al. 2020, Sec. 4)."""
        timesteps, first, last = _linear(timesteps, first, last)
        return cls.from_betas(np.linspace(first, last, timesteps))

    @classmethod
    def scaled_linear(cls, timesteps: int = 1000, first: float = 1e-4, last: float = 0.02) -> "DiscreteVP":
        """sqrt(beta) linear in t ("quad" in the DDIM code, and the schedule of latent diffusion)."""
        timesteps, first, last = _linear(timesteps, first, last)
        return cls.from_betas(np.linspace(first**0.5, last**0.5, timesteps) ** 2)

    @classmethod
    def cosine(cls, timesteps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> "DiscreteVP":
        """abar_t ~ cos^2, beta clipped at `largest` (Nichol & Dhariwal 2021, Eq. 17)."""
        timesteps = whole("timesteps", timesteps, PathError, least=2, most=MOST_TIMESTEPS)
        offset = real("offset", offset, PathError, 0, 1, "0.008")
        largest = real("largest", largest, PathError, 0, 1, "0.999")
        t = np.arange(timesteps + 1) / timesteps
        abar = np.cos((t + offset) / (1 + offset) * np.pi / 2) ** 2
        return cls.from_betas(np.minimum(1 - abar[1:] / abar[:-1], largest))

    def to_zero_snr(self) -> "DiscreteVP":
        """sqrt(abar) shifted and scaled so that the last is 0 and the first is kept (Lin et al. 2023, Alg. 1)."""
        if self.zero_terminal_snr:
            return self
        root = np.sqrt(self.alphas_cumprod)
        return DiscreteVP(((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2)


def _linear(timesteps: int, first: float, last: float) -> tuple[int, float, float]:
    """The arguments of a schedule between two betas, checked."""
    timesteps = whole("timesteps", timesteps, PathError, least=2, most=MOST_TIMESTEPS)
    return timesteps, real("first", first, PathError, 0, 1, "1e-4"), real("last", last, PathError, 0, 1, "0.02")


noise = Noise()
data = Data()
angle = Angle()
flow = Flow()
