"""`ddim-ode train`: a run, the same run gone on with, and every mistake in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddim_ode
from ddim_ode.models.classifier import load_classifier
from tests.helpers.command_line import Command

CONFIGS = Path(ddim_ode.__file__).parent / "configs"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def train_config(file: Path, steps: int, extra: str = "") -> Path:
    network = "{shape: [1, 8, 8], channels: [32], blocks: 1}"
    file.write_text(
        f"model: {{network: {network}, schedule: {{timesteps: 50}}}}\n"
        f"data: images\nsteps: {steps}\nbatch_size: 4\ncompile: false\nprecision: float32\n{extra}"
    )
    return file


def test_train_and_go_on(run: Command, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--data", images, "--out", tmp_path / "out", "--json"]
    for steps in (2, 3):
        ran = run("train", train_config(tmp_path / "config.yaml", steps), *arguments)
        assert ran.code == 0
        record = json.loads(ran.out)
        assert (record["model"], record["steps"]) == (str(tmp_path / "out" / "model"), steps)
    assert (tmp_path / "out" / "log.csv").read_text().splitlines()[-1].startswith("3,")
    assert run("sample", tmp_path / "out" / "model", "--nfe", 1, "-n", 1, "--out", tmp_path / "samples").code == 0
    monkeypatch.setenv("RANK", "1")  # as accelerate launch sets it: only the main process prints
    monkeypatch.setattr("ddim_ode.training.train.train", lambda *_: tmp_path)
    assert run("train", tmp_path / "config.yaml", *arguments) == (0, "", "")


def test_train_mistakes(fails: Callable[..., str], images: Path, tmp_path: Path) -> None:
    line = fails("train", "fashoin", "--out", tmp_path / "out")
    assert "there is no config 'fashoin'" in line
    assert all(file.stem in line for file in CONFIGS.glob("*.yaml"))
    config = train_config(tmp_path / "config.yaml", 1, "colour: red\n")
    assert "unknown key 'colour'" in fails("train", config, "--out", tmp_path / "out")
    train_config(config, 1)
    assert "no such folder" in fails("train", config, "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert str(config) in fails("train", config, "--data", images, "--out", config)


def test_train_a_classifier(run: Command, fails: Callable[..., str], tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 30 * i).save(tmp_path / "images" / "ab"[i % 2] / f"{i}.png")
    network = "{shape: [1, 8, 8], num_classes: 2, channels: [8]}"
    config = tmp_path / "config.yaml"
    config.write_text(f"classifier: {{network: {network}}}\ndata: images\nsteps: 2\nbatch_size: 4\n")
    ran = run("train", config, "--data", tmp_path / "images", "--out", tmp_path / "out", "--json")
    assert ran.code == 0
    record = json.loads(ran.out)
    assert (record["classifier"], record["steps"]) == (str(tmp_path / "out" / "classifier"), 2)
    assert load_classifier(tmp_path / "out" / "classifier").num_classes == 2
    config.write_text(config.read_text() + "colour: red\n")
    assert "unknown key 'colour'; valid keys are classifier, data" in fails("train", config, "--out", tmp_path / "out")
