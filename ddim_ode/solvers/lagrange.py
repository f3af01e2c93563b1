"""Polynomials through the last slopes of samples that each have nodes of their own."""

import numpy as np
import torch
from torch import Tensor

from ddim_ode.paths import f64

POINTS, MASSES = (f64(a) for a in np.polynomial.legendre.leggauss(4))  # exact to degree 7


def lagrange(nodes: Tensor, orders: Tensor, u: Tensor) -> Tensor:
    """Values (B, Q, K, P) at times u (B, P) of the Lagrange polynomials of each sample's first nodes.

    nodes (B, K); orders (B, Q) say how many of them count, in Q ways; the others get 0.
    """
    used = torch.arange(nodes.shape[1]) < orders[..., None]
    pairs = used[..., :, None] & used[..., None, :] & ~torch.eye(nodes.shape[1], dtype=torch.bool)
    apart = nodes[:, :, None] - nodes[:, None, :]
    factors = (u[:, None, None, :] - nodes[:, None, :, None]) / torch.where(apart == 0, 1.0, apart)[..., None]
    return used[..., None] * torch.where(pairs[..., None], factors[:, None], 1.0).prod(3)


def integrals(nodes: Tensor, orders: Tensor, u0: Tensor, u1: Tensor) -> Tensor:
    """(B, Q, K): of those polynomials from u0 to u1, (B,) each."""
    half = (u1 - u0) / 2
    u = u0[:, None] + half[:, None] * (1 + POINTS)
    return half[:, None, None] * (lagrange(nodes, orders, u) * MASSES).sum(3)


def combine(weights: Tensor, slopes: Tensor) -> Tensor:
    """Weighted sums of slopes: (B, Q, K) and (B, K, *shape) give (B, Q, *shape)."""
    return torch.einsum("bqk,bk...->bq...", weights.to(slopes), slopes)
