"""The command line in several processes: what ends one of them ends all, and is said once."""

import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.launching import side_by_side

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a program begins without
from ddim_ode.__main__ import main
from ddim_ode.shards import likelihoods

def measured(*arguments):
    raise TypeError("a bug")

if os.environ["RANK"] == os.environ.get("BROKEN"):
    likelihoods.measured = measured
sys.exit(main())
"""


@pytest.fixture
def command(model: Path, tmp_path: Path) -> list[object]:
    """One that takes long."""
    x = torch.rand(160, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_file({"x": x}, tmp_path / "images.safetensors")
    how = ("--method", "heun3", "--nfe", 3000, "--batch-size", 32)
    return ["-c", PROGRAM, "likelihood", model, tmp_path / "images.safetensors", "--keep", tmp_path / "kept", *how]


def test_a_bug_in_one_ends_the_others(command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "1")
    both = side_by_side(command)
    told = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [2, 1], told
    assert told[0] == ("", "")
    assert told[1][1].endswith("TypeError: a bug\n")


@pytest.mark.parametrize("ranks", [[1], [0, 1]])
def test_an_interrupt_ends_all_and_is_said_once(command: list[object], tmp_path: Path, ranks: list[int]) -> None:
    both = side_by_side(command)
    while both[0].poll() is None and not (tmp_path / "kept" / "job.json").exists():
        time.sleep(0.02)
    time.sleep(0.5)  # so that both are at work
    for rank in ranks:
        both[rank].send_signal(signal.SIGINT)
    told = [process.communicate(timeout=60) for process in both]
    assert [both[rank].returncode for rank in ranks] == [130] * len(ranks), told
    assert both[0].returncode in (2, 130)
    assert "".join(err for _, err in told) == "interrupted\n"
