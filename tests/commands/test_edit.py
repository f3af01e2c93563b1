"""`ddim-ode edit`: what it writes and prints, that a stopped augmentation goes on, and every mistake in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.data import to_float, to_uint8
from ddim_ode.editing import Side, sdedit, sigma_of_strength, translate
from tests.helpers.command_line import Command, make_model, pixels_of

FILES = ["edit.png", "grid.png", "manifest.json", "samples.safetensors"]


def arguments_of(folder: Path) -> list[object]:
    """A command line that does again what a manifest says."""
    told: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["arguments"]
    line: list[object] = [told.pop("model"), *(told.pop("images") or [])]
    written = {"count": "-n", "png": "--images"}
    for name, value in told.items():
        option = written.get(name, f"--{name.replace('_', '-')}")
        if value is True:
            line.append(option)
        elif value not in (None, False):
            line += [option, value]
    return line


# --- SDEdit


def test_an_edit_is_the_library_s(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    how = ["--strength", 0.4, "--label", "3,1,4,1", "--seeds", "5,6,7,8", "--guidance", 2, "--nfe", 6, "--eta", 1]
    ran = run("edit", model, images, *how, "--method", "ddim", "--images", "--out", out)
    assert (ran.code, ran.err) == (0, "")
    network, x = ddim_ode.load(model), pixels_of(images)
    told = {"labels": [3, 1, 4, 1], "seeds": [5, 6, 7, 8], "guidance": 2.0, "eta": 1.0}
    expected = sdedit(network, x, 0.4, "ddim", nfe=6, **told)
    tensors = load_file(out / "samples.safetensors")
    assert torch.equal(tensors["x"], expected.x)
    assert torch.equal(tensors["before"], x)
    assert tensors["labels"].tolist() == [3, 1, 4, 1]
    assert torch.equal(pixels_of(out / "images"), to_uint8(expected.x))
    assert sorted(file.name for file in out.iterdir() if file.is_file()) == FILES
    far = float((expected.x - to_float(x)).square().mean().sqrt())
    assert ran.out.splitlines() == [
        str(out / "edit.png"),
        ran.out.splitlines()[1],
        f"sigma {sigma_of_strength(network, 0.4):.4g}, RMS distance to the image {far:.3f}",
    ]
    assert ran.out.splitlines()[1].startswith("4 images edited, measured NFE 6, ")
    with Image.open(out / "edit.png") as picture:
        assert picture.width > 500
    again = tmp_path / "again"
    assert run("edit", *arguments_of(out), "--out", again).code == 0
    assert torch.equal(load_file(again / "samples.safetensors")["x"], expected.x)


def test_strengths_stand_side_by_side(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("edit", model, images, "-n", 2, "--strengths", "0.2,0.7", "--nfe", 3, "--json", "--out", out)
    record = json.loads(ran.out)
    network, x = ddim_ode.load(model), pixels_of(images)[:2]
    found = load_file(out / "samples.safetensors")["x"].reshape(2, 2, 1, 8, 8)
    for i, strength in enumerate((0.2, 0.7)):
        assert torch.equal(found[:, i], sdedit(network, x, strength, nfe=3).x)
    assert record["sigmas_of_edits"] == [sigma_of_strength(network, s) for s in (0.2, 0.7)]
    assert record["distances"][0] < record["distances"][1]
    assert (record["count"], record["nfe"]["max"]) == (4, 3)
    assert record["picture"] == str(out / "edit.png")


def test_strengths_that_are_close_stay_apart(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    how = ["-n", 1, "--strengths", "0.3000001,0.3000002", "--nfe", 1, "--json", "--out", tmp_path / "out"]
    assert json.loads(run("edit", model, images, *how).out)["count"] == 2


def test_an_adaptive_method_and_a_sigma(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    how = ["--sigma", 0.8, "--method", "adaptive", "--tol", 0.1, "--out", tmp_path / "out"]
    assert run("edit", model, images, *how).code == 0
    found = load_file(tmp_path / "out" / "samples.safetensors")["x"]
    assert torch.equal(found, sdedit(ddim_ode.load(model), pixels_of(images), sigma=0.8, method="adaptive", tol=0.1).x)


# --- translation


def test_a_translation_comes_back(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    how = ["--from-label", 3, "--to-label", "1,2,4,5", "--window", "0.2:", "--guidance", 2, "--nfe", 5, "--back"]
    ran = run("edit", model, images, *how, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "back: 4 of 4 came back to the same bytes, RMS error 0"
    network, x = ddim_ode.load(model), pixels_of(images)
    expected = translate(network, x, 3, Side([1, 2, 4, 5], guidance=2.0), nfe=5, window=(0.2, None))
    assert torch.equal(load_file(out / "samples.safetensors")["x"], expected.x)
    assert sorted(file.name for file in out.iterdir()) == sorted([*FILES, "latent.safetensors"])
    latent = ddim_ode.Latent.load(out / "latent.safetensors")
    assert torch.equal(to_uint8(ddim_ode.decode(network, latent).x), x)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"] == "edit"
    assert (manifest["labels"], manifest["target"]) == ([3] * 4, [1, 2, 4, 5])
    assert manifest["back"]["same_bytes"] == 4
    again = tmp_path / "again"
    assert run("edit", *arguments_of(out), "--out", again).code == 0
    assert torch.equal(load_file(again / "samples.safetensors")["x"], expected.x)
    assert run("edit", *arguments_of(out), "--out", again, "--overwrite").code == 0


def test_a_translation_that_loses_something_says_what(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    how = ["--to-label", "none", "--from-label", 2, "--method", "ddim", "--nfe", 3, "--back", "--json", "--out", out]
    record = json.loads(run("edit", model, images, *how).out)
    back = translate(ddim_ode.load(model), pixels_of(images), 2, None, "ddim", nfe=3).back()
    off = float((back.x.double() - to_float(pixels_of(images)).double()).square().mean().sqrt())
    assert record["back"] == {"same_bytes": 0, "rms": off, "nfe": 6.0}


# --- augmentation


@pytest.fixture
def classes(images: Path, tmp_path: Path) -> Path:
    """The images in two folders that are classes."""
    folder = tmp_path / "classes"
    for i in range(4):
        place = folder / ("7" if i % 2 else "2")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / f"{i}.png", place / f"{i}.png")
    return folder


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*-*.png")}


def test_a_folder_is_augmented_and_keeps_its_classes(
    run: Command, fails: Any, model: Path, classes: Path, tmp_path: Path
) -> None:
    out, how = tmp_path / "out", ["--strength", 0.5, "--per-image", 3, "--nfe", 3, "--batch-size", 6]
    ran = run("edit", model, classes, *how, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert "12 images made, measured NFE 3 on average" in ran.out
    made = bytes_in(out)
    names = [f"{k}/{i}-{n}.png" for k, i in [("2", 0), ("2", 2), ("7", 1), ("7", 3)] for n in range(3)]
    assert sorted(made) == sorted(names)
    x = torch.cat([pixels_of(classes / k) for k in ("2", "7")]).repeat_interleave(3, 0)
    labels = [2] * 6 + [7] * 6
    expected = to_uint8(sdedit(ddim_ode.load(model), x, 0.5, nfe=3, labels=labels, batch_size=6).x)
    assert torch.equal(torch.cat([pixels_of(out / k) for k in ("2", "7")]), expected)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["labels"] == [2, 2, 7, 7]
    assert (manifest["made"], manifest["earlier"]) == (12, 0)

    (out / "7" / "3-1.png").unlink()  # as where a run was stopped
    (out / "manifest.json").unlink()
    record = json.loads(run("edit", model, classes, *how, "--out", out, "--json").out)
    assert (record["made"], record["earlier"]) == (6, 6)
    assert bytes_in(out) == made
    done = run("edit", model, classes, *how, "--out", out).out
    assert "0 images made, 12 were there already" in done
    assert f"{out} holds edits by other arguments; choose another --out" in fails(
        "edit", model, classes, *how[2:], "--strength", 0.4, "--out", out
    )


def test_a_budget_s_tolerance_is_that_of_one_run(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    """Even of a method whose samples share their steps, and where a last batch that is smaller is made again alone."""
    out, told = tmp_path / "out", {"strength": 0.5, "method": "adaptive_heun", "nfe": 14}
    how = [*(part for name, value in told.items() for part in (f"--{name}", value)), "--batch-size", 2]
    three = Path(shutil.copytree(images, tmp_path / "three"))
    (three / "3.png").unlink()
    line = ["edit", model, three, *how, "--per-image", 1, "--json", "--out", out]
    first, made = json.loads(run(*line).out), bytes_in(out)
    network, x = ddim_ode.load(model), pixels_of(three)
    one = sdedit(network, x, **told, batch_size=2)
    assert first["tol"] == one.tol != sdedit(network, x[2:], **told, seeds=[2]).tol
    (out / "2-0.png").unlink()
    again = json.loads(run(*line).out)
    assert (again["made"], again["tol"], bytes_in(out)) == (1, one.tol, made)


def test_folders_without_classes_and_with_names(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "flat"
    assert run("edit", model, images, "--sigma", 0.3, "--per-image", 1, "--nfe", 2, "--out", out).code == 0
    assert json.loads((out / "manifest.json").read_text())["labels"] is None
    two, folder = make_model(tmp_path / "two", num_classes=2), tmp_path / "named"
    for i, name in enumerate(("trouser", "boot")):
        (folder / name).mkdir(parents=True)
        shutil.copy(images / f"{i}.png", folder / name)
    out = tmp_path / "out"
    assert run("edit", two, folder, "--sigma", 0.3, "--per-image", 1, "--nfe", 2, "--out", out).code == 0
    assert json.loads((out / "manifest.json").read_text())["labels"] == [0, 1]  # boot, trouser


def test_folders_that_are_no_classes_are_one_line(fails: Any, model: Path, classes: Path, tmp_path: Path) -> None:
    how = ["--strength", 0.5, "--per-image", 2, "--out", tmp_path / "out"]
    shutil.copy(classes / "2" / "0.png", classes / "0.png")
    assert "0.png is in no class, and others are" in fails("edit", model, classes, *how)
    (classes / "0.png").rename(classes / "2" / "0.bmp")
    assert "two images have this name" in fails("edit", model, classes, *how)
    (classes / "2" / "0.bmp").unlink()
    (classes / "2").rename(classes / "boot")
    assert "holds 2 folders, and the model has 10 classes" in fails("edit", model, classes, *how)


# --- mistakes


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--strength", 1.0], "strength=1.0 is no share of the way to noise; give a number between 0 and 1"),
        (["--strengths", "0.2,0"], "strength=0.0 is no share"),
        (["--strengths", "a,b"], "is not a list of numbers"),
        (["--strengths", "0.2,0.5,0.20"], "--strengths names 0.2 more than once; give each once"),
        (["--sigma", 1e6], "sigma=1000000.0 is no noise to begin with"),
        ([], "give one of --strength, --sigma and --strengths, or --to-label to translate"),
        (["--strength", 0.5, "--sigma", 1], "give one of --strength, --sigma and --strengths"),
        (["--strength", 0.5, "--to-label", 3], "--strength and --to-label contradict each other"),
        (["--strength", 0.5, "--window", "1:2"], "--window and --to-label need each other"),
        (["--strength", 0.5, "--label", 12], "label 12 does not exist; this model has labels 0..9"),
        (["--strength", 0.5, "--seeds", "0-2"], "n=4 contradicts seeds='0-2'"),
        (["--to-label", 12], "label 12 does not exist; this model has labels 0..9"),
        (["--to-label", "1,2"], "names 2 classes; give 1, or one each of 4"),
        (["--to-label", 1, "--window", "2:1"], "the window 2:1 is empty"),
        (["--to-label", 1, "--window", "5"], "the window '5' is not LOW:HIGH; write it as in 0.5:50"),
        (["--to-label", 1, "--eta", 1], "--eta and --to-label contradict each other"),
        (["--to-label", 1, "--method", "sde_heun"], "draws noise on its way"),
        (["--strength", 0.5, "--per-image", 2, "--overwrite"], "--overwrite and --per-image contradict each other"),
        (["--strength", 0.5, "--per-image", 0], "per_image=0 must be a whole number >= 1"),
        (["--strength", 0.5, "--grid", "auto"], "an edit's grid begins at its sigma"),
    ],
)
def test_mistakes_are_one_line(
    fails: Any, model: Path, images: Path, tmp_path: Path, options: list[object], line: str
) -> None:
    assert line in fails("edit", model, images, *options, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_augmentation_needs_a_folder(fails: Any, model: Path, images: Path, tmp_path: Path) -> None:
    how = ["--strength", 0.5, "--per-image", 2, "--out", tmp_path / "out"]
    assert "--per-image needs IMAGES to be one folder" in fails("edit", model, *how)
    assert "no such folder" in fails("edit", model, images / "0.png", *how)
