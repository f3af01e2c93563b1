"""The commands from images to latents and back: what they write and print, and every mistake in one line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.data import bundled_images, to_float, to_uint8
from ddim_ode.models.unet import UNet
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.solvers import METHODS
from tests.helpers.command_line import Command, make_model, pixels_of


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the images of the package fit."""
    return make_model(tmp_path_factory.mktemp("fashion") / "model", shape=(1, 28, 28))


# --- encode and decode


def test_what_one_process_encodes_another_decodes_to_the_same_bits(
    run: Command, model: Path, images: Path, tmp_path: Path
) -> None:
    options = ["--nfe", "5", "--label", "3,1,4,1", "--guidance", "2", "--out", tmp_path / "z"]
    subprocess.run([sys.executable, "-m", "ddim_ode", "encode", model, images, *options], check=True)
    assert run("decode", model, tmp_path / "z", "--out", tmp_path / "out", "--images").code == 0
    tensors = load_file(tmp_path / "out" / "samples.safetensors")
    x = pixels_of(images)
    assert torch.equal(tensors["x"], to_float(x))
    assert tensors["labels"].tolist() == [3, 1, 4, 1]
    assert torch.equal(pixels_of(tmp_path / "out" / "images"), x)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["command"] == "decode"
    assert (manifest["latent"]["method"], manifest["latent"]["guidance"]) == ("exact_heun", 2)
    assert manifest["arguments"]["latent"] == str(tmp_path / "z")
    assert manifest["sigmas"] == tensors["sigmas"].tolist()
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert files == ["grid.png", "images", "manifest.json", "samples.safetensors"]


@pytest.mark.parametrize("options", [["--dtype", "float64"], ["--deterministic"], ["--label", "3"]])
def test_encode_writes_what_the_library_does(
    run: Command, model: Path, images: Path, tmp_path: Path, options: list[object]
) -> None:
    file = tmp_path / "deep" / "z.safetensors"
    ran = run("encode", model, images / "2.png", images, "--method", "ddim", "--nfe", 3, *options, "--out", file)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{file}\n5 images encoded by ddim, measured NFE 3")
    dtype = torch.float64 if "float64" in options else torch.float32
    how = {"batch_size": 1 if "--deterministic" in options else None, "labels": 3 if "--label" in options else None}
    network, x = ddim_ode.load(model).to(dtype=dtype), pixels_of(images)[[2, 0, 1, 2, 3]]
    expected, found = ddim_ode.encode(network, x, "ddim", 3, dtype=dtype, **how), ddim_ode.Latent.load(file)
    tensors = {"states": (), "sigmas": None, "nfe": None, "converged": None, "labels": None}
    assert replace(found, **tensors) == replace(expected, **tensors)
    assert torch.equal(found.states[0], expected.states[0])
    assert run("decode", model, file, "--out", tmp_path / "out").code == 0
    decoded = load_file(tmp_path / "out" / "samples.safetensors")["x"]
    assert torch.equal(decoded, ddim_ode.decode(network, expected).x)


def test_images_of_the_package_come_in_turn_with_their_labels(run: Command, fashion: Path, tmp_path: Path) -> None:
    def encode(*options: object) -> dict:
        return json.loads(run("encode", fashion, "--nfe", 2, "--json", "--overwrite", "--out", file, *options).out)

    file = tmp_path / "z"
    record = encode()
    assert record["labels"] == [i % 10 for i in range(16)]
    assert record["nfe"]["max"] == 2
    decoded = json.loads(run("decode", fashion, file, "--json", "--out", tmp_path / "out").out)
    x, labels = bundled_images()
    shown = to_uint8(load_file(decoded["samples"])["x"])
    assert [int((x == image).flatten(1).all(1).nonzero()) for image in shown][:2] == [19, 2]
    assert labels[[19, 2]].tolist() == [0, 1]
    assert encode("-n", 12, "--label", "none")["labels"] is None
    assert encode("-n", 2, "--label", "7")["labels"] == [7, 7]
    make_model(tmp_path / "model", num_classes=3, shape=(1, 28, 28))
    assert (
        json.loads(run("encode", tmp_path / "model", "-n", 1, "--json", "--out", tmp_path / "y").out)["labels"] is None
    )


