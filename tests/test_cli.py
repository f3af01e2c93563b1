"""The command line: how it is used, what it says about models and methods, and training with it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.planning.options import DEFAULT_MOST, DEFAULT_NFE, DEFAULT_TOL
from tests.helpers.common import Command

CONFIGS = Path(ddim_ode.__file__).parent / "configs"


# --- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"], ["--version"], ["sample"], ["nothing"]])
def test_torch_is_not_imported_to_say_how_it_is_used(arguments: list[str]) -> None:
    code = (
        "import sys; from ddim_ode.cli import main; main(sys.argv[1:]);"
        "print('heavy:', {'torch', 'numpy', 'matplotlib', 'einops', 'safetensors', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: set()\n")


def test_the_program_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "ddim_ode", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ddim-ode {ddim_ode.__version__}\n", "")
    done = subprocess.run([sys.executable, "-m", "ddim_ode", "nothing"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_every_option_has_a_line_of_help(run: Command) -> None:
    help_text = run("sample", "--help").out
    for option in ("--nfe", "-n", "--seeds", "--label", "--guidance-range", "--final", "--manifest", "--overwrite"):
        assert option in help_text
    for option, default in [("--tol", DEFAULT_TOL), ("--max-nfe", DEFAULT_MOST), ("--nfe", DEFAULT_NFE)]:
        described = help_text.partition(f" {option} ")[2]
        assert re.search(r"\[default: \((.*?)\)\]", described)[1] == str(default), option


def test_usage(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    assert "sample" in fails("smaple")
    assert "--out" in fails("sample", model)
    assert "MODEL" in fails("sample", "--out", tmp_path / "out")


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m ddim_ode methods --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


# --- looking ----------------------------------------------------------------------------------------------------


def test_info(run: Command, model: Path) -> None:
    facts = json.loads(run("info", model, "--json").out)
    den = ddim_ode.load(model)
    file = model / "model.safetensors"
    assert facts["shape"] == [1, 8, 8]
    assert facts["classes"] == 10
    assert facts["parameters"] == sum(p.numel() for p in den.net.parameters())
    assert (facts["predicts"], facts["schedule"], facts["timesteps"]) == ("noise", "cosine", 50)
    assert facts["sigma_range"] == [den.sigma_min, den.sigma_max]
    assert (facts["weights"], facts["bytes"]) == (str(file), file.stat().st_size)
    assert facts["sha256"] == checkpoints.sha256(file)
    assert "1 x 8 x 8" in run("info", model).out


def test_models(run: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ASSETS", model.parent)
    (row,) = json.loads(run("models", "--json").out)["models"]
    assert (row["name"], row["shape"], row["classes"]) == ("tiny", [1, 8, 8], 10)
    assert "tiny" in run("models").out


def test_methods_and_grids(run: Command) -> None:
    table = json.loads(run("methods", "--json").out)
    assert [row["name"] for row in table["methods"]] == list(ddim_ode.METHODS)
    assert [row["grid"] for row in table["grids"]] == list(ddim_ode.GRIDS)
    assert all(row["summary"] for row in [*table["methods"], *table["grids"]])
    assert "karras" in run("methods").out


def test_the_table_says_what_is_out_of_the_ordinary(run: Command) -> None:
    rows = json.loads(run("methods", "--json").out)["methods"]
    for row in rows:
        method = ddim_ode.METHODS[row["name"]]
        assert (row["adaptive"], row["per_sample"], row["grid"]) == (method.adaptive, method.per_sample, method.grid)
        assert bool(row["grid"]) != row["adaptive"]
    lines = {line.split()[0]: line for line in run("methods").out.splitlines() if line.strip()}
    words = {
        name: [word for word in ("adaptive,", "adaptive", "coupled") if word in line.split()[3:5]]
        for name, line in lines.items()
    }
    assert words["ddim"] == []
    assert words["adaptive"] == ["adaptive"]
    assert words["dopri5"] == ["adaptive,", "coupled"]


# --- training ---------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("ddim_ode.train.train", lambda *_: tmp_path)
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
