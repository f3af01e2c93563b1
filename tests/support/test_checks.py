"""Arguments of another kind are named, and say what they are in words."""

import numpy as np
import pytest
import torch

from ddim_ode.support.checks import ArgumentError, described, flag
from tests.helpers.assertions import one_line


@pytest.mark.parametrize("kind", [bool, np.bool_])
@pytest.mark.parametrize("value", [True, False])
def test_a_flag_is_a_bool_of_either_library(kind, value):
    assert flag("that", kind(value)) is value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "the int 1"),
        ("yes", "the str 'yes'"),
        (None, "None"),
        (np.int64(1), "the int64 1"),
        (np.array([True]), "a ndarray of shape (1,)"),
        (torch.tensor(True), "the Tensor True"),
        (bool, "the class bool"),
    ],
)
def test_what_is_no_flag(value, words):
    assert one_line(ArgumentError, flag, "that", value) == f"that is {words}; give True or False"


class Scalars:
    """A model of scalars, for instance: it has a shape, and is no number."""

    shape = ()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.float64(1.5), "the float64 1.5"),
        (np.str_("x"), "the str_ 'x'"),
        (torch.tensor(3), "the Tensor 3"),
        (torch.tensor(0.5, requires_grad=True), "the Tensor 0.5"),
        (np.array(2.0), "the ndarray 2.0"),
        (torch.empty((), device="meta"), "a Tensor"),
        (Scalars(), "a Scalars"),
        (torch.zeros(2, 3), "a Tensor of shape (2, 3)"),
        ([1, 2], "a list of 2"),
    ],
)
def test_a_value_says_what_it_is(value, words):
    assert described(value) == words
