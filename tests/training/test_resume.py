"""A run that was stopped, killed or out of disk goes on to the same last bit, and nothing else goes on in its place."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.errors import DDIMError
from ddim_ode.support.files import OutputError
from ddim_ode.training.batches import TrainError
from ddim_ode.training.train import TrainingRun, train
from tests.helpers.assertions import one_line, same
from tests.helpers.files import temporary_files
from tests.helpers.training import (
    KINDS,
    NETWORK,
    STEPS,
    environment,
    folder_of,
    logged,
    settings,
    state,
    write_settings,
)

pytestmark = pytest.mark.usefixtures("pictures")


@pytest.mark.parametrize("stop", [4, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_equals_uninterrupted(kind, stop, whole, folders, tmp_path):
    config = settings(**KINDS[kind])
    train(config, tmp_path, folder_of(config, folders), stop_at=stop)
    assert state(tmp_path)["step"] == stop
    train(config, tmp_path, folder_of(config, folders))
    assert same(state(tmp_path), state(whole(kind)))
    for name in ("model.safetensors", "config.yaml"):
        assert (tmp_path / "model" / name).read_bytes() == (whole(kind) / "model" / name).read_bytes()


@pytest.mark.parametrize("stop", [4, 7])
def test_the_log_of_a_stopped_run_is_that_of_an_uninterrupted_one(stop, whole, folders, tmp_path):
    train(settings(), tmp_path, folders["images"], stop_at=stop)
    train(settings(), tmp_path, folders["images"])
    assert [row[0] for row in logged(whole("float32"))] == ["step", *map(str, range(2, STEPS + 1, 2))]
    assert logged(tmp_path) == logged(whole("float32"))


def test_a_log_may_have_fewer_rows_than_checkpoints(folders, tmp_path):
    config = settings(log_every=6)
    train(config, tmp_path / "whole", folders["images"])
    train(config, tmp_path / "stopped", folders["images"], stop_at=4)
    train(config, tmp_path / "stopped", folders["images"])
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from ddim_ode.support.validation import read_yaml
from ddim_ode.training import train
from ddim_ode.training.config import TrainConfig

where, config, out, folder = sys.argv[1:]
update, save, die = train.TrainingRun.update, torch.save, lambda: os.kill(os.getpid(), signal.SIGKILL)

def updating(self):
    if self.step == 7 and where == "between checkpoints":
        die()
    return update(self)

def saving(value, file):
    save(value, file)
    if value["step"] == 8 and where == "while one is written":
        file.truncate(file.tell() // 2)
        die()

train.TrainingRun.update, train.TrainingRun.picture, torch.save = updating, lambda self: None, saving
train.train(read_yaml(TrainConfig, Path(config)), Path(out), Path(folder))
"""


@pytest.mark.parametrize("where", ["between checkpoints", "while one is written"])
def test_a_killed_process_is_resumed_from_its_last_checkpoint(where, whole, folders, tmp_path):
    out, yaml_file = tmp_path / "run", write_settings(tmp_path / "a.yaml", settings())
    command = [sys.executable, "-c", KILLED, where, str(yaml_file), str(out), str(folders["images"])]
    killed = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert state(out)["step"] == 4
    train(settings(), out, folders["images"])
    assert same(state(out), state(whole("float32")))
    assert logged(out) == logged(whole("float32"))


def test_numbers_that_a_file_keeps_in_one_place_are_taken_apart(folders, tmp_path):
    for name in ("shared", "apart"):
        train(settings(), tmp_path / name, folders["images"], stop_at=4)
        kept = state(tmp_path / name)
        for moments in kept["optimizer"]["state"].values():
            zeros = torch.zeros(1).expand(moments["exp_avg"].shape)
            moments["exp_avg"] = zeros if name == "shared" else zeros.clone()
        kept["average"] = {k: torch.ones(1).expand(v.shape) for k, v in kept["average"].items()}
        if name == "apart":
            kept["average"] = {k: v.clone() for k, v in kept["average"].items()}
        torch.save(kept, tmp_path / name / "checkpoint.pt")
        train(settings(), tmp_path / name, folders["images"])
    assert same(state(tmp_path / "shared"), state(tmp_path / "apart"))


def test_a_finished_run_writes_what_is_missing(folders, tmp_path, monkeypatch):
    """A kill right after the last checkpoint: the model itself was never written."""

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(steps=3), tmp_path, folders["images"])
    model = train(settings(steps=3), tmp_path, folders["images"])
    assert ddim_ode.load(model).shape == (1, 8, 8)


def test_a_row_that_was_cut_short_is_dropped(whole, folders, tmp_path):
    train(settings(), tmp_path, folders["images"], stop_at=8)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("1")  # of "10,0.9..."
    train(settings(), tmp_path, folders["images"])
    assert logged(tmp_path) == logged(whole("float32"))


