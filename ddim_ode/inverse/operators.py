"""Linear measurements of images (B, C, H, W): known pixels, low resolution, blur, grey.

Each solves its own normal equations in closed form: A A' is diagonal, in pixels or in frequencies.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddim_ode.inverse.measurements import LinearOperator, MeasurementError, Ridge
from ddim_ode.support.checks import ArgumentError, described, of_kind, real, shown, whole
from ddim_ode.support.seeds import generator
from ddim_ode.support.tables import is_readable

LOST = 1e-3  # of a frequency's amplitude; what a blur leaves less of is gone
WIDEST = 100.0  # standard deviation of a blur, in pixels


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """The pixels that are known; y is the image with 0 at the others.

    Args:
        known: bool, (H, W), (1, H, W) for all channels or (C, H, W): True where a pixel was measured.

    Raises:
        MeasurementError: another shape, no known pixel; ArgumentError: no tensor of bools.
    """

    known: Tensor

    def __post_init__(self) -> None:
        of_kind("known", self.known, Tensor, "a tensor of bools (H, W) or (C, H, W), True where a pixel is known")
        if self.known.dtype != torch.bool or not is_readable(self.known):
            raise ArgumentError(f"known is {described(self.known)} of {self.known.dtype}; give bools")
        if self.known.ndim not in (2, 3):
            raise MeasurementError(f"a mask of shape {tuple(self.known.shape)} is no image's; give (H, W) or (C, H, W)")
        if not self.known.any():
            raise MeasurementError("the mask knows no pixel, so that nothing is measured; give one that knows some")
        with torch.inference_mode(False):  # autograd keeps it, and refuses a tensor made in that mode
            known = self.known.clone()
        object.__setattr__(self, "known", known if known.ndim == 3 else known[None])

    @classmethod
    def half(cls, size: tuple[int, int]) -> "Mask":
        """The left half is known, of images of that (height, width)."""
        height, width = _size(size)
        return cls((torch.arange(width) < width // 2).expand(height, width))

    @classmethod
    def box(cls, size: tuple[int, int], side: int) -> "Mask":
        """All but a square in the middle is known. Raises MeasurementError for a side that does not fit."""
        height, width = _size(size)
        side = whole("side", side, MeasurementError)
        if side >= max(height, width) or side > min(height, width):
            raise MeasurementError(
                f"a hole of {side} x {side} leaves nothing of {height} x {width} pixels; give a smaller one"
            )
        known = torch.ones(height, width, dtype=torch.bool)
        top, left = (height - side) // 2, (width - side) // 2
        known[top : top + side, left : left + side] = False
        return cls(known)

    @classmethod
    def random(cls, size: tuple[int, int], missing: float, seed: int = 0) -> "Mask":
        """A share of the pixels, chosen by a seed, is missing; exactly that share, rounded to pixels."""
        height, width = _size(size)
        share = real("missing", missing, MeasurementError, 0, 1, "0.7")
        order = torch.randperm(height * width, generator=generator(whole("seed", seed, MeasurementError, least=0)))
        return cls((order >= round(share * height * width)).reshape(height, width))

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        _image("a mask", shape)
        if self.known.shape[1:] != shape[1:] or self.known.shape[0] not in (1, shape[0]):
            raise MeasurementError(f"a mask of {_pixels(self.known.shape)} does not fit images of {_pixels(shape)}")
        return shape

    def count(self, shape: tuple[int, ...]) -> int:
        return int(self.known.expand(self.measured(shape)).sum())

    def apply(self, x: Tensor) -> Tensor:
        return torch.where(self.known.to(x.device), x, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.apply(y)

    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        return self.apply(y) / (1 + ridge)

    def seen(self, y: Tensor) -> Tensor:
        return self.apply(y)

    def agree(self, x: Tensor, y: Tensor) -> Tensor:
        """x with the known pixels of y, bit for bit."""
        return torch.where(self.known.to(x.device), y, x)


@dataclass(frozen=True)
class BoxDownsampling(LinearOperator):
    """Means over squares of factor x factor pixels, (B, C, H / factor, W / factor)."""

    factor: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", whole("factor", self.factor, MeasurementError))

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = _image("downsampling", shape)
        if height % self.factor or width % self.factor:
            raise MeasurementError(
                f"images of {_pixels(shape)} cannot be divided into squares of factor={self.factor}; give a divisor"
            )
        return channels, height // self.factor, width // self.factor

    def apply(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        spread = y / self.factor**2
        return spread.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)

    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        return y / (1 / self.factor**2 + ridge)


@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """Convolution with a kernel, periodic at the borders, so that frequencies are its singular vectors.

    A frequency of which less than a thousandth is left is taken as lost altogether: dividing by such a number would
    return rounding.

    Args:
        kernel: (K, L), floats; its middle, [K // 2, L // 2], stays in place. Often it sums to 1.
    """

    kernel: Tensor

    def __post_init__(self) -> None:
        of_kind("kernel", self.kernel, Tensor, "a tensor of floats (K, L), such as torch.full((3, 3), 1 / 9)")
        readable = is_readable(self.kernel) and self.kernel.is_floating_point() and self.kernel.ndim == 2
        if not readable or not torch.isfinite(self.kernel).all() or not self.kernel.any():
            raise MeasurementError(f"kernel is {described(self.kernel)}; give finite floats (K, L), not all of them 0")
        object.__setattr__(self, "kernel", self.kernel.detach().double().cpu())

    @classmethod
    def gaussian(cls, std: float) -> "Blur":
        """A Gaussian of that standard deviation in pixels, cut at four of them."""
        std = real("std", std, MeasurementError, 0.1, WIDEST, "1.5")
        reach = math.ceil(4 * std)
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / std) ** 2)
        return cls(torch.outer(line, line) / line.sum() ** 2)

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        _image("blur", shape)
        return shape

    def apply(self, x: Tensor) -> Tensor:
        return self._filtered(x, lambda gain: gain)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filtered(y, torch.conj)

    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        def inverse(gain: Tensor) -> Tensor:
            power = gain.abs().square() + (ridge.double() if isinstance(ridge, Tensor) else ridge)
            return torch.where(power > 0, 1 / torch.where(power > 0, power, 1), 0)

        return self._filtered(y, inverse)

    def _filtered(self, x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """x with every frequency multiplied by a function of the blur's gain there, in float64 on the way."""
        size = (x.shape[-2], x.shape[-1])
        return torch.fft.irfft2(torch.fft.rfft2(x.double()) * of(self._gains(size).to(x.device)), s=size).to(x.dtype)

    def _gains(self, size: tuple[int, int]) -> Tensor:
        """The kernel's discrete Fourier transform on images of a size, wrapped around where it is larger than they."""
        (height, width), (rows, columns) = size, self.kernel.shape
        down = (torch.arange(rows) - rows // 2) % height
        right = (torch.arange(columns) - columns // 2) % width
        spread = torch.zeros(height, width, dtype=torch.float64)
        spread.index_put_((down[:, None], right[None]), self.kernel, accumulate=True)
        gains = torch.fft.rfft2(spread)
        return torch.where(gains.abs() > LOST * gains.abs().max(), gains, 0)


@dataclass(frozen=True)
class Grey(LinearOperator):
    """The mean of the channels, (B, 1, H, W)."""

    channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", whole("channels", self.channels, MeasurementError, least=2))

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = _image("grey", shape)
        if channels != self.channels:
            raise MeasurementError(f"images of {channels} channels have no grey of {self.channels}; leave it out")
        return 1, height, width

    def apply(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y / self.channels).expand(-1, self.channels, -1, -1)

    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        return y / (1 / self.channels + ridge)


def _image(what: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise MeasurementError(f"{what} is of images (C, H, W), and these data have shape {shape}; use Differentiable")
    return shape[0], shape[1], shape[2]


def _size(size: Sequence[int]) -> tuple[int, int]:
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ArgumentError(f"size is {shown(size)}; give (height, width), such as (28, 28)")
    return whole("size", size[0], MeasurementError), whole("size", size[1], MeasurementError)


def _pixels(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
