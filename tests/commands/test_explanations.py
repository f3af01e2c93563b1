"""What is said of errors that are not ours: no memory, a system that refuses, advice that must not be followed."""

import errno
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ddim_ode.commands.shared.explanations import explain
from ddim_ode.errors import DDIMError


def allocate_by_torch() -> None:
    torch.empty(2**46, dtype=torch.uint8)


def allocate_by_numpy() -> None:
    np.empty(2**60, dtype=np.uint8)


@pytest.mark.parametrize(("call", "asked"), [(allocate_by_torch, "70,369 GB"), (allocate_by_numpy, "1.00 EiB")])
def test_no_memory_is_one_line(call: Callable[[], None], asked: str) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        call()
    line = explain(caught.value)
    assert line is not None
    assert line.startswith(f"out of memory: {asked} were asked for; use a smaller")
    assert "--batch-size" in line
    assert "-n" in line
    assert "alloc_cpu" not in line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the output cannot be written: No space left on device"),
        (OSError(errno.ENODEV, "No such device"), "the system refuses to go on: No such device"),
        (OSError(errno.EACCES, "Permission denied", "a.png"), "a.png: Permission denied"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid cross-device link"),
        (OSError("words of a library"), "words of a library"),
        (OSError(), "OSError"),
        (MemoryError(), "out of memory; use a smaller"),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), "out of memory; use a smaller"),
        (pickle.UnpicklingError("Weights only load failed. Run\nwith weights_only=False"), "which could run code"),
        (DDIMError("our words"), "our words"),
    ],
)
def test_an_error_says_what_is_known(error: Exception, words: str) -> None:
    line = explain(error)
    assert line is not None
    assert words in line
    assert "weights_only" not in line


@pytest.mark.parametrize("error", [RecursionError("deep"), ValueError("a bug"), RuntimeError("shapes"), KeyError("a")])
def test_a_bug_stays_one(error: Exception) -> None:
    assert explain(error) is None


def test_a_compiler_that_fails_names_what_asked_for_it() -> None:
    """A command of --fast, or a training by its config: torch does not say which."""
    from torch._dynamo.exc import BackendCompilerFailed

    line = explain(BackendCompilerFailed(print, RuntimeError("no kernel"), None))
    assert line is not None
    assert line.endswith("leave --fast out, or set compile: false in a config")
