"""The sliced Wasserstein distance of order 2: no network, only directions and sorting.

    SW^2 = E_theta W^2(theta.x, theta.y),    W^2(p, q) = int_0^1 (P^-1(t) - Q^-1(t))^2 dt

with theta uniform on the unit sphere: Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3. Of two sets of N and M
numbers the integral is exact: both quantile functions are constant between multiples of 1/N and of 1/M.
"""

import torch
from torch import Tensor

from ddim_ode.data import to_float
from ddim_ode.metrics import checks
from ddim_ode.support.checks import whole
from ddim_ode.support.resources import check_memory

PROJECTIONS = 256
CHUNK = 2**22  # values turned to float64 at once, 32 MiB


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Sliced Wasserstein distance of order 2 between images x (N, *shape) and y (M, *shape), flattened; >= 0.

    Floats, or bytes, which are mapped to [-1, 1]. The unit is that of a pixel: of N(m, s^2 I) and N(n, t^2 I) it is
    sqrt(|m - n|^2 / D + (s - t)^2). The directions, float64, are a function of the seed and of D alone.
    Biased upwards for few samples, so compare only what was made with the same N and M.
    Raises MetricError for shapes that differ, empty sets or values that are not finite.
    """
    if checks.tensor("x", x).shape[1:] != checks.tensor("y", y).shape[1:]:
        raise checks.MetricError(f"x has shape {tuple(x.shape)} and y has {tuple(y.shape)}; images need one shape")
    return between(projected("x", x, projections, seed), projected("y", y, projections, seed))


def projected(name: str, x: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> Tensor:
    """theta.x along every direction, (N, projections), each column sorted. Raises MetricError as above."""
    projections = whole("projections", projections, checks.MetricError)
    checks.tensor(name, x)
    if x.ndim < 2 or x.numel() == 0:
        raise checks.MetricError(f"{name} has shape {tuple(x.shape)}, expected at least one image, (N, *shape)")
    width = x[0].numel()
    need = 8 * projections * (width + 3 * len(x))  # directions; what is projected, joined and sorted
    check_memory(need, f"{projections:,} projections of {len(x):,} images", checks.FEWER, checks.MetricError)
    directions = torch.randn(width, projections, dtype=torch.float64, generator=checks.generator(seed, "directions"))
    directions /= directions.norm(dim=0)
    rows = x.detach().flatten(1).split(max(1, CHUNK // width))
    return torch.cat([_floats(name, chunk) @ directions for chunk in rows]).sort(dim=0).values


def between(p: Tensor, q: Tensor) -> float:
    """The distance, from projections (N, P) and (M, P) in sorted columns."""
    n, m = len(p), len(q)
    # Time in units of 1 / (n m), in which every jump of a quantile function is at a whole number
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
    gaps = p[starts // m] - q[starts // n]
    return float(((ends - starts).double() @ gaps.square()).div(n * m).mean().sqrt())


def _floats(name: str, x: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        x = to_float(x)
    elif not x.is_floating_point():
        raise checks.MetricError(f"{name} is {x.dtype}, expected torch.uint8 or floats in [-1, 1]")
    return checks.finite_values(name, x.to("cpu", torch.float64))
