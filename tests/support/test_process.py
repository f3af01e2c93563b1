"""What a computation needs of the process it gives back."""

import os

import pytest
import torch

from ddim_ode.support.process import WORKSPACE, computing


@pytest.mark.parametrize("before", [None, ":16:8"])
def test_everything_is_as_it_was(monkeypatch, before):
    monkeypatch.delenv(WORKSPACE, raising=False)
    if before:
        monkeypatch.setenv(WORKSPACE, before)
    had = torch.get_num_threads()

    def fail() -> None:
        with computing(had + 1, deterministic=True):
            assert torch.get_num_threads() == had + 1
            assert torch.are_deterministic_algorithms_enabled()
            assert os.environ[WORKSPACE] == (before or ":4096:8")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == had
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get(WORKSPACE) == before


def test_what_was_deterministic_stays_so():
    torch.use_deterministic_algorithms(True)
    try:
        with computing():
            assert torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_changed_where_nothing_is_asked_for(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    had = torch.get_num_threads()
    with computing():
        assert torch.get_num_threads() == had
        assert WORKSPACE not in os.environ
