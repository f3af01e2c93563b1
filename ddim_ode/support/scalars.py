"""Numbers as users give them: of Python, NumPy or torch."""

import math
import operator
from typing import Any, SupportsFloat, SupportsIndex

from ddim_ode.errors import DDIMError, one_line


def number(value: object) -> float:
    """A real number as a float; anything else (True, "ten", None, [1.5]) as NaN, which no range holds."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsFloat) or _in_rows(value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # a tensor on no device, or a huge int
        return math.nan


def index(value: object) -> int | None:
    """A Python, NumPy or torch integer as an int; anything else (1.5, True, "ten", nan, [1]) as None."""
    if type(value) is int:  # to ask for a protocol takes far longer
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or _in_rows(value):
        return None
    try:
        return operator.index(value)
    except TypeError:  # every tensor has __index__, and it fails unless the tensor is an integer
        return None


def _in_rows(value: object) -> bool:
    """Whether it is an array or a tensor with an axis, which is no number even where it holds one."""
    axes = getattr(value, "ndim", 0)
    return isinstance(axes, int) and axes > 0


def sigma_range(what: str, given: Any, error: type[DDIMError]) -> tuple[float, float]:
    """(low, high) as floats, of which an end that is None is open; `what` begins the message of the error.

    Raises `error` unless they are two numbers with 0 <= low < high.
    """
    try:
        low, high = given
    except (TypeError, ValueError, RuntimeError):
        low = high = math.nan
    low, high = number(0.0 if low is None else low), number(math.inf if high is None else high)
    if math.isnan(low) or math.isnan(high):
        raise error(f"{what}{_words(given)} is no range; give (low, high) in sigma")
    if not 0 <= low < high:
        raise error(f"{what}{low:g}:{high:g} is empty; give 0 <= low < high")
    return low, high


def _words(given: object) -> str:
    try:
        return one_line(repr(given), 80)
    except Exception:  # of an object that cannot even say what it is
        return f"a {type(given).__name__}"
