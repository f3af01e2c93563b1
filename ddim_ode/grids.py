"""Decreasing grids of sigma: where a fixed-grid solver evaluates.

A named grid is a rule (path, n) -> n strictly decreasing sigmas from (about) sigma_max to sigma_min. It is
made once, in float64. With `final="denoise"` a 0 is appended: the last interval is one evaluation that
returns the predicted image, as the last step of DDIM does. With `final="sigma_min"` the grid stops there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddim_ode.errors import DDIMError, unknown
from ddim_ode.paths import Path, f64

Final = Literal["denoise", "sigma_min"]
Grid = str | Sequence[float] | Tensor


class GridError(DDIMError):
    """A grid that is unknown, does not decrease, or does not fit the model."""


def uniform(path: Path, n: int) -> Tensor:
    """Times linspace(last, first, n) on the model's path, both ends included."""
    low, high = _range(path, "uniform")
    return path.sigma(torch.linspace(float(path.u(f64(high))), float(path.u(f64(low))), n, dtype=torch.float64))


def leading(path: Path, n: int) -> Tensor:
    """Timesteps k (T // n), k = n-1..0: `skip_type="uniform"` of the DDIM code, "leading" in diffusers.

    It never reaches the last timestep, and with n = 1 it starts (and ends) at the first.
    """
    return path.sigma(f64(np.arange(n)[::-1] * (_timesteps(path, n, "leading") // n)))


def trailing(path: Path, n: int) -> Tensor:
    """Times linspace(last, first, n + 1)[:-1]: `uniform`, with the smallest sigma left for the end.

    On discrete timesteps they are round(k T / n) - 1, k = n..1 (Lin et al. 2023, Table 2).
    """
    if path.num_timesteps:
        return path.sigma(f64(np.round(np.arange(n, 0, -1) * _timesteps(path, n, "trailing") / n) - 1))
    _range(path, "trailing")
    return uniform(path, n + 1)[:-1]


def quadratic(path: Path, n: int) -> Tensor:
    """Timesteps linspace(sqrt(0.8 T), 0, n)^2, not rounded (DDIM, App. D.2): for noisy schedules such as linear."""
    return path.sigma(f64(np.linspace(math.sqrt(0.8 * _discrete(path, "quadratic")), 0, n) ** 2))


def karras(path: Path, n: int, rho: float = 7.0) -> Tensor:
    """sigma^(1/rho) spaced evenly (Karras et al. 2022, Eq. 5)."""
    low, high = _range(path, "karras")
    return f64(np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho)


def log_snr(path: Path, n: int) -> Tensor:
    """log sigma spaced evenly (Lu et al. 2022, DPM-Solver)."""
    low, high = _range(path, "log_snr")
    return f64(np.geomspace(high, low, n))


def angle(path: Path, n: int) -> Tensor:
    """atan sigma spaced evenly."""
    low, high = _range(path, "angle")
    return f64(np.tan(np.linspace(math.atan(high), math.atan(low), n)))


def trailing_angle(path: Path, n: int, rho: float = 1.2) -> Tensor:
    """(atan sigma)^(1/rho) spaced evenly, the smallest sigma left for the end: few steps, any schedule."""
    low, high = (math.atan(sigma) for sigma in _range(path, "trailing_angle"))
    u = np.linspace(high ** (1 / rho), low ** (1 / rho), n + 1)[:-1] ** rho
    return f64(np.tan(np.minimum(u, high)))


def near_image(path: Path, n: int, rho: float = 5.0) -> Tensor:
    """(sigma / (1 + sigma))^(1/rho) spaced evenly, dense near the image: for encoding."""
    low, high = (sigma / (1 + sigma) for sigma in _range(path, "near_image"))
    u = np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho
    sigmas = f64(u / (1 - u))
    sigmas[-1], sigmas[0] = path.sigma_min, path.sigma_max  # which 1 - u has rounded; of one sigma it is the first
    return sigmas


GRIDS: Mapping[str, Callable[[Path, int], Tensor]] = {
    "uniform": uniform,
    "leading": leading,
    "trailing": trailing,
    "quadratic": quadratic,
    "karras": karras,
    "log_snr": log_snr,
    "angle": angle,
    "trailing_angle": trailing_angle,
    "near_image": near_image,
}


def most_intervals(grid: str, path: Path, final: Final) -> float:
    """How many intervals the named grid can have; those that need whole timesteps run out of them."""
    if grid not in ("leading", "trailing") or not path.num_timesteps:
        return math.inf
    steps = _discrete(path, grid)
    if final == "denoise":
        return steps
    return steps - 1 if grid == "leading" else steps * 2 // 3


def make_grid(grid: str, path: Path, intervals: int, final: Final) -> Tensor:
    """The named grid with that many intervals: (intervals + 1,) float64 sigmas, strictly decreasing.

    Raises:
        GridError: an unknown name, or a grid that this path cannot have.
    """
    if grid not in GRIDS:
        raise GridError(unknown("grid", grid, GRIDS))
    if final == "denoise":
        sigmas = torch.cat([GRIDS[grid](path, intervals), torch.zeros(1, dtype=torch.float64)])
    elif grid in ("leading", "trailing", "trailing_angle"):
        # These are rules for where intervals begin; the last one ends at sigma_min.
        offset = 1 if grid == "leading" else 0
        u = path.u(GRIDS[grid](path, intervals)) + offset
        sigmas = torch.cat([path.sigma(u), f64([path.sigma_min])])
    else:
        sigmas = GRIDS[grid](path, intervals + 1)
    return check_grid(sigmas, path)


def check_grid(sigmas: Sequence[float] | Tensor, path: Path) -> Tensor:
    """An explicit grid for a model, float64 (N + 1,); it may end below the model's sigma_min.

    Raises:
        GridError: it does not decrease strictly, or starts above the model's sigma_max.
    """
    s = explicit_grid(sigmas)
    if s[0] > path.sigma_max * (1 + 1e-9):
        raise GridError(
            f"the grid starts at sigma={s[0]:.6g}; the model was trained up to {path.sigma_max:.6g}"
            ", so start there or below"
        )
    return s


def explicit_grid(sigmas: Sequence[float] | Tensor) -> Tensor:
    """Sigmas as float64 (N + 1,). Raises GridError unless they are finite, >= 0 and strictly decreasing."""
    try:
        if isinstance(sigmas, np.ndarray):
            sigmas = np.ascontiguousarray(sigmas)  # torch takes no reversed views
        if torch.as_tensor(sigmas).is_complex():
            raise TypeError
        s = torch.as_tensor(sigmas, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError):
        raise GridError(f"grid={sigmas!r} is not a sequence of sigmas") from None
    if s.ndim != 1 or len(s) < 2:
        raise GridError(f"a grid of shape {tuple(s.shape)} is not a sequence of at least 2 sigmas")
    wrong = ~torch.isfinite(s) | (s < 0)
    wrong[1:] |= s[1:] >= s[:-1]
    if wrong.any():
        n = int(wrong.nonzero()[0])
        raise GridError(
            f"sigma={s[n]:.6g} at place {n} of the grid breaks the rule that sigmas are finite, >= 0 and strictly"
            " decreasing; use fewer steps or another grid"
        )
    return s


def _range(path: Path, name: str) -> tuple[float, float]:
    if not 0 < path.sigma_min < path.sigma_max < math.inf:
        raise GridError(
            f"grid={name!r} needs a finite range of sigma, and this model's is [{path.sigma_min:g}, {path.sigma_max:g}]"
            "; give its path sigma_min and sigma_max, or an explicit grid"
        )
    return path.sigma_min, path.sigma_max


def _discrete(path: Path, name: str) -> int:
    if not path.num_timesteps:
        raise GridError(f"grid={name!r} needs a schedule of discrete timesteps; use 'uniform' or 'log_snr'")
    return path.num_timesteps - path.zero_terminal_snr  # the last of those is at sigma = inf, where no grid begins


def _timesteps(path: Path, n: int, name: str) -> int:
    steps = _discrete(path, name)
    if n > steps:
        raise GridError(f"grid={name!r} cannot place {n} steps on {steps} timesteps; use nfe <= {steps}")
    return steps
