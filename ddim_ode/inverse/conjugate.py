"""Conjugate gradients (Hestenes & Stiefel 1952) for many symmetric positive semidefinite systems at once."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST = 200  # iterations


def inner(x: Tensor, y: Tensor) -> Tensor:
    """<x_i, y_i> of each sample, shaped to multiply it: (B, 1, ...)."""
    return (x * y).flatten(1).sum(1).reshape(-1, *[1] * (x.ndim - 1))


def conjugate_gradients(product: Callable[[Tensor], Tensor], y: Tensor, most: int = MOST) -> Tensor:
    """v (B, ...) with product(v) = y, from v = 0; of a singular system the shortest such v, if there is one.

    A sample stands still once its residual is rounding, or cannot shrink: its answer does not depend on the others.
    """
    v, left, direction = torch.zeros_like(y), y, y
    size = inner(left, left)
    least = size * (8 * torch.finfo(y.dtype).eps) ** 2
    for _ in range(most):
        going = size > least
        if not going.any():
            break
        image = product(direction)
        curvature = inner(direction, image)
        going = going & (curvature > 0)
        step = torch.where(going, size / torch.where(going, curvature, 1), 0)
        v, left = v + step * direction, left - step * image
        smaller = inner(left, left)
        direction = torch.where(going, left + smaller / torch.where(going, size, 1) * direction, direction)
        size = torch.where(going, smaller, 0)
    return v
