"""The weights of exponential integrators: an interpolated slope, integrated along a path.

Over one interval y(u1) - y(u0) = int f du. Take f for the polynomial in some variable w(sigma) through its values
f_j at the nodes w_j. With r = (w - w0) / (w1 - w0), which runs from 0 to 1,

    int f du = sum_j W_j f_j,        sum_j W_j r_j^k = m_k = int r^k du,        k = 0, 1, ..., nodes - 1.

The path says which slope is interpolated, the basis says in which w; together they give the classics:

    path    basis      exact moments
    noise   sigma      linear multistep in sigma: rhoAB-DEIS, LMS, variable-step iPNDM
    noise   timestep   tAB-DEIS (Zhang & Chen 2023)
    noise   log_snr    DPM-Solver (Lu et al. 2022, Eq. 3.4), the DEIS of diffusers
    data    log_snr    DPM-Solver++ (Lu et al. 2022b, arXiv 2211.01095, Eq. 8), UniPC (Zhao et al. 2023)

Where a published method simplifies this integral, it replaces a moment (or the nodes): that is a `Rule`.
Sigmas are float64 tensors; nothing here sees an image, so weights are made once for a grid.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddim_ode.paths import Path, f64


class Basis(NamedTuple):
    """The variable w of the polynomial, as a function of sigma and the model's path, and back."""

    w: Callable[[Path, Tensor], Tensor]
    sigma: Callable[[Path, Tensor], Tensor]


BASES: Mapping[str, Basis] = {
    "sigma": Basis(lambda path, sigma: sigma, lambda path, w: w),
    "log_snr": Basis(lambda path, sigma: -torch.log(sigma), lambda path, w: torch.exp(-w)),
    "angle": Basis(lambda path, sigma: torch.atan(sigma), lambda path, w: torch.tan(w)),
    "timestep": Basis(lambda path, sigma: path.u(sigma), lambda path, w: path.sigma(w)),
}


class Interval(NamedTuple):
    """What weights are made of: nodes r (k,), the interval's start first; moments m (k,); h du/dlambda at its end."""

    r: Tensor
    m: Tensor
    end: Tensor


Rule = Callable[[Interval], tuple[Tensor, Tensor]]

PANEL = 0.5  # in log sigma: ten Gauss points integrate e^(4x) over it to the last digit
POINTS, MASSES = (f64(a) for a in np.polynomial.legendre.leggauss(10))


def exact(interval: Interval) -> tuple[Tensor, Tensor]:
    """The integral of the polynomial."""
    return interval.r, interval.m


def half(interval: Interval) -> tuple[Tensor, Tensor]:
    """m_1 = m_0 / 2 with two nodes: "midpoint" in DPM-Solver(++), B(h) = e^h - 1 ("bh2") in UniPC."""
    r, m = interval.r, interval.m
    return r, torch.stack([m[0], m[0] / 2]) if len(r) == 2 else m


def bh1(interval: Interval) -> tuple[Tensor, Tensor]:
    """m_1 = (h du/dlambda at the end) / 2 with two nodes, h being the step in lambda = log SNR: B(h) = h in UniPC."""
    r, m = interval.r, interval.m
    return r, torch.stack([m[0], interval.end / 2]) if len(r) == 2 else m


def half_quadratic(interval: Interval) -> tuple[Tensor, Tensor]:
    """`half`, and of three nodes m_2 / 2: DPM-Solver++(3M) as its authors' code and diffusers compute it.

    Without the lost factor 2 it would be of order 3 in the bulk; with it, 2.
    """
    r, m = half(interval)
    return r, torch.stack([m[0], m[1], m[2] / 2]) if len(r) == 3 else m


def equal_steps(interval: Interval) -> tuple[Tensor, Tensor]:
    """Adams-Bashforth's constants, as if the steps were equal in u: iPNDM and PLMS (PNDM: Liu et al. 2022)."""
    behind = interval.r <= 0
    r = torch.where(behind, 1.0 - torch.cumsum(behind, 0), 1.0).double()
    return r, interval.m[0] / torch.arange(1, len(r) + 1, dtype=torch.float64)


