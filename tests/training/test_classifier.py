"""Training a classifier: it learns, a killed run ends in the same bytes, and every mistake is one line."""

import pytest
import torch
from PIL import Image

from ddim_ode.data import DataError
from ddim_ode.models.classifier import load_classifier
from ddim_ode.support.files import OutputError
from ddim_ode.support.validation import parse
from ddim_ode.training.batches import TrainError, shuffled
from ddim_ode.training.classifier import ClassifierRun, ClassifierTraining, train_classifier
from tests.helpers.assertions import one_line, same
from tests.helpers.tensors import f64, normal
from tests.helpers.training import logged

NETWORK = {"shape": [1, 8, 8], "num_classes": 2, "channels": [8], "dropout": 0.2}


def settings(schedule="cosine", network=NETWORK, **changes):
    values = {
        "classifier": {"network": network, "schedule": {"name": schedule}},
        "data": "set by data_folder",
        "steps": 12,
        "batch_size": 8,
        "warmup": 2,
        "save_every": 4,
        "log_every": 2,
    }
    return parse(ClassifierTraining, values | changes, "settings")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Dark pictures in one class and bright ones in the other, each of one grey."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(24):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("L", (8, 8), 60 + 130 * (i % 2) + i).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


def test_it_learns_what_is_easy_and_knows_less_in_more_noise(images, tmp_path):
    known = load_classifier(train_classifier(settings(steps=150, learning_rate=1e-2), tmp_path / "run", images))
    x = torch.cat([torch.full((50, 1, 8, 8), -0.4), torch.full((50, 1, 8, 8), 0.6)])
    labels, eps = torch.arange(2).repeat_interleave(50), normal(100, 1, 8, 8, seed=0).float()
    right = [float((known(x + s * eps, f64(s)).argmax(1) == labels).float().mean()) for s in (0.05, 1.0, 300.0)]
    assert right[0] == 1.0
    assert right[1] > 0.9
    assert 0.3 < right[2] < 0.75


@pytest.mark.parametrize("schedule", ["cosine", "flow"])
def test_a_run_that_was_killed_ends_in_the_same_bytes(schedule, images, tmp_path):
    config = settings(schedule)
    whole = train_classifier(config, tmp_path / "whole", images)
    train_classifier(config, tmp_path / "killed", images, stop_at=3)
    torch.randn(5)  # of the global generator's state nothing depends
    train_classifier(config, tmp_path / "killed", images, stop_at=7)
    killed = train_classifier(config, tmp_path / "killed", images)
    for file in whole.iterdir():
        assert (killed / file.name).read_bytes() == file.read_bytes()
    states = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "killed")]
    assert same(*({key: state[key] for key in ("step", "net", "optimizer", "data")} for state in states))
    rows = logged(tmp_path / "whole")
    assert rows == logged(tmp_path / "killed")
    assert [row[0] for row in rows] == ["step", "2", "4", "6", "8", "10", "12"]


def test_a_batch_is_noise_on_the_path_and_an_epoch_sees_each_image_once(images, tmp_path):
    run = ClassifierRun(settings(), tmp_path, images)
    seen = [run.batch(step) for step in range(3)]
    assert sorted(torch.cat([labels for _, _, labels in seen]).tolist()) == [0] * 12 + [1] * 12
    rows = torch.cat([shuffled(24, run.config.batch_size, run.config.seed, step) for step in range(3)])
    assert sorted(rows.tolist()) == list(range(24))
    a, b = run.path.coefficients(torch.cat([t for _, t, _ in seen]).double())
    x0 = run.images[rows].double() / 127.5 - 1
    eps = (torch.cat([x for x, _, _ in seen]) - a.reshape(-1, 1, 1, 1) * x0) / b.reshape(-1, 1, 1, 1)
    assert abs(float(eps[b > 0.1].mean())) < 0.1
    assert float(eps[b > 0.1].std()) == pytest.approx(1, abs=0.1)


def test_the_learning_rate_rises_and_falls_to_nothing():
    config = settings(steps=100, warmup=10, learning_rate=1e-2)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[50] == pytest.approx(5e-3)
    assert rates[-1] < 1e-5
    assert max(rates) == rates[9]


def test_a_run_that_cannot_start_or_go_on_says_why(images, tmp_path):
    train_classifier(settings(), tmp_path / "run", images, stop_at=2)
    other = settings(seed=1, learning_rate=1e-3)
    line = one_line(TrainError, train_classifier, other, tmp_path / "run", images)
    assert line.endswith("holds a run with other settings of learning_rate, seed; use another --out")
    three = {**NETWORK, "num_classes": 3}
    assert "has 2 classes; use 2" in one_line(
        TrainError, train_classifier, settings(network=three), tmp_path / "b", images
    )
    large = settings(batch_size=25)
    assert "use at most 24" in one_line(TrainError, train_classifier, large, tmp_path / "b", images)
    assert "no such folder" in one_line(DataError, train_classifier, settings(), tmp_path / "b", tmp_path / "none")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "letter.txt").write_text("dear")
    assert "is not empty" in one_line(OutputError, train_classifier, settings(), tmp_path / "c", images)
    Image.new("L", (8, 8), 7).save(images / "a" / "more.png")
    assert "other images" in one_line(TrainError, train_classifier, settings(), tmp_path / "run", images)
    (images / "a" / "more.png").unlink()
    exploding = settings(learning_rate=1e30)
    assert "use a smaller learning_rate" in one_line(TrainError, train_classifier, exploding, tmp_path / "d", images)