def test_a_full_disk_leaves_the_last_checkpoint(whole, folders, tmp_path, monkeypatch):
    train(settings(), tmp_path, folders["images"], stop_at=4)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(value: Any, file: BinaryIO) -> None:
        file.write(before[: len(before) // 2])
        patch.setattr(os, "fsync", no_space)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        text = one_line(OutputError, train, settings(), tmp_path, folders["images"])
    assert (
        text == f"{tmp_path / 'checkpoint.pt'} cannot be written: No space left on device; what was there is unchanged"
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert temporary_files(tmp_path) == []
    train(settings(), tmp_path, folders["images"])
    assert same(state(tmp_path), state(whole("float32")))


def test_more_steps_can_be_added_later(whole, folders, tmp_path):
    train(settings(steps=8), tmp_path, folders["images"])
    train(settings(), tmp_path, folders["images"])
    assert same(state(tmp_path), state(whole("float32")))
    assert logged(tmp_path) == logged(whole("float32"))


def test_settings_that_change_no_result_may_change(whole, folders, tmp_path):
    train(settings(save_every=5, log_every=2, sample_every=7), tmp_path, folders["images"], stop_at=6)
    train(settings(), tmp_path, folders["images"])
    ours, theirs = state(tmp_path), state(whole("float32"))
    assert all(same(ours[key], theirs[key]) for key in ("step", "net", "average", "optimizer"))


# What is refused


@pytest.mark.parametrize("name", ["log.csv", "samples.png", "checkpoint.pt", "model", "training.json", "notes.txt"])
def test_a_folder_of_strangers_is_not_written_into(name, folders, tmp_path):
    (tmp_path / name).write_text("precious")
    assert str(tmp_path) in one_line(OutputError, train, settings(), tmp_path, folders["images"])
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "precious"}


def test_two_runs_in_one_folder_are_refused(folders, tmp_path):
    first, second = (TrainingRun(settings(), tmp_path, folders["images"]) for _ in range(2))
    with first.opened():
        first.update()
        text = one_line(OutputError, second.opened().__enter__)
    assert text == f"another run is at work in {tmp_path}; wait for it, or choose another --out"
    with second.opened():
        second.update()


def test_a_bit_of_a_checkpoint_that_flips_is_found(folders, tmp_path):
    train(settings(), tmp_path, folders["images"], stop_at=2)
    file, found = tmp_path / "checkpoint.pt", 0
    written, whole = file.read_bytes(), state(tmp_path)
    run = TrainingRun(settings(), tmp_path, folders["images"])
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    for bit in torch.randint(8 * len(written), (60,), generator=torch.Generator().manual_seed(0)).tolist():
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        if same(read_or_none(file), whole):
            continue  # between the parts of the archive, where nothing is
        text = one_line(DDIMError, run.opened().__enter__)
        assert str(file) in text
        assert same(run.net.state_dict(), before)
        found += 1
    assert found > 50


def read_or_none(file: Path) -> Any:
    """What a checkpoint holds for our reader, None if it refuses it."""
    with suppress(CheckpointError):
        return checkpoints.load_torch(file)
    return None


@pytest.fixture(scope="module")
def started(folders, tmp_path_factory) -> Path:
    """A run that stands at step 2."""
    out = tmp_path_factory.mktemp("started")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "picture", lambda self: None)
        train(settings(), out, folders["images"], stop_at=2)
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 4},
        {"learning_rate": 2e-3, "seed": 1},
        {"precision": "bf16"},
        {"model": {"network": {**NETWORK, "channels": [64]}, "schedule": {"name": "cosine", "timesteps": 10}}},
        {"ema": 0.5, "label_dropout": 0.0, "weight_decay": 0.1},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_other_settings_are_refused_by_name(changes, folders, tmp_path, started):
    text = one_line(TrainError, train, settings(**changes), started, folders["images"])
    assert f"other settings of {', '.join(sorted(changes))}; use another --out" in text


def test_other_images_are_refused_on_resume(folders, tmp_path):
    train(settings(), tmp_path / "run", folders["images"], stop_at=1)
    other = Path(shutil.copytree(folders["images"], tmp_path / "other"))
    sorted(other.iterdir())[0].unlink()
    assert "holds a run on other images" in one_line(TrainError, train, settings(), tmp_path / "run", other)


def test_fewer_steps_than_were_done_are_refused(folders, tmp_path):
    train(settings(steps=4), tmp_path, folders["images"], stop_at=3)
    assert "is at step 3 already; use steps >= 3" in one_line(
        TrainError, train, settings(steps=2), tmp_path, folders["images"]
    )


def test_half_a_checkpoint_is_refused_in_one_line(folders, tmp_path):
    train(settings(), tmp_path, folders["images"], stop_at=2)
    file = tmp_path / "checkpoint.pt"
    os.truncate(file, file.stat().st_size // 2)
    text = one_line(CheckpointError, train, settings(), tmp_path, folders["images"])
    assert f"{file} is damaged" in text
