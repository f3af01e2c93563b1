"""Questions that are answered together: what holds, what does not, and whose error is told."""

import math

import pytest
import torch

from ddim_ode.support.waiting import PATIENCE, below, fetched, finite, without_waiting

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], True), ([1.0, -2.0], True), ([3e38, 3e38], True), ([1.0, NAN], False), ([INF, -INF], False)],
)
def test_finite(numbers, expected):
    x = torch.tensor(numbers)
    assert finite(x) == expected
    # Together with others: what is not finite is asked again, and what only seemed so does not matter.
    assert without_waiting(lambda: finite(x), lambda: finite(x)) == expected


@pytest.mark.parametrize(("value", "expected"), [(2.0, True), (-2.0, True), (3.0, False), (NAN, False), (INF, False)])
def test_below(value, expected):
    assert below(torch.tensor(value), 3.0) == expected


def asking(value, calls):
    """A run that asks three times and returns how often it was made."""

    def work():
        calls.append(value)
        for x in (0.5, value, 0.25):
            below(torch.tensor(x), 1.0)
        return len(calls)

    return work


def test_a_run_is_made_again_only_where_something_did_not_hold():
    for value, runs in ((0.0, 1), (2.0, 2)):
        work = asking(value, [])
        assert without_waiting(work, work) == runs


def test_a_long_run_ends_soon_after_what_did_not_hold():
    calls = []

    def work():
        for n in range(10 * PATIENCE):
            calls.append(n)
            below(torch.tensor(2.0 if n == 3 else 0.0), 1.0)
        return "to the end"

    assert without_waiting(work, lambda: "again") == "again"
    assert len(calls) == PATIENCE


def test_fetched_brings_numbers_and_answers():
    x = torch.tensor([[1.5, 2.5]], dtype=torch.float32)

    def work(value):
        below(torch.tensor(value, dtype=torch.float64), 1.0)
        found = fetched(x)
        assert found.dtype == torch.float64
        assert torch.equal(found, x.double())
        return "brought"

    assert without_waiting(lambda: work(0.0), lambda: "again") == "brought"
    assert without_waiting(lambda: work(NAN), lambda: "again") == "again"
    assert torch.equal(fetched(x), x.double())


def test_the_error_of_a_run_is_told_unless_something_did_not_hold():
    def work(value):
        below(torch.tensor(value), 1.0)
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        without_waiting(lambda: work(0.0), lambda: "again")
    assert without_waiting(lambda: work(NAN), lambda: "again") == "again"


def test_within_another_run_the_questions_are_its_own():
    def inner():
        return below(torch.tensor(2.0), 1.0)

    def outer():
        return without_waiting(inner, lambda: "inner again"), below(torch.tensor(0.0), 1.0)

    assert without_waiting(outer, lambda: "outer again") == ("inner again", True)