def weights(
    path: Path, model_path: Path, basis: str, rule: Rule, sigma0: float, sigma1: float, nodes: Sequence[float]
) -> list[float]:
    """W_j of the slopes at `nodes` (sigmas, sigma0 first) in y(sigma1) - y(sigma0).

    path: where y lives. model_path: whose timestep the basis "timestep" means.
    """
    u0, u1 = path.u(f64([sigma0, sigma1]))
    if sigma0 == sigma1:
        return [0.0] * len(nodes)
    w = BASES[basis].w
    *at, w1 = w(model_path, f64([*nodes, sigma1]))
    # Beyond its table a timestep stands still, and no polynomial in it can tell the nodes apart.
    if len(nodes) == 1 or len({*map(float, at), float(w1)}) < len({*nodes, sigma1}):
        return [float(u1 - u0), *[0.0] * (len(nodes) - 1)]
    w0 = at[0]
    kinks = torch.cat([path.kinks, model_path.kinks]) if basis == "timestep" else path.kinks
    sigma, du = _quadrature(path, sigma0, sigma1, kinks)
    r = (w(model_path, sigma) - w0) / (w1 - w0)
    moments = [u1 - u0, *((r**k * du).sum() for k in range(1, len(nodes)))]
    end = math.log(sigma1 / sigma0) * _slope(path, f64(sigma1)) if sigma1 else f64(0)
    return _lagrange(*rule(Interval((torch.stack(at) - w0) / (w1 - w0), torch.stack(moments), end)))


def ddim(path: Path, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """What the state and the slope at time u count in one DDIM step to xbar at sigma."""
    (a, b), (da, db) = path.coefficients(u), path.slopes(u)
    return (db - sigma * da) / (a * db - da * b), (sigma * a - b) / (a * db - da * b)


def _quadrature(path: Path, sigma0: float, sigma1: float, kinks: Tensor) -> tuple[Tensor, Tensor]:
    """Points sigma and weights du of Gauss-Legendre rules on panels in log sigma that have no kink inside."""
    x0, x1 = math.log(sigma0), math.log(max(sigma1, sigma0 * 1e-16))  # what lies between there and 0 is rounding
    edges = torch.linspace(x0, x1, 2 + int(abs(x1 - x0) / PANEL), dtype=torch.float64)
    inside = kinks[(kinks > min(sigma0, sigma1)) & (kinks < max(sigma0, sigma1))]
    if len(inside):
        edges = torch.cat([edges, inside.log()]).sort(descending=bool(x0 > x1)).values
    middle, radius = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    sigma = torch.exp(middle[:, None] + radius[:, None] * POINTS).flatten()
    return sigma, (radius[:, None] * MASSES).flatten() * _slope(path, sigma)


def _slope(path: Path, sigma: Tensor) -> Tensor:
    """du / d log sigma: from sigma = b / a, d sigma = (b' a - a' b) / a^2 du."""
    u = path.u(sigma)
    (a, b), (da, db) = path.coefficients(u), path.slopes(u)
    return a * b / (db * a - da * b)


def _lagrange(r: Tensor, m: Tensor) -> list[float]:
    """W with sum_j W_j r_j^k = m_k: the moments of the Lagrange polynomials of the nodes."""
    nodes, moments = r.tolist(), m.tolist()
    weights = []
    for own in nodes:
        polynomial = [1.0]  # prod (r - other) / (own - other), constant term first
        for other in nodes:
            if other != own:
                shifted, scaled = [0.0, *polynomial], [other * c for c in polynomial] + [0.0]
                polynomial = [(a - b) / (own - other) for a, b in zip(shifted, scaled, strict=True)]
        weights.append(sum(c * k for c, k in zip(polynomial, moments, strict=True)))
    return weights
