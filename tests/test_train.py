"""Training is a function of its settings: not of when it was killed, nor of how many processes shared the work."""

import csv
import errno
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.config import TrainConfig, parse
from ddim_ode.data import DataError, to_float
from ddim_ode.train import Batches, Run, TrainError, learning_rate, load_data, train

BIN = Path(sys.executable).parent
NETWORK: dict[str, Any] = {"shape": [1, 8, 8], "channels": [32], "blocks": 1}
STEPS = 12


def settings(**changes: Any) -> TrainConfig:
    """A run of seconds: 24 images of 8 x 8 or, with data="fashion-mnist", 28 x 28 in 10 classes."""
    values: dict[str, Any] = {
        "model": {"network": NETWORK, "schedule": {"name": "cosine", "timesteps": 10}},
        "data": "set by data_folder",
        "steps": STEPS,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup": 2,
        "compile": False,
        "precision": "float32",
        "save_every": 4,
        "sample_every": 1000,
        "log_every": 2,
    }
    return parse(TrainConfig, {**values, **changes}, "settings")


KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"precision": "bf16", "cooldown": 5},
    "labels and dropout": {
        "model": {
            "network": {"shape": [1, 28, 28], "channels": [32], "blocks": 1, "patch": 4, "num_classes": 10}
            | {"dropout": 0.2},
            "predicts": "velocity",
        },
        "data": "fashion-mnist",
        "label_dropout": 0.3,
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One folder of each kind of data."""
    generator = torch.Generator().manual_seed(0)
    images = tmp_path_factory.mktemp("images")
    for i in range(24):
        pixels = torch.randint(256, (64,), generator=generator).tolist()
        Image.frombytes("L", (8, 8), bytes(pixels)).save(images / f"{i:02d}.png")
    fashion = tmp_path_factory.mktemp("fashion")
    pixels = torch.randint(256, (20 * 784,), generator=generator).tolist()
    header = b"".join(n.to_bytes(4, "big") for n in (20, 28, 28))
    (fashion / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + header + bytes(pixels))
    (fashion / "train-labels-idx1-ubyte").write_bytes(
        b"\0\0\x08\x01" + (20).to_bytes(4, "big") + bytes(k % 10 for k in range(20))
    )
    return {"images": images, "fashion-mnist": fashion}


def folder_of(config: TrainConfig, folders: dict[str, Path]) -> Path:
    return folders.get(config.data, folders["images"])


@pytest.fixture(autouse=True)
def pictures(request, monkeypatch) -> None:
    """The sheet of samples costs more than all else; only the tests marked so draw it."""
    if "draws" not in request.fixturenames:
        monkeypatch.setattr(Run, "picture", lambda self: None)


@pytest.fixture
def draws() -> None:
    """Ask for the sheet of samples."""


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run of each kind, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole")
            config = settings(**KINDS[kind])
            train(config, made[kind], folder_of(config, folders))
        return made[kind]

    return get


def state(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, whatever they are made of."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def logged(out: Path) -> list[list[str]]:
    """The rows of log.csv without the speed."""
    with (out / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def one_line(call: Callable[..., Any], *args: Any, error: type[Exception] = TrainError, **kwargs: Any) -> str:
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def temporary_files(out: Path) -> list[Path]:
    return [file for file in out.rglob("*") if ".tmp" in file.name]


# Killed and resumed


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
from ddim_ode import train
from ddim_ode.config import TrainConfig, read_yaml

where, config, out, folder = sys.argv[1:]
update, save, die = train.Run.update, torch.save, lambda: os.kill(os.getpid(), signal.SIGKILL)

def updating(self):
    if self.step == 7 and where == "between checkpoints":
        die()
    return update(self)

def saving(value, file):
    save(value, file)
    if value["step"] == 8 and where == "while one is written":
        os.truncate(file, os.path.getsize(file) // 2)
        die()

train.Run.update, train.Run.picture, torch.save = updating, lambda self: None, saving
train.train(read_yaml(TrainConfig, Path(config)), Path(out), Path(folder))
"""


def write_settings(file: Path, config: TrainConfig) -> Path:
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file


def environment() -> dict[str, str]:
    """As many threads as here: sums are in another order with another number."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONWARNINGS": "default"}


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


def test_more_steps_can_be_added_later(whole, folders, tmp_path):
    train(settings(steps=8), tmp_path, folders["images"])
    train(settings(), tmp_path, folders["images"])
    assert same(state(tmp_path), state(whole("float32")))
    assert logged(tmp_path) == logged(whole("float32"))


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
    text = one_line(train, settings(**changes), started, folders["images"])
    assert f"other settings of {', '.join(sorted(changes))}; use another --out" in text


@pytest.fixture(scope="module")
def started(folders, tmp_path_factory) -> Path:
    """A run that stands at step 2."""
    out = tmp_path_factory.mktemp("started")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "picture", lambda self: None)
        train(settings(), out, folders["images"], stop_at=2)
    return out


def test_settings_that_change_no_result_may_change(whole, folders, tmp_path):
    train(settings(save_every=5, log_every=2, sample_every=7), tmp_path, folders["images"], stop_at=6)
    train(settings(), tmp_path, folders["images"])
    ours, theirs = state(tmp_path), state(whole("float32"))
    assert all(same(ours[key], theirs[key]) for key in ("step", "net", "average", "optimizer"))


# Several processes

SHARED = """
import sys
from pathlib import Path
from accelerate import PartialState
from ddim_ode import train
from ddim_ode.config import TrainConfig, read_yaml

config, out, folder = map(Path, sys.argv[1:])
train.Run.picture = lambda self: None
train.train(read_yaml(TrainConfig, config), out, folder)
here = PartialState()
(out.parent / f"{here.process_index} of {here.num_processes}").touch()
"""
LAUNCHERS = {
    "torchrun": "torchrun --standalone --nproc_per_node 2",
    # `--cpu --num_processes 2` alone is one process to accelerate, unless mpirun starts it
    "accelerate": "accelerate launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
    " --mixed_precision no --dynamo_backend no",
}


@pytest.fixture(scope="module", params=["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)])
def shared(request, folders, tmp_path_factory) -> Path:
    """The folder of a run that two processes made."""
    root = tmp_path_factory.mktemp("shared")
    (root / "script.py").write_text(SHARED)
    config = write_settings(root / "a.yaml", settings())
    launcher, *options = LAUNCHERS[request.param].split()
    command = [BIN / launcher, *options, root / "script.py", config, root / "run", folders["images"]]
    extra = {"ACCELERATE_USE_CPU": "true"} if request.param == "accelerate" else {}
    ended = subprocess.run(
        [str(part) for part in command], env={**environment(), **extra}, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return root / "run"


def test_two_processes_share_one_run(shared):
    assert sorted(file.name for file in shared.parent.glob("* of *")) == ["0 of 2", "1 of 2"]
    assert sorted(file.name for file in shared.iterdir()) == ["checkpoint.pt", "log.csv", "model"]


def test_two_processes_end_where_one_does(shared, whole):
    ours, theirs = state(shared), state(whole("float32"))
    assert ours["step"] == theirs["step"]
    for part in ("net", "average"):
        a, b = (torch.cat([value.flatten() for value in run[part].values()]) for run in (ours, theirs))
        # Of all weights together: a bias before a normalisation has no gradient but rounding, which Adam scales up.
        assert (a - b).norm() < 1e-4 * b.norm()
    assert ddim_ode.load(shared / "model").shape == (1, 8, 8)


def test_two_processes_log_the_loss_of_the_whole_batch(shared, whole):
    ours, theirs = logged(shared), logged(whole("float32"))
    assert ours[0] == theirs[0]
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert [float(value) for value in a] == pytest.approx([float(value) for value in b], rel=1e-3)


# Batches


def batches(count: int = 10, **changes: Any) -> Batches:
    """`count` images of one grey level each, their number, with labels 0..2."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 8, 8)
    network = {**NETWORK, "num_classes": 3}
    config = settings(**{"model": {"network": network, "schedule": {"timesteps": 10}}, "batch_size": 4, **changes})
    return Batches(images, torch.arange(count) % 3, config)


def test_a_batch_is_a_function_of_seed_and_step():
    first = [batches()(step) for step in range(6)]
    torch.manual_seed(5)
    again = batches()
    for step in (5, 0, 3, 3):
        torch.rand(3)
        assert same(again(step), first[step])
    for step in range(5):
        assert not torch.equal(first[step][1], first[step + 1][1])


def test_every_seed_has_its_own_batches_and_its_own_dropout(folders, tmp_path):
    seeds = [0, 1, 2, 1000]
    drawn = [batches(seed=seed)(0) for seed in seeds]
    orders = [batches(count=100, seed=seed, batch_size=100).indices(0) for seed in seeds]
    for i in range(len(seeds)):
        for j in range(i):
            assert not torch.equal(drawn[i][1], drawn[j][1])
            assert not torch.equal(orders[i], orders[j])
    masks = []
    for seed in seeds[:2]:
        network = {**NETWORK, "dropout": 0.5}
        run = Run(settings(model={"network": network}, seed=seed), tmp_path / str(seed), folders["images"])
        run.net.register_forward_pre_hook(lambda *_: masks.append(torch.rand(4)))
        run.update()
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_every_epoch_is_a_permutation(size):
    ours = batches(count=10, batch_size=size)
    seen = torch.cat([ours.indices(step) for step in range(-(-30 // size))])[:30].reshape(3, 10)
    for epoch in seen:
        assert epoch.sort().values.tolist() == list(range(10))
    assert len({tuple(epoch.tolist()) for epoch in seen}) == 3


def test_a_batch_holds_the_images_it_names():
    ours = batches()
    for step in range(5):
        x0, eps, t, labels = ours(step)
        rows = ours.indices(step)
        assert torch.equal(x0, to_float(ours.images[rows]))
        assert x0.shape == eps.shape == (4, 1, 8, 8)
        kept = labels != 3
        assert torch.equal(labels[kept], (rows % 3)[kept])
        assert t.dtype == labels.dtype == torch.int64


def test_timesteps_and_noise_have_their_distributions():
    ours = batches(count=200, batch_size=200)
    drawn = [ours(step) for step in range(20)]
    counts = torch.cat([t for _, _, t, _ in drawn]).bincount(minlength=10)
    assert counts.shape == (10,)
    assert (counts - 400).abs().max() < 5 * math.sqrt(4000 * 0.1 * 0.9)
    eps = torch.cat([eps for _, eps, _, _ in drawn])
    assert abs(eps.mean().item()) < 5 / math.sqrt(eps.numel())
    assert eps.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_asked_share_of_labels_is_dropped(share):
    ours = batches(count=200, batch_size=200, label_dropout=share)
    dropped = torch.cat([ours(step)[3] == 3 for step in range(20)])
    assert abs(dropped.float().mean().item() - share) <= 5 * math.sqrt(share * (1 - share) / 4000)


# The schedule of the learning rate


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warmup": 0}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"warmup": 4}, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1]),
        ({"warmup": 0, "cooldown": 4}, [1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ({"warmup": 2, "cooldown": 2}, [1 / 2, 1, 1, 1, 1, 1, 1, 1 / 2]),
        ({"warmup": 8, "cooldown": 8}, [1 / 8, 2 / 8, 3 / 8, 4 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
    ],
)
def test_the_learning_rate_rises_stays_and_falls(changes, expected):
    config = settings(steps=8, learning_rate=3e-4, **changes)
    rates = [learning_rate(config, step) / 3e-4 for step in range(8)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_the_optimizer_follows_the_schedule_and_the_log_says_so(folders, tmp_path):
    config = settings(steps=4, warmup=4, log_every=1)
    run = Run(config, tmp_path / "run", folders["images"])
    for step in range(4):
        run.update()
        assert {group["lr"] for group in run.optimizer.param_groups} == {learning_rate(config, step)}
    train(config, tmp_path / "log", folders["images"])
    rates = [float(row[3]) for row in logged(tmp_path / "log")[1:]]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])


# Learning


@pytest.fixture
def one_image(tmp_path) -> Path:
    """Four copies of one picture: as easy as data can be."""
    (tmp_path / "data").mkdir()
    for i in range(4):
        Image.frombytes("L", (8, 8), bytes(range(0, 256, 4))).save(tmp_path / "data" / f"{i}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("predicts", ["noise", "data", "velocity"])
def test_the_loss_falls_on_easy_data(predicts, one_image, tmp_path):
    model = {"network": NETWORK, "schedule": {"name": "cosine", "timesteps": 10}, "predicts": predicts}
    config = settings(model=model, steps=60, batch_size=4, learning_rate=3e-3, log_every=10, save_every=100)
    train(config, tmp_path / "run", one_image)
    losses = [float(row[1]) for row in logged(tmp_path / "run")[1:]]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]


def test_the_first_loss_is_that_of_a_network_that_says_nothing(folders, tmp_path):
    """The last layer starts at zero: the loss is the mean square of the noise itself."""
    run = Run(settings(), tmp_path, folders["images"])
    _, eps, _, _ = run.batches(0)
    loss, _ = run.update()
    assert loss == pytest.approx(eps.square().mean().item(), rel=1e-6)


def test_the_average_trails_the_weights(folders, tmp_path):
    run = Run(settings(ema=0.5), tmp_path, folders["images"])
    expected = {name: value.clone() for name, value in run.net.state_dict().items()}
    for step in range(1, 5):
        run.update()
        decay = min(0.5, step / (step + 9))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in run.net.state_dict().items()}
    for name, value in expected.items():
        torch.testing.assert_close(run.average[name], value, rtol=1e-5, atol=1e-7)


# What goes wrong


def test_a_loss_that_is_not_finite_stops_the_run(folders, tmp_path):
    config = settings(learning_rate=1e30, warmup=0, save_every=100)
    text = one_line(train, config, tmp_path, folders["images"])
    assert re.search(r"the loss is (nan|inf) at step \d+.*; use a smaller learning_rate", text)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_other_images_are_refused_on_resume(folders, tmp_path):
    train(settings(), tmp_path / "run", folders["images"], stop_at=1)
    other = Path(shutil.copytree(folders["images"], tmp_path / "other"))
    sorted(other.iterdir())[0].unlink()
    assert "holds a run on other images" in one_line(train, settings(), tmp_path / "run", other)


def test_fewer_steps_than_were_done_are_refused(folders, tmp_path):
    train(settings(steps=4), tmp_path, folders["images"], stop_at=3)
    assert "is at step 3 already; use steps >= 3" in one_line(train, settings(steps=2), tmp_path, folders["images"])


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_are_lost(folders, tmp_path):
    run = Run(settings(), tmp_path, folders["images"])
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    objective = run.objective

    def infinite_slope(net: Any, *batch: torch.Tensor) -> torch.Tensor:
        weight = run.net.conv_out.bias
        return objective(net, *batch) + (weight - weight.detach()).abs().sqrt().sum()  # 0, of slope infinity

    run.objective = infinite_slope  # type: ignore[assignment]
    one_line(run.update)
    assert same(dict(run.net.state_dict()), before)


def test_half_a_checkpoint_is_refused_in_one_line(folders, tmp_path):
    train(settings(), tmp_path, folders["images"], stop_at=2)
    file = tmp_path / "checkpoint.pt"
    os.truncate(file, file.stat().st_size // 2)
    text = one_line(train, settings(), tmp_path, folders["images"], error=CheckpointError)
    assert f"{file} is damaged" in text


def test_a_full_disk_leaves_the_last_checkpoint(whole, folders, tmp_path, monkeypatch):
    train(settings(), tmp_path, folders["images"], stop_at=4)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(value: Any, file: Path) -> None:
        Path(file).write_bytes(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            train(settings(), tmp_path, folders["images"])
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert temporary_files(tmp_path) == []
    train(settings(), tmp_path, folders["images"])
    assert same(state(tmp_path), state(whole("float32")))


def test_missing_data_are_named(tmp_path):
    text = one_line(train, settings(data="no/such/folder"), tmp_path / "run", error=DataError)
    assert "no/such/folder: no such folder" in text
    text = one_line(train, settings(**KINDS["labels and dropout"]), tmp_path / "run", tmp_path, error=DataError)
    assert "train-images-idx3-ubyte[.gz]: not found" in text
    assert not (tmp_path / "run").exists()


def test_data_that_do_not_fit_are_refused(folders):
    classes = {"network": {**NETWORK, "num_classes": 2}}
    assert "num_classes=2: a folder of images has no labels" in one_line(
        load_data, settings(model=classes), folders["images"]
    )
    fashion = folders["fashion-mnist"]
    assert "num_classes=2: fashion-mnist has 10 classes" in one_line(
        load_data, settings(model=classes, data="fashion-mnist"), fashion
    )
    assert "fashion-mnist images are (1, 28, 28)" in one_line(load_data, settings(data="fashion-mnist"), fashion)


def test_a_batch_larger_than_the_data_is_refused(folders, tmp_path):
    text = one_line(train, settings(batch_size=25), tmp_path / "run", folders["images"])
    assert "batch_size=25 is larger than the data set; use at most 24" in text
    assert not (tmp_path / "run").exists()


# What is written


@pytest.mark.parametrize("kind", ["float32", "labels and dropout"])
def test_a_run_writes_a_model_a_sheet_and_a_log(kind, folders, tmp_path, draws):
    config = settings(**KINDS[kind], steps=2)
    folder = train(config, tmp_path / "run", folder_of(config, folders))
    assert folder == tmp_path / "run/model"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["checkpoint.pt", "log.csv", "model", "samples.png"]
    model = ddim_ode.load(folder)
    assert model.info["config"] == config.model
    average = state(tmp_path / "run")["average"]
    assert all(torch.equal(value, average[name].half().float()) for name, value in model.net.state_dict().items())
    side = config.model.network.shape[1]
    with Image.open(tmp_path / "run/samples.png") as sheet:
        assert sheet.size == (10 * (2 * side + 2) + 2, 8 * (2 * side + 2) + 2)
        assert sheet.mode == "L"
    assert temporary_files(tmp_path) == []


def test_all_files_have_the_permissions_of_any_other(whole, tmp_path):
    (tmp_path / "other").touch()
    modes = {file.stat().st_mode for file in whole("float32").rglob("*") if file.is_file()}
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_global_random_state_is_left_alone(folders, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(settings(steps=2), tmp_path, folders["images"])
    assert torch.equal(torch.get_rng_state(), before)
