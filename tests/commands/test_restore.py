"""`ddim-ode restore`: what it writes and prints, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.commands.shared.measurements import BYTE, parse_operator
from ddim_ode.data import to_float, to_uint8
from ddim_ode.inverse import Blur, BoxDownsampling, Grey, Mask, restore
from ddim_ode.metrics.pairs import psnr, ssim
from tests.helpers.command_line import Command, make_model, pixels_of
from tests.helpers.tuned import model_with_tables

MASK = Mask.random((8, 8), 0.5)


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    file = tmp_path / "mask.png"
    Image.fromarray(MASK.known[0].numpy().astype(np.uint8) * 255).save(file)
    return file


def test_what_it_writes(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("restore", model, images, "--operator", "down:2", "--noise", 0.1, "--label", 3, "--nfe", 8, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == str(out / "restored.png")
    assert lines[1].startswith("4 images restored by mmps with dpmpp_2m, measured NFE 8, ")
    assert lines[2].startswith("residual ")
    assert lines[3].startswith("PSNR ")
    names = sorted(file.name for file in out.iterdir())
    assert names == ["grid.png", "manifest.json", "restored.png", "samples.safetensors"]
    stored = load_file(out / "samples.safetensors")
    truth = to_float(pixels_of(images))
    assert torch.equal(stored["truth"], truth)
    operator = BoxDownsampling(2)
    noise = stored["y"] - operator.apply(truth)
    assert 0.05 < float(noise.std()) < 0.15
    how = {"labels": 3, "noise_std": 0.1, "nfe": 8}
    expected = restore(ddim_ode.load(model), stored["y"], operator, **how)
    assert torch.equal(stored["x"], expected.x)
    assert torch.equal(stored["residual"], expected.residual)
    record = json.loads((out / "manifest.json").read_text())
    assert record["command"] == "restore"
    assert record["arguments"]["operator"] == "down:2"
    assert record["each"]["psnr"] == psnr(expected.x.clamp(-1, 1), truth).tolist()
    assert record["ssim"] == pytest.approx(float(ssim(expected.x.clamp(-1, 1), truth).mean()))
    with Image.open(out / "restored.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_one_json_object(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    common = ["restore", model, images, "-n", 2, "--operator", "mask:half", "--method", "ddnm", "--solver", "adams3"]
    record = json.loads(run(*common, "--nfe", 5, "--seeds", "7,3", "--out", tmp_path / "a", "--images", "--json").out)
    assert (record["count"], record["nfe"]["max"], record["residual"], record["noise_std"]) == (2, 5, 0, 0)
    y, network = to_float(pixels_of(images)[:2]), ddim_ode.load(model)
    expected = restore(network, y, Mask.half((8, 8)), method="ddnm", solver="adams3", nfe=5, seeds=[7, 3])
    assert record["psnr"] == pytest.approx(float(psnr(expected.x.clamp(-1, 1), y).mean()))
    assert torch.equal(pixels_of(tmp_path / "a" / "images"), to_uint8(expected.x))
    assert torch.equal(pixels_of(tmp_path / "a" / "images")[..., :4], pixels_of(images)[:2, ..., :4])
    again = json.loads(run(*common, "--nfe", 5, "--seeds", "7,3", "--out", tmp_path / "b", "--json").out)
    assert again["each"] == record["each"]


def test_measurements_from_files(run: Command, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    common = ["restore", model, folder, "--measured", "--operator", "down:2", "--nfe", 6]
    record = json.loads(run(*common, "--out", tmp_path / "out", "--json").out)
    assert record["noise_std"] == BYTE
    assert "psnr" not in record
    y = to_float(torch.from_numpy(pixels)[:, None])
    expected = restore(ddim_ode.load(model), y, BoxDownsampling(2), nfe=6, noise_std=BYTE)
    assert torch.equal(load_file(tmp_path / "out" / "samples.safetensors")["x"], expected.x)
    shown = run(*common, "--out", tmp_path / "again").out
    assert "2 measurements restored by mmps" in shown
    assert "PSNR" not in shown


def test_a_mask_from_a_file(run: Command, model: Path, images: Path, tmp_path: Path, mask_file: Path) -> None:
    common = ["restore", model, images, "--measured", "--operator", mask_file, "--method", "ddnm", "--nfe", 9]
    ran = run(*common, "--out", tmp_path / "out", "--images", "--json")
    assert ran.err == ""
    record = json.loads(ran.out)
    assert (record["noise_std"], record["residual"]) == (0, 0)
    found = pixels_of(tmp_path / "out" / "images")
    assert torch.equal(found[MASK.known.expand_as(found)], pixels_of(images)[MASK.known.expand_as(found)])
    assert not torch.equal(found, pixels_of(images))


def test_operators_in_words(mask_file: Path) -> None:
    shape = (3, 8, 8)
    assert torch.equal(parse_operator("mask:half", shape).known, Mask.half((8, 8)).known)
    assert torch.equal(parse_operator("mask:random:0.7", shape).known, Mask.random((8, 8), 0.7).known)
    assert torch.equal(parse_operator("mask:box:4", shape).known, Mask.box((8, 8), 4).known)
    assert torch.equal(parse_operator(str(mask_file), shape).known, MASK.known)
    assert parse_operator("down:4", shape) == BoxDownsampling(4)
    assert torch.equal(parse_operator("blur:1.5", shape).kernel, Blur.gaussian(1.5).kernel)
    assert parse_operator("grey", shape) == Grey()


def test_colour_becomes_grey_and_comes_back(run: Command, tmp_path: Path) -> None:
    model = make_model(tmp_path / "colour", shape=(3, 8, 8))
    picture = tmp_path / "colour.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(picture)
    ran = run(
        "restore",
        model,
        picture,
        "--operator",
        "grey",
        "--nfe",
        4,
        "--dtype",
        "float64",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert ran.code == 0
    assert json.loads(ran.out)["residual"] < 1e-9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--operator", "mask"], "operator='mask' is none that is known; give one of mask:half, mask:random:0.7"),
        (["--operator", "mask:half:3"], "operator='mask:half:3' is none"),
        (["--operator", "down:two"], "operator='down:two' is none"),
        (["--operator", "down:3"], "factor=3; give a divisor"),
        (["--operator", "grey"], "1 channels have no grey"),
        (["--operator", "mask:random:2"], "missing=2.0"),
        (["--operator", "mask:box:8"], "leaves nothing"),
        (["--operator", "none.png"], "none.png: no such file"),
        (["--operator", "down:2", "--noise", "-1"], "noise_std=-1.0"),
        (["--operator", "down:2", "--method", "repaint"], "BoxDownsampling has none; use method='mmps'"),
        (["--operator", "down:2", "--measured"], "expected 4 x 4"),
        (["--operator", "down:2", "--measured"], "give files of what this operator measures"),
        (["--operator", "mask:half", "--measured", "-n", "5"], "n=5 is too many: there are 4 images"),
        (["--operator", "mask:half", "--measured", "-n", "0"], "n=0 must be a whole number >= 1"),
        (["--operator", "mask:half", "--measured", "-n", "-1"], "n=-1 must be a whole number >= 1"),
        (["--operator", "down:2", "--measured", "--resize"], "leave --resize out"),
        (["--operator", "down:2", "--label", "11"], "label 11 does not exist"),
        (["--operator", "down:2", "--solver", "magic"], "unknown method 'magic'"),
        (["--operator", "down:2", "--force"], "--force lets a tuned method run on another model, and none was given"),
        (["--operator", "down:2", "--solver", "tuned"], "this model has no tuned.json beside it"),
        (["--operator", "down:2", "--guidance-range", "1:2"], "a guidance range does nothing with guidance=1"),
        (["--operator", "down:2", "--guidance", "2", "--guidance-range", "1"], "is not LOW:HIGH"),
        (["--operator", "mask:half", "--method", "repaint", "--nfe", "3"], "two intervals cost 5; use nfe >= 5"),
        (["--operator", "down:2", "--nfe", "1"], "nfe=1 is too small: one step costs 2"),
        (["--operator", "down:2", "--seeds", "0-7"], "seeds"),
    ],
)
def test_bad_input_is_one_line(
    fails: Callable[..., str], model: Path, images: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    assert words in fails("restore", model, images, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_size(fails: Callable[..., str], model: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.fromarray(np.full((9, 9), 255, dtype=np.uint8)).save(file)
    for more in ([], ["--resize"]):
        line = fails("restore", model, images, "--operator", file, *more, "--out", tmp_path / "out")
        assert "expected 8 x 8" in line
        assert "a mask is taken as it is" in line
        assert "makes it fit" not in line


def test_the_solver_tuned_to_the_model(run: Command, fails: Callable[..., str], images: Path, tmp_path: Path) -> None:
    """It was tuned without a measurement, and so it must be forced."""
    model = model_with_tables(tmp_path / "model")
    common = ["restore", model, images, "-n", 2, "--operator", "mask:half", "--method", "ddnm", "--label", 1]
    common += ["--solver", "tuned", "--nfe", 3, "--out", tmp_path / "out"]
    assert "the model is a Projected, and tuned methods" in fails(*common)
    record = json.loads(run(*common, "--force", "--json").out)
    assert record["nfe"]["max"] == 3


def test_guidance_in_a_range(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    common = ["restore", model, images, "-n", 2, "--operator", "mask:half", "--method", "ddnm", "--label", 1]
    how = ["--grid", "4,2,1,0", "--solver", "ddim", "--guidance", 2, "--guidance-range", "1.5:"]
    record = json.loads(run(*common, *how, "--out", tmp_path / "out", "--json").out)
    assert record["nfe"]["max"] == 5  # two, two, one


def test_measurements_must_be_given(fails: Callable[..., str], tmp_path: Path) -> None:
    line = fails("restore", "fashion", "--measured", "--operator", "down:2", "--out", tmp_path / "out")
    assert "--measured takes what was measured from files" in line


def test_repaint_of_the_package_s_images(run: Command, tmp_path: Path) -> None:
    common = ["restore", "fashion", "-n", 2, "--operator", "mask:half", "--method", "repaint", "--nfe", 5, "--json"]
    record = json.loads(run(*common, "--out", tmp_path / "out").out)
    assert (record["residual"], record["nfe"]["max"], record["labels"]) == (0, 5, [0, 1])
    assert record["images"] == ["test 19 (T-shirt/top)", "test 2 (Trouser)"]
