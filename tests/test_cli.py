"""The command line: what it writes, what it prints, and that every mistake is one line and exit code 2."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ddim_ode
from ddim_ode import checkpoints, outputs, runs
from ddim_ode.cli import main
from ddim_ode.config import ModelConfig
from ddim_ode.data import to_uint8
from ddim_ode.unet import UNet

CONFIGS = Path(ddim_ode.__file__).parent / "configs"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def make_model(folder: Path, seed: int = 0, num_classes: int = 10) -> Path:
    network = {"shape": [1, 8, 8], "channels": [32], "blocks": 1, "num_classes": num_classes}
    config = ModelConfig.model_validate({"network": network, "schedule": {"name": "cosine", "timesteps": 50}})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(config.network)
        for weight in net.parameters():  # the last layers start at zero, and would hide the rest
            torch.nn.init.normal_(weight, std=0.05)
    checkpoints.save(folder, config, net.state_dict())
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run something that must fail as bad input does; returns the line."""

    def fails(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return fails


class RunsCode:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


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


def test_every_option_has_a_line_of_help(run: Run) -> None:
    help_text = run("sample", "--help").out
    for option in ("--nfe", "-n", "--seeds", "--label", "--guidance-range", "--final", "--manifest", "--overwrite"):
        assert option in help_text


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m ddim_ode methods --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


# --- looking ----------------------------------------------------------------------------------------------------


def test_info(run: Run, model: Path) -> None:
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


def test_models(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ASSETS", model.parent)
    (row,) = json.loads(run("models", "--json").out)["models"]
    assert (row["name"], row["shape"], row["classes"]) == ("tiny", [1, 8, 8], 10)
    assert "tiny" in run("models").out


def test_methods_and_grids(run: Run) -> None:
    table = json.loads(run("methods", "--json").out)
    assert [row["name"] for row in table["methods"]] == list(ddim_ode.METHODS)
    assert [row["grid"] for row in table["grids"]] == list(ddim_ode.GRIDS)
    assert all(row["summary"] for row in [*table["methods"], *table["grids"]])
    assert "karras" in run("methods").out


# --- sampling ---------------------------------------------------------------------------------------------------


def test_sample_writes_what_the_library_draws(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    ran = run("sample", model, "--nfe", 6, "--seeds", "3,0-1,9", "--label", "each", "--images", "--out", out)
    assert ran.code == 0
    assert ran.err == ""
    assert "measured NFE 6" in ran.out
    expected = ddim_ode.sample(ddim_ode.load(model), nfe=6, seeds=[3, 0, 1, 9], labels=[0, 1, 2, 3])
    tensors = load_file(out / "samples.safetensors")
    assert set(tensors) == {"x", "seeds", "labels", "sigmas"}
    assert torch.equal(tensors["x"], expected.x)
    assert tensors["seeds"].tolist() == [3, 0, 1, 9]
    assert tensors["labels"].tolist() == [0, 1, 2, 3]
    assert torch.equal(tensors["sigmas"], expected.sigmas)
    assert sorted(file.name for file in out.iterdir()) == ["grid.png", "images", "manifest.json", "samples.safetensors"]
    with Image.open(out / "images" / "00002.png") as image:
        assert np.array_equal(np.asarray(image), to_uint8(expected.x[2, 0]).numpy())
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sigmas"] == expected.sigmas.tolist()
    assert manifest["nfe"] == {"min": 6, "max": 6}
    assert manifest["arguments"]["seeds"] == [3, 0, 1, 9]
    assert manifest["model"]["sha256"] == checkpoints.sha256(model / "model.safetensors")
    assert {"ddim_ode", "torch", "torchdiffeq", "numpy", "python"} == set(manifest["versions"])


def test_sample_for_machines(run: Run, model: Path, tmp_path: Path) -> None:
    record = json.loads(run("sample", model, "--nfe", 3, "-n", 5, "--json", "--out", tmp_path / "out").out)
    assert record["count"] == 5
    assert record["nfe"] == {"min": 3, "max": 3}
    assert Path(record["grid"]).is_file()
    assert "labels" not in load_file(record["samples"])  # the null class
    assert load_file(record["samples"])["seeds"].tolist() == [0, 1, 2, 3, 4]


def test_an_unconditional_model(run: Run, tmp_path: Path, fails: Callable[..., str]) -> None:
    model = make_model(tmp_path / "model", num_classes=0)
    assert run("sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out").code == 0
    assert "has no classes" in fails("sample", model, "--label", "each", "--out", tmp_path / "other")
    assert "class-conditional" in fails("sample", model, "--guidance", 2, "--out", tmp_path / "other")


def test_guidance_costs_twice_inside_its_range(run: Run, model: Path, tmp_path: Path) -> None:
    common = ["sample", model, "-n", 2, "--grid", "20,5,1,0", "--label", 3, "--guidance", 2, "--json", "--out"]
    assert json.loads(run(*common, tmp_path / "all").out)["nfe"]["max"] == 6
    assert json.loads(run(*common, tmp_path / "some", "--guidance-range", "2:10").out)["nfe"]["max"] == 4
    assert json.loads(run(*common, tmp_path / "open", "--guidance-range", "2:").out)["nfe"]["max"] == 5
    assert json.loads((tmp_path / "open" / "manifest.json").read_text())["sigmas"] == [20, 5, 1, 0]


def test_float64_is_the_network_too(run: Run, model: Path, tmp_path: Path) -> None:
    run("sample", model, "--nfe", 4, "-n", 2, "--dtype", "float64", "--out", tmp_path / "out")
    x = load_file(tmp_path / "out" / "samples.safetensors")["x"]
    expected = ddim_ode.sample(ddim_ode.load(model).to(dtype=torch.float64), nfe=4, seeds=[0, 1], dtype=torch.float64)
    assert x.dtype == torch.float64
    assert torch.equal(x, expected.x)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--final", "sigma_min", "--grid", "karras", "--batch-size", 2],
        ["--grid", "20.1,3.3,0.7,0"],
        ["--label", "each", "--guidance", 1.5, "--guidance-range", "0.1:"],
        ["--dtype", "float64", "--seeds", "7,3-5"],
    ],
)
def test_a_manifest_recreates_the_same_bytes(run: Run, model: Path, tmp_path: Path, options: list[str]) -> None:
    nfe = [] if "20.1,3.3,0.7,0" in options else ["--nfe", 5]
    count = [] if "--seeds" in options else ["-n", 5]
    assert run("sample", model, *nfe, *count, *options, "--out", tmp_path / "one").code == 0
    assert run("sample", "--manifest", tmp_path / "one" / "manifest.json", "--out", tmp_path / "two").code == 0
    for file in ("samples.safetensors", "grid.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_a_manifest_holds_for_its_own_model_only(
    run: Run, fails: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    run("sample", copy, "--nfe", 2, "-n", 1, "--out", tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    make_model(copy, seed=1)
    line = fails("sample", "--manifest", manifest, "--out", tmp_path / "again")
    assert checkpoints.sha256(model / "model.safetensors") in line
    assert checkpoints.sha256(copy / "model.safetensors") in line
    shutil.copy(model / "model.safetensors", copy)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("predicts: noise", "predicts: velocity"))
    assert "config.yaml" in fails("sample", "--manifest", manifest, "--out", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_manifest_leaves_nothing_to_choose(run: Run, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    run("sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    line = fails("sample", model, "--nfe", 2, "-n", 1, "--manifest", manifest, "--out", tmp_path / "again")
    assert "leave out MODEL, --nfe, -n" in line
    values = json.loads(manifest.read_text())
    for text, word in [
        ("{", "not valid JSON"),
        ("[]", "dictionary"),
        (json.dumps({**values, "colour": 1}), "unknown key 'colour'"),
        (json.dumps({**values, "sigmas": ["x"]}), "sigmas.0"),
    ]:
        manifest.write_text(text)
        assert word in fails("sample", "--manifest", manifest, "--out", tmp_path / "again")
    assert "cannot be read" in fails("sample", "--manifest", tmp_path / "none.json", "--out", tmp_path / "again")


# --- mistakes ---------------------------------------------------------------------------------------------------


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
        (["--guidance", "nan", "--label", "1"], "not finite"),
        (["--guidance", "2", "--label", "1", "--guidance-range", "3"], "not LOW:HIGH"),
        (["--guidance", "2", "--label", "1", "--guidance-range", "3:2"], "the guidance range 3:2 is empty"),
        (["--guidance-range", "1:2"], "does nothing with guidance=1"),
        (["--batch-size", "0"], "batch_size=0 must be a whole number >= 1"),
        (["--dtype", "float16"], "'float16' is not one of"),
        (["--final", "x"], "'x' is not one of"),
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
def test_no_gpu(run: Run, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    assert "no GPU" in fails("sample", model, "--device", "cuda", "--out", tmp_path / "out")
    assert run("sample", model, "--nfe", 1, "-n", 1, "--device", "auto", "--out", tmp_path / "out").code == 0


def test_usage(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    assert "sample" in fails("smaple")
    assert "--out" in fails("sample", model)
    assert "MODEL" in fails("sample", "--out", tmp_path / "out")


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
    config.write_text(config.read_text() + "colour: red\n")
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
    for file in (tmp_path / "model.pt", model / "model.safetensors"):
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


def test_a_bug_keeps_its_traceback(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(runs, "draw", draw)
    with pytest.raises(ValueError, match="a bug"):
        run("sample", model, "--out", tmp_path / "out")
    assert not any(tmp_path.iterdir())


# --- the folder -------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in sorted(folder.rglob("*"))}


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_is_not_empty_stays(run: Run, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    arguments = ["sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    assert run(*arguments).code == 0  # empty
    before = contents(tmp_path)
    assert "--overwrite" in fails(*arguments)
    assert contents(tmp_path) == before
    assert run(*arguments, "--overwrite", "--seeds", 0).code == 0
    assert load_file(tmp_path / "out" / "samples.safetensors")["seeds"].tolist() == [0]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out"]


def test_someone_elses_folder_is_never_replaced(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    assert "no manifest.json" in fails("sample", model, "--overwrite", "--out", tmp_path)
    assert "mount point" in fails("sample", model, "--overwrite", "--out", "/")
    assert (tmp_path / "thesis.tex").read_text() == "all my work"


def test_a_full_disk_loses_nothing(
    run: Run, fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["sample", model, "--nfe", 2, "-n", 1, "--images", "--out"]
    run(*arguments, tmp_path / "out")
    before = contents(tmp_path)
    for name in ("save_grid", "save_images", "save"):
        with monkeypatch.context() as patch:
            patch.setattr(runs, name, no_space)
            line = fails(*arguments, tmp_path / "out", "--overwrite")
            assert "No space left on device" in line
            assert str(tmp_path / "out") in line
            fails(*arguments, tmp_path / "a" / "b" / "new")
            assert contents(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_puts_the_old_run_back(
    run: Run, fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    arguments = ["sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out"]
    run(*arguments)
    before, rename, calls = contents(tmp_path), os.rename, []

    def flaky(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target)

    monkeypatch.setattr(outputs.os, "rename", flaky)
    assert "Permission denied" in fails(*arguments, "--overwrite")
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_known_before_sampling(
    fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object) -> None:
        raise AssertionError("it sampled first")

    monkeypatch.setattr(runs, "draw", draw)
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file" in fails("sample", model, "--out", tmp_path / "file")
    assert f"{tmp_path / 'file'} is a file" in fails("sample", model, "--out", tmp_path / "file" / "a" / "b")
    assert "File name too long" in fails("sample", model, "--out", tmp_path / ("a" * 250))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "Permission denied" in fails("sample", model, "--out", tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_leaves_nothing(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        assert any(tmp_path.iterdir())  # the temporary folder
        raise KeyboardInterrupt

    monkeypatch.setattr(UNet, "forward", interrupt)
    assert run("sample", model, "--out", tmp_path / "a" / "out") == (130, "", "interrupted\n")
    assert not any(tmp_path.iterdir())


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


def test_train_and_go_on(run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
