"""Training is a function of its settings, not of how many processes shared the work; and it learns."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import ddim_ode
from ddim_ode import data
from ddim_ode.data import DataError
from ddim_ode.training.batches import TrainError
from ddim_ode.training.train import TrainingRun, learning_rate, train
from tests.helpers.assertions import one_line, same
from tests.helpers.files import temporary_files
from tests.helpers.training import KINDS, NETWORK, environment, folder_of, logged, settings, state, write_settings

pytestmark = pytest.mark.usefixtures("pictures")
BIN = Path(sys.executable).parent

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
    run = TrainingRun(config, tmp_path / "run", folders["images"])
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


def test_a_flow_that_was_trained_is_sampled_from_noise_to_its_data(one_image, tmp_path):
    network = NETWORK | {"time_scale": 1000.0}
    model = {"network": network, "schedule": {"name": "flow"}, "predicts": "flow"}
    config = settings(model=model, steps=300, batch_size=4, learning_rate=3e-3, ema=0.9, save_every=300, seed=1)
    model = ddim_ode.load(train(config, tmp_path / "run", one_image))
    assert (model.predicts, model.path) == ("flow", config.model.schedule.path())
    picture = data.to_float(data.image_folder(one_image, (1, 8, 8))[0][:1])
    x = ddim_ode.sample(model, "adams3", nfe=20, seeds=range(4)).x
    assert (x - picture).square().mean().sqrt() < 0.15


def test_the_first_loss_is_that_of_a_network_that_says_nothing(folders, tmp_path):
    """The last layer starts at zero: the loss is the mean square of the noise itself."""
    run = TrainingRun(settings(), tmp_path, folders["images"])
    eps = run.batches(0).eps
    loss, _ = run.update()
    assert loss == pytest.approx(eps.square().mean().item(), rel=1e-6)


def test_the_average_trails_the_weights(folders, tmp_path):
    run = TrainingRun(settings(ema=0.5), tmp_path, folders["images"])
    expected = {name: value.clone() for name, value in run.net.state_dict().items()}
    for step in range(1, 5):
        run.update()
        decay = min(0.5, step / (step + 9))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in run.net.state_dict().items()}
    for name, value in expected.items():
        torch.testing.assert_close(run.average[name], value, rtol=1e-5, atol=1e-7)


# Several processes

SHARED = """
import sys
from pathlib import Path
from accelerate import PartialState
from ddim_ode.support.validation import read_yaml
from ddim_ode.training import train
from ddim_ode.training.config import TrainConfig

config, out, folder = map(Path, sys.argv[1:])
train.TrainingRun.picture = lambda self: None
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


FILES = {"checkpoint.pt", "log.csv", "model", "samples.png", "training.json", ".lock"}


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
    assert {file.name for file in shared.iterdir()} == FILES - {"samples.png"}


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


# What goes wrong


def test_a_loss_that_is_not_finite_stops_the_run(folders, tmp_path):
    config = settings(learning_rate=1e30, warmup=0, save_every=100)
    text = one_line(TrainError, train, config, tmp_path, folders["images"])
    assert re.search(r"the loss is (nan|inf) at step \d+.*; use a smaller learning_rate", text)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_are_lost(folders, tmp_path, monkeypatch):
    run = TrainingRun(settings(), tmp_path, folders["images"])
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    objective = run.objective

    def infinite_slope(net: Any, batch: Any) -> torch.Tensor:
        weight = run.net.conv_out.bias
        return objective(net, batch) + (weight - weight.detach()).abs().sqrt().sum()  # 0, of slope infinity

    monkeypatch.setattr(run, "objective", infinite_slope)
    one_line(TrainError, run.update)
    assert same(dict(run.net.state_dict()), before)


def test_missing_data_are_named(tmp_path):
    text = one_line(DataError, train, settings(data="no/such/folder"), tmp_path / "run")
    assert "no/such/folder: no such folder" in text
    text = one_line(DataError, train, settings(**KINDS["labels and dropout"]), tmp_path / "run", tmp_path)
    assert "train-images-idx3-ubyte[.gz]: not found" in text
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_is_refused(folders, tmp_path):
    text = one_line(TrainError, train, settings(batch_size=25), tmp_path / "run", folders["images"])
    assert "batch_size=25 is larger than the data set; use at most 24" in text
    assert not (tmp_path / "run").exists()


# What is written


@pytest.mark.parametrize("kind", ["float32", "labels and dropout"])
def test_a_run_writes_a_model_a_sheet_and_a_log(kind, folders, tmp_path, draws):
    config = settings(**KINDS[kind], steps=2)
    folder = train(config, tmp_path / "run", folder_of(config, folders))
    assert folder == tmp_path / "run/model"
    assert {file.name for file in folder.parent.iterdir()} == FILES
    model = ddim_ode.load(folder)
    assert model.provenance.config == config.model
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
