"""Polynomials through the last slopes of samples that each have nodes of their own, for all orders at once.

The k-th polynomial through the first q nodes is a product over the others, j < q, of (u - u_j) / (u_k - u_j): the
running product over j passes through all orders q. These are few numbers, with which NumPy is faster than torch.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

POINTS, MASSES = np.polynomial.legendre.leggauss(4)  # exact to degree 7


def lagrange(nodes: Floats, u: Floats) -> Floats:
    """Values (B, P, K + 1, K) at times u (B, P) of the Lagrange polynomials of each sample's nodes (B, K).

    Entry [b, p, q, k] is of the k-th through the first q nodes, 0 where k >= q.
    """
    return _lagrange(samples_last(nodes), samples_last(u)).transpose(3, 2, 0, 1)


def integrals(nodes: Floats, u0: Floats, u1: Floats) -> Floats:
    """(B, I, K + 1, K): of those polynomials from u0 to u1, (B, I) each."""
    half = samples_last(u1 - u0) / 2
    u = samples_last(u0)[:, None] + half[:, None] * (1 + POINTS)[:, None]
    values = _lagrange(samples_last(nodes), u.reshape(-1, len(nodes)))
    sums = (values.reshape(*values.shape[:2], *u.shape) * MASSES[:, None]).sum(3)
    return (half * sums).transpose(3, 2, 0, 1)


def samples_last(x: Floats) -> Floats:
    """x (B, ...) as (..., B), side by side in memory."""
    return np.ascontiguousarray(x.T)


def combine(weights: Tensor, slopes: Tensor) -> Tensor:
    """Weighted sums of slopes: (B, Q, K) and (B, K, *shape) give (B, Q, *shape)."""
    return torch.bmm(weights, slopes.reshape(*slopes.shape[:2], -1)).reshape(*weights.shape[:2], *slopes.shape[2:])


def _lagrange(nodes: Floats, u: Floats) -> Floats:
    """Values (K + 1, K, P, B), from nodes (K, B) and u (P, B): long rows, for which loops over the samples are fast."""
    count = len(nodes)
    below, own = _masks(count)
    apart = nodes[None] - nodes[:, None]
    apart[apart == 0] = 1.0  # of a node and itself, and among places that no slope has taken yet
    factors = (u - nodes[:, None])[:, None] / apart[:, :, None]
    factors[own, own] = 1.0
    values = np.zeros((count + 1, *factors.shape[1:]))
    np.multiply.accumulate(factors, axis=0, out=values[1:])
    values[1:] *= below
    return values


@lru_cache(maxsize=64)
def _masks(count: int) -> tuple[Floats, NDArray[np.int64]]:
    """1 where the k-th node is among the first 1, 2, ..., count, else 0, (count, count, 1, 1); and their numbers."""
    return np.tri(count)[..., None, None], np.arange(count)
