"""What the metrics ask of their arguments, and the errors when they do not get it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import of_kind, whole
from ddim_ode.support.dtypes import FLOATS
from ddim_ode.support.resources import check_memory
from ddim_ode.support.seeds import mix
from ddim_ode.support.tables import is_readable

FEWER = "give fewer"

T = TypeVar("T")


class MetricError(DDIMError):
    """Something that cannot be measured; the message is one line: the value, the rule and the remedy."""


class TooFewError(MetricError):
    """A set of fewer samples than the metric is defined for."""


class Missing(dict[str, str]):
    """Names of what cannot be measured, each with the reason, one line."""

    def unless_too_few(self, names: Sequence[str], measure: Callable[[], T]) -> T | None:
        """What `measure` gives; None, and the reason under these names, where a set is too small for it."""
        try:
            return measure()
        except TooFewError as error:
            self.because(names, str(error))
            return None

    def because(self, names: Sequence[str], reason: str) -> None:
        """These are missing."""
        self.update(dict.fromkeys(names, reason))


def generator(seed: int, purpose: str) -> torch.Generator:
    """Random numbers on the CPU that depend on the seed and on what they are for."""
    return torch.Generator().manual_seed(mix(whole("seed", seed, MetricError, least=None), purpose))


def tensor(name: str, x: Tensor) -> Tensor:
    """x itself. Raises ArgumentError for what is no tensor, MetricError for one whose numbers cannot be read."""
    of_kind(name, x, Tensor, "a tensor")
    if not is_readable(x) or (x.is_floating_point() and x.dtype not in FLOATS):  # those of 8 bits can do little
        raise MetricError(f"{name} is a tensor whose numbers cannot be read; give a dense one of floats")
    return x


def finite_values(name: str, x: Tensor) -> Tensor:
    """x itself, or MetricError when a value is NaN or infinite."""
    if x.device.type == "cpu":  # an expanded tensor may be more than there is of it
        check_memory(8 * x.numel(), f"{name} of shape {tuple(x.shape)}", FEWER, MetricError)
    if not x.isfinite().all():
        raise MetricError(f"{name} holds values that are not finite; look at the samples it came from")
    return x


def features(name: str, x: Tensor, least: int) -> Tensor:
    """Features (N, D) as float64 on the CPU. Raises TooFewError for N < least, MetricError for what is no features."""
    tensor(name, x)
    if x.is_complex() or x.dtype == torch.bool:
        raise MetricError(f"{name} is {x.dtype}, expected features (N, D) of real numbers")
    if x.ndim != 2 or x.shape[1] == 0 or len(x) < least:
        kind = TooFewError if x.ndim == 2 and x.shape[1] else MetricError
        raise kind(f"{name} has shape {tuple(x.shape)}, expected features (N, D) with N >= {least}")
    return finite_values(name, x.detach().to("cpu", torch.float64))


def whole_or_none(count: object) -> None:
    """Raise TypeError for a count in a file that is neither a whole number nor null."""
    if count is not None and type(count) is not int:
        raise TypeError(f"{count!r:.40} is no count")


def same_width(a: int, b: int) -> None:
    """MetricError unless two sets have equally many features."""
    if a != b:
        raise MetricError(f"a has {a} features and b has {b}; use one feature extractor for both")


def image_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches of float images (B, C, H, W), clipped to [-1, 1] and mapped to [0, 1], float64 on the CPU."""
    tensor("x", x)
    tensor("y", y)
    if x.shape != y.shape:
        raise MetricError(f"x has shape {tuple(x.shape)} and y has {tuple(y.shape)}; pairs need one shape")
    if x.ndim != 4 or x.numel() == 0:
        raise MetricError(f"x has shape {tuple(x.shape)}, expected images (B, C, H, W), at least one pixel each")
    for name, z in (("x", x), ("y", y)):
        if not z.is_floating_point():
            raise MetricError(f"{name} is {z.dtype}, expected floats in [-1, 1]; use data.to_float for bytes")
    unit_x, unit_y = (
        (finite_values(n, z.detach().to("cpu", torch.float64)).clamp(-1, 1) + 1) / 2 for n, z in (("x", x), ("y", y))
    )
    return unit_x, unit_y


def choose(x: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows at random; all of them stay in their order."""
    return x if count == len(x) else x[choice_of(len(x), count, seed)]


def choice_of(total: int, count: int, seed: int) -> Tensor:
    """The numbers of `count` of so many rows, int64, without any twice."""
    return torch.randperm(total, generator=generator(seed, "choice"))[:count]
