"""What several test files assert."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


def one_line(error: type[Exception], call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message that a call must fail with, on one line."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, whatever they are made of."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
