"""Tensors of noise and of numbers, and what is done to them."""

import torch
from torch import Tensor


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def f64(x: object) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def rms(x: Tensor) -> Tensor:
    """Of each sample, (B,)."""
    return x.double().flatten(1).square().mean(1).sqrt()


def whitened(count: int, width: int, seed: int) -> Tensor:
    """Normal points whose sample mean is 0 and sample covariance the identity, both exactly."""
    x = normal(count, width, seed=seed)
    return torch.linalg.qr(x - x.mean(0)).Q * (count - 1) ** 0.5


def turn(width: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(normal(width, width, seed=width)).Q
