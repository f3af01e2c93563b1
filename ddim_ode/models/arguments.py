"""What a model is made of and asked, checked: by its kind at every call, and by its values where they lie at hand."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.paths import Path, f64
from ddim_ode.support.checks import ArgumentError, described, flag, of_kind, shown, whole
from ddim_ode.support.dtypes import FLOATS
from ddim_ode.support.scalars import index
from ddim_ode.support.tables import entries, is_readable

EXAMPLE = "such as (3, 32, 32)"
MOST_AXES = 64  # of a tensor


# --- of a model


def check_net(net: object, name: str = "net") -> None:
    """Raise ArgumentError for what cannot be called as a network, or a class that must be made an instance."""
    if isinstance(net, type):
        raise ArgumentError(f"{name} is {described(net)}; give an instance of it")
    if not callable(net):
        raise ArgumentError(f"{name} is {described(net)}; give a module or a function")


def rounding(quantize: object, path: Path, error: type[DDIMError]) -> bool | Literal["int"]:
    """How times are rounded: not at all, to floats, or to ints. Raises `error` on a path without whole times."""
    if isinstance(quantize, str) and quantize == "int":
        found: bool | Literal["int"] = "int"
    else:
        found = flag("quantize", quantize, "True, False or 'int'")
    if found and not path.num_timesteps:
        raise error(f"quantize={found!r} rounds to whole timesteps, which {type(path).__name__} has not; leave it out")
    return found


def sample_shape(shape: Any, error: type[DDIMError]) -> tuple[int, ...]:
    """The shape of one sample as a tuple of ints >= 1. () of scalars. Raises `error` for other numbers."""
    sizes = entries(shape, MOST_AXES)
    if sizes is None or len(sizes) > MOST_AXES:
        raise ArgumentError(f"shape is {described(shape)}; give the shape of one sample, {EXAMPLE}")
    return tuple(whole(f"shape={shown(shape)}: axis {n}", size, error) for n, size in enumerate(sizes))


def precision(dtype: Any, error: type[DDIMError], name: str = "dtype") -> torch.dtype:
    """A precision that a network can compute in. Raises `error` for whole numbers, complex ones and others."""
    of_kind(name, dtype, torch.dtype, "one such as torch.float32")
    if dtype not in FLOATS:
        known = ", ".join(str(known) for known in FLOATS)
        raise error(f"{name}={dtype} is no precision of a network; give one of {known}")
    assert isinstance(dtype, torch.dtype)
    return dtype


def place(device: Any, error: type[DDIMError], name: str = "device") -> torch.device:
    """A device by its name, or by the number of an accelerator. Raises `error` for one that torch does not know."""
    number = index(device)
    if number is None:
        of_kind(name, device, (str, torch.device), "one such as 'cpu' or 'cuda:0'")
    try:
        return torch.device(device if number is None else number)
    except (RuntimeError, ValueError):  # of a number, also where there is no accelerator
        raise error(f"{name}={shown(device)} is no device; give one such as 'cpu' or 'cuda:0'") from None


def present(device: torch.device, error: type[DDIMError]) -> torch.device:
    """The device, if tensors can be made there now."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as reason:  # as torch says it of what it lacks
        raise error(f"device={str(device)!r} cannot be used here: {f'{reason}'.partition(chr(10))[0]}") from None
    return device


# --- of a call


def check_state(xbar: object, shape: tuple[int, ...], error: type[DDIMError]) -> None:
    """Raise `error` unless xbar is a tensor of floats (B, *shape)."""
    if not isinstance(xbar, Tensor):
        raise ArgumentError(f"xbar is {described(xbar)}; give a tensor {_batch(shape)}")
    if not is_readable(xbar):
        raise error(f"xbar is a tensor whose numbers cannot be read; give a dense one {_batch(shape)}")
    if xbar.shape[1:] != shape or not xbar.ndim:
        raise error(f"xbar has shape {tuple(xbar.shape)}; this model needs {_batch(shape)}")
    if xbar.dtype not in FLOATS:
        raise error(f"xbar is {xbar.dtype}; give floats, float32 or float64")


def noise_level(sigma: Any, count: int, error: type[DDIMError], *, zero: bool = False) -> Tensor:
    """sigma as float64, (), (1,) or (count,). Raises `error` unless every one is finite and > 0, or 0 if it may be."""
    try:
        strange = isinstance(sigma, bool | complex) or (isinstance(sigma, Tensor) and sigma.is_complex())
        levels = None if strange else f64(sigma)
    except (TypeError, ValueError, RuntimeError):
        levels = None
    if levels is None:
        raise ArgumentError(f"sigma is {described(sigma)}; give a number > 0, or one for each sample")
    if levels.ndim == 0:
        low = high = levels.item()
    elif levels.ndim == 1 and len(levels) in (1, count):
        if not count:
            return levels
        least, most = torch.aminmax(levels.detach())
        low, high = least.item(), most.item()
    else:
        raise error(f"sigma has shape {tuple(levels.shape)}; give one number, or one for each sample ({count})")
    if not (0 < low <= high < math.inf or (zero and 0 <= low <= high < math.inf)):
        found = high if low > 0 else low
        raise error(f"sigma={found:g} is no noise level; give finite numbers > 0")
    return levels


def label_numbers(labels: Any, count: int, num_classes: int, error: type[DDIMError]) -> Tensor:
    """Labels (count,) as int64, whatever they are. Raises `error` for other shapes and for what is no whole number."""
    if not num_classes:
        raise error("this model has no classes; leave labels out")
    known = _labels(num_classes)
    if not isinstance(labels, Tensor):
        raise ArgumentError(f"labels are {described(labels)}; give a tensor ({count},) of {known}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise error(f"labels are {labels.dtype}; they must be {known}")
    if labels.shape != (count,):
        raise error(f"labels have shape {tuple(labels.shape)}; give one for each sample ({count})")
    return labels.long()


def class_labels(labels: Any, count: int, num_classes: int, error: type[DDIMError]) -> Tensor:
    """Labels (count,) as int64. Raises `error` for others, and on the CPU for those outside 0..num_classes."""
    found = label_numbers(labels, count, num_classes, error)
    if count and found.device.type == "cpu":  # elsewhere to look would mean to wait
        least, most = (int(end) for end in torch.aminmax(found))
        if least < 0 or most > num_classes:
            raise error(f"label {least if least < 0 else most} does not exist; labels are {_labels(num_classes)}")
    return found


def _labels(num_classes: int) -> str:
    return f"whole numbers in 0..{num_classes}, where {num_classes} is the null class"


def _batch(shape: tuple[int, ...]) -> str:
    return f"(B, {', '.join(map(str, shape))})"
