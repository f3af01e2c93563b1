"""Functions that are left in the middle and taken up again."""

import gc
import threading

import pytest
import torch

from ddim_ode.integrations.coroutines import Coroutine, ask


def test_questions_go_out_and_answers_in():
    def work() -> str:
        first = ask(1)
        return f"{first} {ask(2)}"

    way = Coroutine(work)
    assert (way.resume(), way.ended) == (1, False)
    assert (way.resume("a"), way.ended) == (2, False)
    assert (way.resume("b"), way.ended) == ("a b", True)


def test_one_may_ask_inside_of_another():
    def inner() -> int:
        return 1 + int(ask("inner"))

    def outer() -> list[int]:
        way = Coroutine(inner)
        question = way.resume()
        return [way.resume(ask(question)), int(ask("outer"))]

    way = Coroutine(outer)
    assert way.resume() == "inner"
    assert way.resume(4) == "outer"
    assert way.resume(7) == [5, 7]


def test_an_exception_comes_out_where_it_was_resumed():
    def work() -> None:
        ask(1)
        raise KeyError("mine")

    way = Coroutine(work)
    way.resume()
    with pytest.raises(KeyError, match="mine"):
        way.resume()
    assert way.ended


def test_whether_gradients_are_recorded_stays_where_it_was_set():
    inside = []

    def work() -> None:
        with torch.no_grad():
            ask(1)
            inside.append(torch.is_grad_enabled())

    way = Coroutine(work)
    way.resume()
    assert torch.is_grad_enabled()
    way.resume()
    assert inside == [False]
    assert torch.is_grad_enabled()


def test_one_that_is_dropped_leaves_the_mode_as_it_was():
    def work() -> None:
        with torch.no_grad():
            ask(1)

    with torch.no_grad():
        way = Coroutine(work)
        way.resume()
    assert torch.is_grad_enabled()
    del way  # whose context had begun where no gradients were recorded
    gc.collect()
    assert torch.is_grad_enabled()


def test_it_belongs_to_one_thread():
    found, way = [], Coroutine(lambda: ask(1))
    way.resume()
    worker = threading.Thread(target=lambda: found.append(way.here))
    worker.start()
    worker.join()
    assert (found, way.here) == ([False], True)


def test_one_that_is_left_ends_with_its_last_reference():
    ended, before = [], threading.active_count()

    def work() -> None:
        try:
            ask(1)
        finally:
            ended.append(True)

    way = Coroutine(work)
    way.resume()
    del way
    gc.collect()
    assert ended == [True]
    assert threading.active_count() == before
