"""The two equations that turn what a network says into an image and a noise.

At x = a x0 + b eps a network outputs p x0 + q eps, with (p, q) fixed by what it predicts. Solved for both parts:

    data  = (q x - b out) / (a q - b p)            noise = (a out - p x) / (a q - b p)
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.paths import Path, f64
from ddim_ode.support.remembering import remembering
from ddim_ode.support.waiting import sent

Coefficients = tuple[Tensor, Tensor]
Predicts = Callable[[Tensor, Tensor], Coefficients]
Number = Tensor | float

#: what the network predicts -> (p, q) as a function of the path's (a, b)
PREDICTS: Mapping[str, Predicts] = {
    "noise": lambda a, b: (torch.zeros_like(a), torch.ones_like(a)),
    "data": lambda a, b: (torch.ones_like(a), torch.zeros_like(a)),
    "velocity": lambda a, b: (-b, a),  # v = a eps - b x0: Salimans & Ho 2022, App. D
    "flow": lambda a, b: (-torch.ones_like(a), torch.ones_like(a)),  # eps - x0: Liu et al. 2023
    "score": lambda a, b: (torch.zeros_like(a), -1 / b),  # grad log p = -eps / b: Song et al. 2021, Eq. 7
}

AT_ZERO = ("noise", "velocity", "flow")  # that leave both parts to be told at sigma = 0


class Equations(NamedTuple):
    """x = scale xbar, of which data = data_x x - data_out out and noise = noise_out out - noise_x x."""

    time: Number  # that the network is told
    scale: Number
    data_x: Number
    data_out: Number
    noise_out: Number
    noise_x: Number


def time_at(path: Path, sigma: Tensor, quantize: bool) -> Tensor:
    """The time on the path, float64, that a network is told at sigma: within its range, rounded if `quantize`."""
    u = path.u(sigma.clamp(path.sigma_min, path.sigma_max))
    return u.round() if quantize else u


def difference(of_x: Number, x: Tensor, of_y: Number, y: Tensor) -> Tensor:
    """of_x x - of_y y, a new tensor: in one operation where the network says the one part itself."""
    if isinstance(of_y, float) and of_y == 0:
        return of_x * x
    if isinstance(of_x, float) and of_x == 0:
        return -of_y * y
    return of_x * x - of_y * y


def equations(path: Path, predicts: str, quantize: bool, sigma: Tensor, like: Tensor) -> Equations:
    """Those of one sigma, in numbers, or of one a sample (B,), in tensors that fit `like` (B, ...), its time apart."""
    if not sigma.ndim:
        return _at(path, PREDICTS[predicts], quantize, float(sigma))
    time, *rest = _solved(path, PREDICTS[predicts], quantize, sigma)
    each = sent(torch.stack(rest), like.device, like.dtype)  # in one copy
    return Equations(time, *each.reshape(len(rest), -1, *[1] * (like.ndim - 1)))


def _solved(path: Path, predicts: Predicts, quantize: bool, sigma: Tensor) -> tuple[Tensor, ...]:
    """The values of `Equations` at sigma, of any shape, in float64."""
    a = path.scale(sigma)
    b = a * sigma
    p, q = predicts(a, b)
    det = a * q - b * p
    return time_at(path, sigma, quantize), a, q / det, b / det, a / det, p / det


@remembering(4096)
def _at(path: Path, predicts: Predicts, quantize: bool, sigma: float) -> Equations:
    """Those at one sigma, for which every batch of a run asks again."""
    return Equations(*(value.item() for value in _solved(path, predicts, quantize, f64(sigma))))
