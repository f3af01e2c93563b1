"""Decreasing grids of sigma: where a fixed-grid solver evaluates.

A named grid is a rule (path, n) -> n strictly decreasing sigmas from (about) sigma_max to sigma_min. It is
made once, in float64. With `final="denoise"` a 0 is appended: the last interval is one evaluation that
returns the predicted image, as the last step of DDIM does. With `final="sigma_min"` the grid stops there.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.paths import Path, f64
from ddim_ode.support.checks import choice, of_kind, real, shown, whole
from ddim_ode.support.logistic import Logistic
from ddim_ode.support.remembering import remembering
from ddim_ode.support.tables import in_order

Final = Literal["denoise", "sigma_min"]
Grid = str | Sequence[float] | Tensor
Rule = Callable[[Path, int], Tensor]
FINALS = ("denoise", "sigma_min")
A_PATH = "a path, such as DiscreteVP.linear()"

MOST_INTERVALS = 100_000  # of a grid: more sigmas than that float32 hardly tells apart
ROUNDED = 1e-4  # of sigma_max, by which float32 and the tables that people publish begin above it
EXACT = 1e-9  # likewise, by which float64 does
LOGISTIC = Logistic()


class GridWarning(UserWarning):
    """A grid whose steps are where nothing happens."""


class GridError(DDIMError):
    """A grid that is unknown, does not decrease, or does not fit the model."""


def uniform(path: Path, n: int) -> Tensor:
    """Times linspace(last, first, n) on the model's path, both ends included."""
    low, high = _range(path, n, "uniform")
    return path.sigma(torch.linspace(float(path.u(f64(high))), float(path.u(f64(low))), int(n), dtype=torch.float64))


