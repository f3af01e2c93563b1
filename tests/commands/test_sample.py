"""`ddim-ode sample`: the files it writes, the manifest that recreates them, and the folder that is never lost."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.data import to_uint8
from ddim_ode.models.unet import UNet
from ddim_ode.support import outputs
from tests.helpers.command_line import Command, changed, make_model, unsealed


def test_sample_writes_what_the_library_draws(run: Command, model: Path, tmp_path: Path) -> None:
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
    assert manifest["nfe"] == {"min": 6, "median": 6, "max": 6, "mean": 6}
    assert manifest["tol"] is None
    assert manifest["arguments"]["seeds"] == [3, 0, 1, 9]
    assert manifest["model"]["sha256"] == checkpoints.sha256(model / "model.safetensors")
    assert {"ddim_ode", "torch", "torchdiffeq", "torchsde", "numpy", "python"} == set(manifest["versions"])


def test_sample_for_machines(run: Command, model: Path, tmp_path: Path) -> None:
    record = json.loads(run("sample", model, "--nfe", 3, "-n", 5, "--json", "--out", tmp_path / "out").out)
    assert record["count"] == 5
    for counts, value in [("nfe", 3), ("steps", 3), ("rejected", 0)]:
        assert record[counts] == {"min": value, "median": value, "max": value, "mean": value}
    assert (record["tol"], record["not_converged"]) == (None, 0)
    assert record["images_per_second"] == pytest.approx(5 / record["seconds"])
    assert Path(record["grid"]).is_file()
    assert "labels" not in load_file(record["samples"])  # the null class
    assert load_file(record["samples"])["seeds"].tolist() == [0, 1, 2, 3, 4]


def test_an_unconditional_model(run: Command, tmp_path: Path, fails: Callable[..., str]) -> None:
    model = make_model(tmp_path / "model", num_classes=0)
    assert run("sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out").code == 0
    assert "has no classes" in fails("sample", model, "--label", "each", "--out", tmp_path / "other")
    assert "class-conditional" in fails("sample", model, "--guidance", 2, "--out", tmp_path / "other")


def test_guidance_costs_twice_inside_its_range(run: Command, model: Path, tmp_path: Path) -> None:
    common = ["sample", model, "-n", 2, "--grid", "20,5,1,0", "--label", 3, "--guidance", 2, "--json", "--out"]
    assert json.loads(run(*common, tmp_path / "all").out)["nfe"]["max"] == 6
    assert json.loads(run(*common, tmp_path / "some", "--guidance-range", "2:10").out)["nfe"]["max"] == 4
    assert json.loads(run(*common, tmp_path / "open", "--guidance-range", "2:").out)["nfe"]["max"] == 5
    assert json.loads((tmp_path / "open" / "manifest.json").read_text())["sigmas"] == [20, 5, 1, 0]


def test_float64_is_the_network_too(run: Command, model: Path, tmp_path: Path) -> None:
    run("sample", model, "--nfe", 4, "-n", 2, "--dtype", "float64", "--out", tmp_path / "out")
    x = load_file(tmp_path / "out" / "samples.safetensors")["x"]
    expected = ddim_ode.sample(ddim_ode.load(model).to(dtype=torch.float64), nfe=4, seeds=[0, 1], dtype=torch.float64)
    assert x.dtype == torch.float64
    assert torch.equal(x, expected.x)


# --- the manifest ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ddim_ode.grids.GridWarning")  # of karras, whose steps are few here
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
def test_a_manifest_recreates_the_same_bytes(run: Command, model: Path, tmp_path: Path, options: list[str]) -> None:
    nfe = [] if "20.1,3.3,0.7,0" in options else ["--nfe", 5]
    count = [] if "--seeds" in options else ["-n", 5]
    assert run("sample", model, *nfe, *count, *options, "--out", tmp_path / "one").code == 0
    assert run("sample", "--manifest", tmp_path / "one" / "manifest.json", "--out", tmp_path / "two").code == 0
    for file in ("samples.safetensors", "grid.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert {**one, "seconds": 0, "sha256": ""} == {**two, "seconds": 0, "sha256": ""}


def test_a_manifest_is_recreated_with_its_threads_which_are_then_as_before(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "one")
    file, had, forward = tmp_path / "one" / "manifest.json", torch.get_num_threads(), UNet.forward
    used: list[int] = []

    def watched(net: UNet, *inputs: torch.Tensor) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return forward(net, *inputs)

    monkeypatch.setattr(UNet, "forward", watched)
    changed(file, threads=had + 1)
    assert run("sample", "--manifest", file, "--out", tmp_path / "two").code == 0
    assert used == [had + 1] * 2
    assert torch.get_num_threads() == had
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["threads"] == had + 1


def test_a_manifest_of_before_there_were_adaptive_methods(run: Command, model: Path, tmp_path: Path) -> None:
    run("sample", model, "--nfe", 3, "-n", 2, "--out", tmp_path / "one")
    file = tmp_path / "one" / "manifest.json"
    values = {name: value for name, value in unsealed(file).items() if name not in ("kind", "files")}
    for record, keys in [
        (values, ["tol"]),
        (values["arguments"], ["tol", "max_nfe"]),
        (values["nfe"], ["median", "mean"]),
    ]:
        for key in keys:
            del record[key]
    file.write_text(json.dumps(values))
    assert run("sample", "--manifest", file, "--out", tmp_path / "two").code == 0
    one, two = (tmp_path / name / "samples.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_manifest_holds_for_its_own_model_only(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path
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


def test_a_manifest_leaves_nothing_to_choose(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    run("sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    line = fails("sample", model, "--nfe", 2, "-n", 1, "--manifest", manifest, "--out", tmp_path / "again")
    assert "leave out MODEL, --nfe, -n" in line
    sealed, values = json.loads(manifest.read_text()), unsealed(manifest)
    for text, word in [
        ("{", "not valid JSON"),
        ("[]", "is no manifest"),
        (json.dumps({**values, "colour": 1}), "unknown key 'colour'"),
        (json.dumps({**values, "sigmas": ["x"]}), "sigmas.0"),
        (json.dumps({**values, "threads": 3000}), "threads: Input should be less than or equal to 1024"),
        (json.dumps({**sealed, "threads": 3}), "is not as it was written, by its sha256"),
        (json.dumps({**values, "kind": "ddim_ode decode 1", "command": "decode"}), "is of `ddim-ode decode`"),
    ]:
        manifest.write_text(text)
        assert word in fails("sample", "--manifest", manifest, "--out", tmp_path / "again")
    assert "cannot be read" in fails("sample", "--manifest", tmp_path / "none.json", "--out", tmp_path / "again")


# --- the folder -------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in sorted(folder.rglob("*"))}


def test_a_folder_that_is_not_empty_stays(run: Command, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
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
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["sample", model, "--nfe", 2, "-n", 1, "--images", "--out"]
    run(*arguments, tmp_path / "out")
    before, sync = contents(tmp_path), os.fsync
    for failing in range(1, 4):  # of samples.safetensors, grid.png and manifest.json
        calls: list[int] = []

        def flaky(descriptor: int, failing: int = failing, calls: list[int] = calls) -> None:
            calls.append(descriptor)
            if len(calls) == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", flaky)
            line = fails(*arguments, tmp_path / "out", "--overwrite")
            assert "cannot be written: No space left on device; what was there is unchanged" in line
            assert f"{tmp_path / 'out'}/" in line
            calls.clear()
            fails(*arguments, tmp_path / "a" / "b" / "new")
            assert contents(tmp_path) == before
    assert len(calls) == failing


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_puts_the_old_run_back(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    arguments = ["sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "out"]
    run(*arguments)
    before, rename, calls = contents(tmp_path), os.rename, []

    def flaky(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target)

    monkeypatch.setattr(outputs, "_exchange", lambda *folders: False)  # as where the system cannot
    monkeypatch.setattr(outputs.os, "rename", flaky)
    line = fails(*arguments, "--overwrite")
    assert "Permission denied" in line
    made = Path(line.strip().rpartition("what was made is ")[2])
    assert sorted(file.name for file in made.iterdir()) == ["grid.png", "manifest.json", "samples.safetensors"]
    shutil.rmtree(made)
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_known_before_sampling(
    fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object, **__: object) -> None:
        raise AssertionError("it sampled first")

    monkeypatch.setattr("ddim_ode.commands.shared.runs.draw", draw)
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file" in fails("sample", model, "--out", tmp_path / "file")
    assert f"{tmp_path / 'file'} is a file" in fails("sample", model, "--out", tmp_path / "file" / "a" / "b")
    assert "File name too long" in fails("sample", model, "--out", tmp_path / ("a" * 256))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "Permission denied" in fails("sample", model, "--out", tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_leaves_nothing(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        assert any(tmp_path.iterdir())  # the temporary folder
        raise KeyboardInterrupt

    monkeypatch.setattr(UNet, "forward", interrupt)
    assert run("sample", model, "--out", tmp_path / "a" / "out") == (130, "", "interrupted\n")
    assert not any(tmp_path.iterdir())
