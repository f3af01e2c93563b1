"""Tables and ranges of numbers as users give them: lists, arrays and tensors."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import described, shown
from ddim_ode.support.scalars import sigma_range

REAL = "iuf"  # NumPy's kinds of real numbers


def in_order(given: object) -> bool:
    """Whether its values may be numbers in an order: text, mappings and sets are no such thing."""
    return not isinstance(given, str | bytes | bytearray | Mapping | AbstractSet)


def entries(values: Any, most: int) -> list[Any] | None:
    """What a list holds, or of a longer one, which may have no end or say a false length, the first `most` + 1.

    None for what is no list: text, what has no order, an array without an axis or that cannot be read.
    """
    if not in_order(values):
        return None
    try:
        return values[: most + 1].tolist() if isinstance(values, Tensor) else list(islice(values, most + 1))
    except (TypeError, ValueError, IndexError, OverflowError, MemoryError, RuntimeError, NotImplementedError):
        return None


def is_readable(x: Tensor) -> bool:
    """Whether a tensor has its numbers one after the other, in memory."""
    return x.layout == torch.strided and not (x.is_meta or x.is_nested or x.is_quantized)


def table_of(name: str, given: Sequence[float] | np.ndarray | Tensor, most: int, error: type[DDIMError]) -> np.ndarray:
    """A sequence of at most `most` real numbers as a float64 array of its own. Raises `error` for anything else."""
    if isinstance(given, range):
        given = given[: most + 1]  # a long one is never made
    try:
        table = np.asarray(_plain(given) if isinstance(given, Tensor) else given)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        MemoryError,
        OverflowError,
    ):  # ragged, or a false length
        table = np.array(None)
    if table.dtype.kind not in REAL:
        raise error(f"{name} is {described(given)}; it must be a sequence of numbers")
    if table.ndim != 1:
        raise error(f"{name} has shape {table.shape}; it must be a sequence")
    if len(table) > most:
        raise error(f"{name} has {len(table):,} values; give at most {most:,}")
    return table.astype(np.float64)


def _plain(x: Tensor) -> np.ndarray:
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError
    return x.detach().cpu().double().numpy()


def range_of(what: str, given: Any, error: type[DDIMError]) -> tuple[float, float]:
    """(low, high) as `sigma_range` reads it, of values in an order. Raises `error` for anything else."""
    wrong = not in_order(given) or not isinstance(given, Iterable)
    if wrong or tuple(getattr(given, "shape", (2,))) != (2,):
        raise error(f"{what}{shown(given)} is no range; give (low, high) in sigma")
    return sigma_range(what, given, error)