def leading(path: Path, n: int) -> Tensor:
    """Timesteps k (T // n), k = n-1..0: `skip_type="uniform"` of the DDIM code, "leading" in diffusers.

    It never reaches the last timestep, and with n = 1 it starts (and ends) at the first.
    """
    steps, n = _timesteps(path, n, "leading"), int(n)
    return path.sigma(f64(np.arange(n)[::-1] * (steps // n)))


def trailing(path: Path, n: int) -> Tensor:
    """Times linspace(last, first, n + 1)[:-1]: `uniform`, with the smallest sigma left for the end.

    On discrete timesteps they are round(k T / n) - 1, k = n..1 (Lin et al. 2023, Table 2).
    """
    n = _check(path, n)
    if path.num_timesteps:
        return path.sigma(f64(np.round(np.arange(n, 0, -1) * _timesteps(path, n, "trailing") / n) - 1))
    _range(path, n, "trailing")
    return uniform(path, n + 1)[:-1]


def quadratic(path: Path, n: int) -> Tensor:
    """Timesteps linspace(sqrt(0.8 T), 0, n)^2, not rounded (DDIM, App. D.2): for noisy schedules such as linear."""
    steps = _discrete(path, n, "quadratic")
    return path.sigma(f64(np.linspace(math.sqrt(0.8 * steps), 0, n) ** 2))


def karras(path: Path, n: int, rho: float = 7.0) -> Tensor:
    """sigma^(1/rho) spaced evenly (Karras et al. 2022, Eq. 5)."""
    low, high = _range(path, n, "karras", rho)
    rho = float(rho)
    return f64(np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho)


def log_snr(path: Path, n: int) -> Tensor:
    """log sigma spaced evenly (Lu et al. 2022, DPM-Solver)."""
    low, high = _range(path, n, "log_snr")
    return f64(np.geomspace(high, low, n))


def angle(path: Path, n: int) -> Tensor:
    """atan sigma spaced evenly."""
    low, high = _range(path, n, "angle")
    return f64(np.tan(np.linspace(math.atan(high), math.atan(low), n)))


def trailing_angle(path: Path, n: int, rho: float = 1.2) -> Tensor:
    """(atan sigma)^(1/rho) spaced evenly, the smallest sigma left for the end: few steps, any schedule."""
    low, high = (math.atan(sigma) for sigma in _range(path, n, "trailing_angle", rho))
    rho = float(rho)
    u = np.linspace(high ** (1 / rho), low ** (1 / rho), n + 1)[:-1] ** rho
    return f64(np.tan(np.minimum(u, high)))


def near_image(path: Path, n: int, rho: float = 5.0) -> Tensor:
    """(sigma / (1 + sigma))^(1/rho) spaced evenly, dense near the image: for encoding."""
    low, high = (sigma / (1 + sigma) for sigma in _range(path, n, "near_image", rho))
    rho = float(rho)
    u = np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho
    sigmas = f64(u / (1 - u))
    sigmas[-1], sigmas[0] = path.sigma_min, path.sigma_max  # which 1 - u has rounded; of one sigma it is the first
    return sigmas


def logistic(path: Path, n: int, shape: Logistic = LOGISTIC) -> Tensor:
    """log sigma at the quantiles of a logistic distribution, small steps about 0.7, where images take shape: any path.

    shape: another distribution, which the name "logistic:centre:above:below:left" stands for as well.
    """
    low, high = _range(path, n, "logistic")
    if not isinstance(shape, Logistic) or not shape.possible:
        raise GridError(f"shape={shown(shape)} is no distribution; give Logistic(0.7, 2, 1.5, 0.4)")
    return shape.nodes(high, low, int(n))


GRIDS: Mapping[str, Rule] = {
    "uniform": uniform,
    "leading": leading,
    "trailing": trailing,
    "quadratic": quadratic,
    "karras": karras,
    "log_snr": log_snr,
    "angle": angle,
    "trailing_angle": trailing_angle,
    "near_image": near_image,
    "logistic": logistic,
}


def shape_of(grid: str, also: Iterable[str] = (), error: type[DDIMError] = GridError) -> Logistic | None:
    """The distribution that a name stands for, "logistic" or "logistic:0.7:2:1.5:0.4"; None for the other grids.

    also: names that are allowed beside those in `GRIDS`. Raises `error` for any other, with the closest.
    """
    if isinstance(grid, str) and grid.startswith("logistic"):
        if shape := LOGISTIC if grid == "logistic" else Logistic.named(grid):
            return shape
        raise error(
            f"grid={shown(grid)} is no distribution; give the sigma of its centre, the widths in log sigma above and"
            " below, and the steps left below the last, as in 'logistic:0.7:2:1.5:0.4'"
        )
    choice("grid", grid, (*GRIDS, *also), error)
    return None


def most_intervals(grid: str, path: Path, final: Final) -> float:
    """How many intervals the named grid can have; those that need whole timesteps run out of them."""
    shape_of(grid)
    choice("final", final, FINALS, GridError)
    of_kind("path", path, Path, A_PATH)
    if grid not in ("leading", "trailing") or not path.num_timesteps:
        return math.inf
    steps = _discrete(path, 1, grid)
    if final == "denoise":
        return steps
    return steps - 1 if grid == "leading" else steps * 2 // 3


def make_grid(grid: str, path: Path, intervals: int, final: Final) -> Tensor:
    """The named grid with that many intervals, at most 100,000: (intervals + 1,) float64 sigmas, strictly decreasing.

    Raises:
        GridError: an unknown name, or a grid that this path cannot have.
    """
    shape_of(grid)
    choice("final", final, FINALS, GridError)
    of_kind("path", path, Path, A_PATH)
    return _made(
        grid, GRIDS.get(grid), path, whole("intervals", intervals, GridError, most=MOST_INTERVALS), final
    ).clone()


@remembering(64)
def _made(grid: str, rule: Rule | None, path: Path, intervals: int, final: Final) -> Tensor:
    """`make_grid`, for which every run on the same model asks several times."""
    shape = shape_of(grid)
    rule = rule if rule and not shape else partial(logistic, shape=shape or LOGISTIC)
    if final == "denoise":
        sigmas = torch.cat([rule(path, intervals), torch.zeros(1, dtype=torch.float64)])
    elif shape:
        sigmas = logistic(path, intervals + 1, shape._replace(left=0))
    elif grid in ("leading", "trailing", "trailing_angle"):
        # These are rules for where intervals begin; the last one ends at sigma_min.
        offset = 1 if grid == "leading" else 0
        u = path.u(rule(path, intervals)) + offset
        sigmas = torch.cat([path.sigma(u), f64([path.sigma_min])])
    else:
        sigmas = rule(path, intervals + 1)
    return check_grid(sigmas, path)


def check_grid(sigmas: Sequence[float] | Tensor, path: Path) -> Tensor:
    """An explicit grid for a model, float64 (N + 1,); it may end below the model's sigma_min.

    One that begins above the model's sigma_max by no more than rounding, 1e-4 of it, as in float32 or in a published
    table, begins at sigma_max.

    Raises:
        GridError: it does not decrease strictly, or starts above the model's sigma_max.
    """
    of_kind("path", path, Path, A_PATH)
    s, most = explicit_grid(sigmas), path.sigma_max
    if s[0] > most * (1 + EXACT) and s[1] < most and s[0] <= most * (1 + ROUNDED):
        s[0] = most
    if s[0] > most * (1 + EXACT):
        first, last = _apart(float(s[0]), most)
        raise GridError(
            f"the grid starts at sigma={first}; the model was trained up to {last}, so start there or below"
        )
    return s


def explicit_grid(sigmas: Sequence[float] | Tensor) -> Tensor:
    """Sigmas as float64 (N + 1,), at most 100,001. Raises GridError unless they are finite, >= 0 and strictly
    decreasing.
    """
    try:
        if not in_order(sigmas):
            raise TypeError
        if isinstance(sigmas, range):
            sigmas = sigmas[: MOST_INTERVALS + 2]
        if isinstance(sigmas, np.ndarray):
            sigmas = np.ascontiguousarray(sigmas)  # torch takes no reversed views
        if isinstance(sigmas, Tensor) and (sigmas.layout != torch.strided or sigmas.is_nested):
            raise TypeError
        given = torch.as_tensor(sigmas)
        if given.is_complex() or given.dtype == torch.bool or given.is_quantized:
            raise TypeError
        if given.numel() > MOST_INTERVALS + 1:
            raise GridError(f"a grid of {len(given):,} sigmas is too long; give at most {MOST_INTERVALS + 1:,}")
        s = torch.as_tensor(sigmas, dtype=torch.float64).detach().cpu().clone()
    except GridError:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise GridError(f"grid={shown(sigmas)} is not a sequence of sigmas") from None
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


def _apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers that differ, with as many digits as it takes to see it, and at least six."""
    for digits in range(6, 17):
        if f"{a:.{digits}g}" != f"{b:.{digits}g}":
            return f"{a:.{digits}g}", f"{b:.{digits}g}"
    return repr(a), repr(b)


def _check(path: Path, n: int, rho: float = 1.0) -> int:
    """n as an int."""
    of_kind("path", path, Path, A_PATH)
    real("rho", rho, GridError, 0.1, 100, "7")
    return whole("n", n, GridError, most=MOST_INTERVALS + 2)  # both ends of the longest, and one that is left out


def _range(path: Path, n: int, name: str, rho: float = 1.0) -> tuple[float, float]:
    _check(path, n, rho)
    if not 0 < path.sigma_min < path.sigma_max < math.inf:
        raise GridError(
            f"grid={name!r} needs a finite range of sigma, and this model's is [{path.sigma_min:g}, {path.sigma_max:g}]"
            "; give its path sigma_min and sigma_max, or an explicit grid"
        )
    return path.sigma_min, path.sigma_max


def _discrete(path: Path, n: int, name: str) -> int:
    _check(path, n)
    if not path.num_timesteps:
        raise GridError(f"grid={name!r} needs a schedule of discrete timesteps; use 'uniform' or 'log_snr'")
    return path.num_timesteps - path.zero_terminal_snr  # the last of those is at sigma = inf, where no grid begins


def _timesteps(path: Path, n: int, name: str) -> int:
    steps = _discrete(path, n, name)
    if n > steps:
        raise GridError(f"grid={name!r} cannot place {n} steps on {steps} timesteps; use nfe <= {steps}")
    return steps
