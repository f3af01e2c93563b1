"""The command line: every mistake is one line and exit code 2; only a bug of ours has a traceback."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddim_ode.models.unet import UNet
from tests.helpers.command_line import Command
from tests.helpers.files import RunsCode


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "ddmi"], "unknown method 'ddmi'; did you mean 'ddim'?"),
        (["--grid", "karas"], "unknown grid 'karas'; did you mean 'karras'?"),
        (["--grid", "10,x"], "grid='10,x' is not a list of numbers"),
        (["--grid", "10,5,7"], "strictly decreasing"),
        (["--grid", "1e9,5,0"], "the grid starts at sigma=1e+09"),
        (["--grid", "10,5,0", "--nfe", "7"], "contradicts an explicit grid"),
        (["--grid", "10,5,0", "--final", "denoise"], "leave --final out"),
        (["--nfe", "0"], "nfe=0 must be a whole number >= 1"),
        (["--nfe", "-3"], "nfe=-3 must be a whole number >= 1"),
        (["--nfe", "1.5"], "1.5"),
        (["-n", "0"], "n=0 must be a whole number >= 1"),
        (["-n", "99999999999"], "too many for one run"),
        (["--label", "10"], "label 10 does not exist; this model has labels 0..9"),
        (["--label", "-1"], "label -1 does not exist"),
        (["--label", "shoe"], "label='shoe' is no class"),
        (["--label", "9" * 30], "is no class"),
        (["--seeds", "5-2"], "the range 5-2 is empty; write it as 2-5"),
        (["--seeds", "a"], "'a' is no seed"),
        (["--seeds", ""], "'' is no seed"),
        (["--seeds", "1,,2"], "'' is no seed"),
        (["--seeds", "-4"], "'-4' is no seed"),
        (["--seeds", "9" * 20], "is not a whole number in 0..2^32-1"),
        (["--seeds", "0-3", "-n", "3"], "n=3 contradicts seeds='0-3'"),
        (["--guidance", "2"], "no label to guide to"),
        (["--guidance", "nan", "--label", "1"], "guidance=nan must be a finite number"),
        (["--guidance", "2", "--label", "1", "--guidance-range", "3"], "not LOW:HIGH"),
        (["--guidance", "2", "--label", "1", "--guidance-range", "3:2"], "the guidance range 3:2 is empty"),
        (["--guidance-range", "1:2"], "does nothing with guidance=1"),
        (["--batch-size", "0"], "batch_size=0 must be a whole number >= 1"),
        (["--dtype", "float16"], "'float16' is not one of"),
        (["--final", "x"], "'x' is not one of"),
        (["--tol", "0.1"], "tol=0.1 is for adaptive methods (adaptive, dopri5, "),
        (["--max-nfe", "9"], "max_nfe=9 is for adaptive methods"),
        (["--trace"], "ddim does not choose its steps"),
        (["--trace", "--method", "scipy_solver"], "scipy_solver does not choose its steps, or not visibly"),
        (["--method", "adaptive", "--grid", "karras"], "adaptive chooses its steps; leave grid='karras' out"),
        (["--method", "adaptive", "--grid", "10,5,1,0"], "not a grid of 4"),
        (["--method", "adaptive", "--tol", "0"], "tol=0.0 must be a finite number of at least 1e-06"),
        (["--method", "adaptive", "--tol", "-1"], "tol=-1.0 must be a finite number of at least 1e-06"),
        (["--method", "adaptive", "--tol", "nan"], "tol=nan must be a finite number of at least 1e-06"),
        (["--method", "adaptive", "--tol", "small"], "found 'small'"),
        (["--method", "adaptive", "--max-nfe", "0"], "max_nfe=0 must be a whole number >= 1"),
        (["--method", "adaptive", "--nfe", "9", "--tol", "0.1"], "nfe=9 and tol=0.1 contradict each other"),
        (["--steps", "3"], "--steps"),
        (["--nfe"], "--nfe"),
        (["more"], "more"),
    ],
)
def test_mistakes_in_the_options_are_one_line(
    fails: Callable[..., str],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: str,
) -> None:
    def evaluate(*_: object) -> None:
        raise AssertionError("the network was evaluated")

    monkeypatch.setattr(UNet, "forward", evaluate)
    assert words in fails("sample", model, "--out", tmp_path / "out", *options)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(run: Command, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    assert "no GPU" in fails("sample", model, "--device", "cuda", "--out", tmp_path / "out")
    assert run("sample", model, "--nfe", 1, "-n", 1, "--device", "auto", "--out", tmp_path / "out").code == 0


def test_models_that_cannot_be_loaded(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    assert "there is no model" in fails("info", tmp_path / "none")
    copy = shutil.copytree(model, tmp_path / "model")
    weights, config = copy / "model.safetensors", copy / "config.yaml"
    content = weights.read_bytes()

    weights.write_bytes(content[: len(content) // 2])
    assert f"{weights} is damaged" in fails("info", copy)
    weights.unlink()
    assert f"{weights} is missing" in fails("info", copy)

    tensors = load_file(model / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, weights)
    assert f"the weights of {name} hold NaN" in fails("sample", copy, "--out", tmp_path / "out")
    save_file({key: value for key, value in tensors.items() if key != name}, weights)
    assert "does not fit" in fails("info", copy)

    weights.write_bytes(content)
    changed = config.read_text() + "colour: red\n"
    config.write_text(changed)
    assert f"{config} is not as it was written" in fails("info", copy)
    config.write_text(changed.partition("\n")[2])  # without the digest of itself
    line = fails("info", copy)
    assert "unknown key 'colour'; valid keys are network, schedule, predicts" in line
    config.unlink()
    assert f"{config} cannot be read" in fails("info", copy)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "folder/model.safetensors"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_that_would_run_code_is_refused(
    fails: Callable[..., str], model: Path, tmp_path: Path, name: str, how: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "folder")
    file, made = tmp_path / name, tmp_path / "made"
    if how == "torch":
        torch.save(RunsCode(made), file)
    else:
        file.write_bytes(pickle.dumps(RunsCode(made)))
    line = fails("info", folder if file.parent == folder else file)
    assert str(file) in line
    assert "pickle" in line
    assert "refused" in line
    assert not made.exists()


def test_a_file_is_no_model(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
    assert "model.pt needs its configuration" in fails("info", tmp_path / "model.pt")
    file = model / "model.safetensors"
    assert f"{file} is a file; give the folder of a model" in fails("info", file)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_was_cut(fails: Callable[..., str], tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    for share in (0.3, 0.5, 0.9):
        file.write_bytes(content[: int(share * len(content))])
        assert str(file) in fails("info", file)


def test_a_solver_that_diverges(
    fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UNet, "forward", lambda net, x, *_: 1e38 * torch.ones_like(x))
    line = fails("sample", model, "--nfe", 3, "--dtype", "float32", "--out", tmp_path / "out")
    assert "diverged" in line or "not finite" in line


def test_a_network_that_overflows(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    tensors = load_file(copy / "model.safetensors")
    save_file({name: torch.full_like(value, 6e4) for name, value in tensors.items()}, copy / "model.safetensors")
    line = fails("sample", copy, "--nfe", 3, "--out", tmp_path / "out")
    assert "not finite at sigma=" in line
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["[red]a[/]", "a\nb", "a\x1b[31m", "a\u202eb", "two  spaces"])
def test_a_folder_of_any_name_is_shown_on_a_line(run: Command, model: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(model, tmp_path / name)
    shown = str(tmp_path) + "/" + {"a\nb": r"a\nb", "a\x1b[31m": r"a\x1b[31m"}.get(name, name)
    shown = shown.replace("\u202e", r"\u202e")
    done = run("info", copy)
    assert (done.code, done.err) == (0, "")
    assert shown in done.out
    assert all(line.isprintable() for line in done.out.splitlines())
    (copy / "model.safetensors").write_bytes(b"")
    code, out, err = run("info", copy)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()


def test_a_bug_keeps_its_traceback(run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("ddim_ode.commands.shared.runs.draw", draw)
    with pytest.raises(ValueError, match="a bug"):
        run("sample", model, "--out", tmp_path / "out")
    assert not any(tmp_path.iterdir())
