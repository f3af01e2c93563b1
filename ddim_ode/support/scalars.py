"""Numbers as users give them: of Python, NumPy or torch."""

import math
import operator
from typing import SupportsFloat, SupportsIndex


def number(value: object) -> float:
    """A real number as a float; anything else (True, "ten", None) as NaN, which no range holds."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # an array or a tensor of many, or on no device
        return math.nan


def index(value: object) -> int | None:
    """A Python, NumPy or torch integer as an int; anything else (1.5, True, "ten", nan) as None."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # every tensor has __index__, and it fails unless the tensor is one integer
        return None