def test_images_that_do_not_fit_are_resized_if_asked(run: Command, fails, model: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 9)).save(tmp_path / "tall.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    colour = make_model(tmp_path / "model", shape=(3, 8, 8))
    for network, file, words in [
        (model, "tall.png", "tall.png: found 8 x 9 pixels of mode L, expected 8 x 8 of L or 1 (grey); --resize"),
        (model, "rgb.png", "rgb.png: found 8 x 8 pixels of mode RGB, expected 8 x 8 of L or 1 (grey); --resize"),
        (colour, "tall.png", "tall.png: found 8 x 9 pixels of mode L, expected 8 x 8 of RGB (RGB); --resize"),
    ]:
        arguments = ["encode", network, tmp_path / file, "--nfe", 2, "--out", tmp_path / "z", "--overwrite"]
        assert words in fails(*arguments)
        assert run(*arguments, "--resize").code == 0
    out = tmp_path / "out"
    assert run("reconstruct", colour, tmp_path / "rgb.png", "--method", "ddim", "--nfe", 1, "--out", out).code == 0


# --- interpolate


@pytest.mark.parametrize("seeds", ["0,1", "3-6"])
def test_interpolate_between_seeds(run: Command, model: Path, tmp_path: Path, seeds: str) -> None:
    out = tmp_path / "out"
    ran = run("interpolate", model, "--seeds", seeds, "--frames", 3, "--nfe", 4, "--label", 2, "--out", out, "--images")
    assert (ran.code, ran.err) == (0, "")
    ends = seeded_noise((0, 1) if seeds == "0,1" else (3, 4, 5, 6), (1, 8, 8))
    expected = ddim_ode.interpolate(ddim_ode.load(model), ends, 3, method="adams3", nfe=4, labels=2)
    assert torch.equal(load_file(out / "samples.safetensors")["x"], expected.x)
    assert len(list((out / "images").iterdir())) == len(expected.x)
    with Image.open(out / "grid.png") as grid:
        assert grid.width == 3 * (16 + 2) + 2
    assert json.loads((out / "manifest.json").read_text())["arguments"]["seeds"] == seeds


@pytest.mark.parametrize("how", ["--method adams2 --nfe 8", "--method adaptive --tol 0.05"])
def test_interpolate_between_images(run: Command, model: Path, images: Path, tmp_path: Path, how: str) -> None:
    common = ["interpolate", model, "--frames", 3, *how.split(), "--overwrite", "--out", tmp_path / "out"]
    for ends in ([images / "1.png", images / "0.png"], [images]):
        record = json.loads(run(*common, *ends, "--json").out)
        x = load_file(record["samples"])["x"]
        corners, which = ([0, -1], [1, 0]) if len(ends) == 2 else ([0, 2, 6, 8], [0, 1, 2, 3])
        errors = (x[corners] - to_float(pixels_of(images)[which])).flatten(1).square().mean(1).sqrt()
        assert record["ends_off"] == pytest.approx(errors.tolist())
        assert record["count"] == len(x) == (3 if len(ends) == 2 else 9)
    assert "ends are off by" in run(*common, images).out


# --- mistakes

ENCODE, DECODE, BETWEEN = (
    "encode MODEL IMAGES --out OUT",
    "decode MODEL LATENT --out OUT",
    "interpolate MODEL --out OUT",
)
MISTAKES = [
    ("encode MODEL none.png --out OUT", "none.png: no such file or folder"),
    ("encode MODEL CUT --out OUT", "found no readable image"),
    (f"{ENCODE} --method leapfog", "unknown method 'leapfog'; did you mean 'leapfrog'?"),
    (f"{ENCODE} --method noisy", "noisy draws noise on its way, so nothing can be encoded"),
    (f"{ENCODE} --tol 0.1", "tol=0.1 is for adaptive methods"),
    (f"{ENCODE} --method adaptive --nfe 9 --tol 0.1", "contradict each other"),
    (f"{ENCODE} --grid 10,1,0", "the grid ends at sigma=0"),
    (f"{ENCODE} --label 1,2", "label='1,2' names 2 classes; give 1, or one each of 4"),
    (f"{ENCODE} --label each", "label='each': 'each' is no class"),
    (f"{ENCODE} --label 10", "label 10 does not exist; this model has labels 0..9"),
    (f"{ENCODE} --guidance 2", "no labels to guide to"),
    (f"{ENCODE} -n 0", "n=0 must be a whole number >= 1"),
    (f"{ENCODE} -n 5", "n=5 is too many: there are 4 images"),
    ("encode MODEL IMAGES --out LATENT", "exists; choose another --out, or replace it with --overwrite"),
    ("encode MODEL IMAGES --out IMAGES --overwrite", "is a folder; choose another --out"),
    ("encode MODEL IMAGES --out LATENT/z", "is a file; choose another --out"),
    ("decode MODEL none --out OUT", "none cannot be read: No such file or directory"),
    ("decode MODEL CUT --out OUT", "is damaged: its digest is another"),
    ("decode MODEL MODEL/model.safetensors --out OUT", "is not a latent of this version"),
    ("decode OTHER LATENT --out OUT", "the latent was encoded by a model with digest"),
    ("decode MODEL LATENT --out IMAGES --overwrite", "is not empty and not a run of this program"),
    ("reconstruct MODEL IMAGES --method leapfrog,ddmi", "unknown method 'ddmi'; did you mean 'ddim'?"),
    ("reconstruct MODEL IMAGES --method ddim,ddim", "names ddim twice"),
    ("reconstruct MODEL IMAGES --method ddim,rk4 --tol 0.1", "tol=0.1 is for adaptive methods; ddim,rk4 takes nfe"),
    ("reconstruct MODEL IMAGES --method adaptive --nfe 9", "nfe=9 is for methods on a grid; adaptive takes tol"),
    ("reconstruct MODEL IMAGES --method heun3,rk4 --nfe 2 --out OUT", "nfe=2 is too small"),
    ("reconstruct MODEL", "no IMAGES given, and the package has none of shape (1, 8, 8)"),
    (BETWEEN, "give --seeds, such as 0,1, or IMAGES to go between"),
    (f"{BETWEEN} IMAGES --seeds 0,1", "--seeds and IMAGES contradict each other"),
    (f"{BETWEEN} --seeds 0-2", "there is nothing between 3 of them; give 2 for a row of frames, or 4"),
    (f"{BETWEEN} --seeds 0,1 --frames 1", "Invalid value for '--frames'"),
    (f"{BETWEEN} --seeds 0,1 --label 1,2", "label='1,2' names 2 classes; give 1"),
    ("likelihood MODEL IMAGES --method leapfrog", "leapfrog cannot carry a density; use one of"),
    ("likelihood MODEL IMAGES --exact --probes 3", "the exact trace has none"),
    ("likelihood MODEL IMAGES --out LATENT", "exists; choose another --out"),
    ("sample --manifest RECORD --out OUT", "is of `ddim-ode decode`; give the manifest.json of a sample run"),
]


@pytest.fixture(scope="module")
def places(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("places")
    other, latent, record = make_model(folder / "other", seed=1), folder / "latent", folder / "record.json"
    ddim_ode.encode(ddim_ode.load(model), pixels_of(images), nfe=2).save(latent)
    (folder / "cut").write_bytes(latent.read_bytes()[:-9])
    record.write_text(json.dumps({"command": "decode"}))
    names = {"MODEL": model, "IMAGES": images, "OTHER": other, "LATENT": latent, "CUT": folder / "cut"}
    return names | {"RECORD": record}


@pytest.mark.parametrize(("line", "words"), MISTAKES)
def test_mistakes_are_one_line(fails, places, tmp_path, monkeypatch, line: str, words: str) -> None:
    monkeypatch.setattr(UNet, "forward", None)  # it must not be evaluated
    monkeypatch.setitem(METHODS, "noisy", METHODS["sde_euler"])
    for name, place in {**places, "OUT": tmp_path / "out"}.items():
        line = line.replace(name, str(place))
    assert words in fails(*line.split())
    assert not any(tmp_path.iterdir())
