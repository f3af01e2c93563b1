"""Questions that are answered together: what holds, what does not, and whose error is told."""

import math

import pytest
import torch

from ddim_ode.support.waiting import PATIENCE, UnsteadyError, at_once, below, fetched, finite, sent, without_waiting
from tests.helpers.pretending import pretended

NAN, INF = math.nan, math.inf


class WhereError(Exception):
    """What did not hold, told by who asked."""


@pytest.fixture
def mode():
    with pretended() as mode:
        yield mode


def on_gpu(*numbers, **options):
    return torch.tensor(numbers, **options).to("lazy")


def ask(value):
    if not below(on_gpu(value)[0], 1.0):
        raise WhereError(value)


def asking(*values):
    """A run that asks for each, and returns how many there were."""

    def work():
        for value in values:
            ask(value)
        return len(values)

    return work


NUMBERS = [([], True), ([1.0, -2.0], True), ([3e38, 3e38], True), ([1.0, NAN], False), ([INF, -INF], False)]


@pytest.mark.parametrize(("numbers", "expected"), NUMBERS)
def test_finite(numbers, expected, mode):
    assert finite(torch.tensor(numbers)) == expected
    assert without_waiting(lambda: finite(torch.tensor(numbers)), list) == expected  # of a CPU at once
    with at_once():
        assert finite(on_gpu(*numbers)) == expected

    def work():
        return finite(on_gpu(*numbers)) or "did not hold"

    if expected:
        assert without_waiting(work, list) is True
    else:
        with pytest.raises(UnsteadyError):
            without_waiting(work, list)


@pytest.mark.parametrize(("value", "expected"), [(2.0, True), (-2.0, True), (3.0, False), (NAN, False), (INF, False)])
def test_below(value, expected):
    assert below(torch.tensor(value), 3.0) == expected


def test_a_run_is_made_again_where_something_did_not_hold(mode):
    assert without_waiting(asking(0.0, 0.5), asking(NAN)) == 2
    assert mode.waits.count("_to_copy to the CPU") == 1
    with pytest.raises(WhereError, match=r"\(2.0\)|2.0"):
        without_waiting(asking(0.0, 2.0), asking(0.0, 2.0))


def test_what_holds_the_second_time_is_told(mode):
    with pytest.raises(UnsteadyError, match="in two ways"):
        without_waiting(asking(NAN), asking(0.0))


def test_a_long_run_ends_soon_after_what_did_not_hold(mode):
    calls = []

    def work():
        for n in range(10 * PATIENCE):
            calls.append(n)
            ask(2.0 if n == 3 else 0.0)

    with pytest.raises(UnsteadyError):
        without_waiting(work, list)
    assert len(calls) == PATIENCE


def test_who_catches_what_did_not_hold_does_not_make_it_hold(mode):
    def work():
        for n in range(3 * PATIENCE):
            try:
                ask(2.0 if n == 3 else 0.0)
            except Exception:
                continue

    with pytest.raises(UnsteadyError):
        without_waiting(work, list)


def test_fetched_brings_numbers_and_answers(mode):
    x = torch.tensor([[1.5, 2.5]])

    def work(value):
        ask(value)
        found = fetched(x.to("lazy"))
        assert found.dtype == torch.float64
        assert torch.equal(found, x.double())
        return "brought"

    assert without_waiting(lambda: work(0.0), list) == "brought"
    with pytest.raises(UnsteadyError):
        without_waiting(lambda: work(NAN), list)
    assert torch.equal(fetched(x), x.double())


def test_the_error_of_a_run_is_told_unless_something_did_not_hold(mode):
    def work(value):
        ask(value)
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        without_waiting(lambda: work(0.0), list)
    with pytest.raises(WhereError):
        without_waiting(lambda: work(NAN), asking(NAN))


def test_within_another_run_the_questions_are_its_own(mode):
    def outer():
        with pytest.raises(WhereError):
            without_waiting(asking(2.0), asking(2.0))  # made again at once, and not noted for the outer one
        return asking(0.0)()

    assert without_waiting(outer, list) == 1


def test_who_asks_at_once_is_answered_at_once(mode):
    def outer():
        with at_once(), pytest.raises(WhereError):
            ask(2.0)
        return "went on"

    assert without_waiting(outer, list) == "went on"


def test_sent(mode):
    there = sent(torch.tensor([1.0, 2.0]), torch.device("lazy"), torch.float64)
    assert mode.waits == []
    assert there.dtype == torch.float64
    assert torch.equal(there.to("cpu"), torch.tensor([1.0, 2.0], dtype=torch.float64))
