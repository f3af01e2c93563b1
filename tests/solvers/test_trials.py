"""What is known of samples on their way: some of them, and one thing or another for each."""

import numpy as np
import pytest
import torch

from ddim_ode.solvers.trials import Course, State, choose
from tests.helpers.tensors import normal


def state() -> State:
    counts = np.array([1, 2, 3])
    course = Course(counts - 1, np.linspace(0, 1, 12).reshape(3, 4), counts, counts, counts / 10)
    return State(course, *(normal(3, *axes, 2, seed=len(axes)) for axes in ((), (1,), (4,))))


@pytest.mark.parametrize("chosen", [[True, False, True], [False, True, False], [False, False, False]])
def test_those_that_are_chosen(chosen):
    whole, rows = state(), np.flatnonzero(chosen)
    some = whole.take(np.array(chosen))
    for part, of in zip(some.course, whole.course, strict=True):
        assert np.array_equal(part, of[rows])
    for part, of in zip(some[1:], whole[1:], strict=True):
        assert torch.equal(part, of[torch.from_numpy(rows)])


def test_all_are_the_same_state():
    """Whose network goes on with the same labels."""
    whole = state()
    assert whole.take(np.ones(3, dtype=bool)) is whole


@pytest.mark.parametrize("mask", [[True, True], [False, False], [True, False]])
def test_each_gets_one_or_the_other(mask):
    yes, no = normal(2, 3, 4, seed=0), normal(2, 3, 4, seed=1)
    found = choose(np.array(mask), yes, no)
    for row, chosen in enumerate(mask):
        assert torch.equal(found[row], (yes if chosen else no)[row])
