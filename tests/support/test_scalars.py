"""Numbers of Python, NumPy and torch; an array of one is a sequence, not a number."""

import math

import numpy as np
import pytest
import torch

from ddim_ode.support.scalars import index, number


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2), torch.tensor(2).byte()])
def test_an_integer_of_any_library(value):
    assert index(value) == 2
    assert type(index(value)) is int
    assert number(value) == 2.0


@pytest.mark.parametrize("value", [[2], (2,), np.array([2]), np.array([[2]]), torch.tensor([2]), torch.tensor([[2]])])
def test_a_sequence_of_one_is_no_number(value):
    assert index(value) is None
    assert math.isnan(number(value))


@pytest.mark.parametrize("value", [1.5, np.float32(1.5), np.array(1.5), torch.tensor(1.5), torch.tensor(1.5).half()])
def test_a_real_number_is_no_integer(value):
    assert index(value) is None
    assert number(value) == 1.5


@pytest.mark.parametrize("value", [None, True, "2", b"2", math.nan, object(), torch.empty((), device="meta"), int])
def test_what_is_no_number(value):
    assert index(value) is None
    assert math.isnan(number(value))
