"""`ddim-ode sample` of a cascade and `ddim-ode upscale`: what they write, what they say, what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.cascade import FILE, Cascade
from ddim_ode.data import bundled_images, save_images, to_float
from ddim_ode.models.config import ModelConfig
from ddim_ode.planning.options import SolveOptions
from tests.helpers.command_line import Command, changed, make_model
from tests.helpers.networks import tiny_unet


def stage(folder: Path, **choices: object) -> Path:
    net = tiny_unet(**choices)
    values = {"network": net.config, "schedule": {"name": "cosine", "timesteps": 50}, "predicts": "velocity"}
    checkpoints.save(folder, ModelConfig.model_validate(values), net.state_dict())
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cascade of 4 x 4 and 8 x 8, of 3 classes, with noise in what is told."""
    folder = tmp_path_factory.mktemp("chain")
    stage(folder / "small", shape=(1, 4, 4))
    stage(folder / "large", condition={"image": (1, 4, 4), "noise": True})
    (folder / FILE).write_text("stages: [small, large]\naugmentation: [0.2]\n")
    return folder


@pytest.fixture(scope="module")
def fashion_sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that makes 28 x 28 of 14 x 14."""
    wanted = {"image": (1, 14, 14), "noise": True}
    return stage(tmp_path_factory.mktemp("large") / "model", shape=(1, 28, 28), condition=wanted, num_classes=10)


def test_sample_writes_what_the_library_draws(run: Command, chain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "sample", chain, "--stages", "ddim:3,adams3:5", "--seeds", "3,0,9", "--label", "each", "--images", "--out", out
    )
    assert (ran.code, ran.err) == (0, "")
    assert "measured NFE 3 + 5, as " in ran.out
    cascade = Cascade.load(chain)
    options = [SolveOptions(method="ddim", nfe=3), SolveOptions(method="adams3", nfe=5)]
    expected = cascade.sample(options, [3, 0, 9], labels=[0, 1, 2])
    tensors = load_file(out / "samples.safetensors")
    assert set(tensors) == {"x", "x1", "seeds", "labels", "nfe"}
    assert torch.equal(tensors["x"], expected.x)
    assert torch.equal(tensors["x1"], expected.stages[0].x)
    assert tensors["nfe"].tolist() == [[3, 5]] * 3
    made = ["grid.png", "images", "manifest.json", "samples.safetensors", "stages.png"]
    assert sorted(file.name for file in out.iterdir()) == made
    with Image.open(out / "stages.png") as sheet:
        assert sheet.size == (3 * (2 * 8 + 2) + 2, 2 * (2 * 8 + 2) + 2)


def test_a_manifest_recreates_the_samples(run: Command, chain: Path, tmp_path: Path) -> None:
    told = ["--stages", "ddim:4,adaptive:tol=0.05", "-n", 2]
    run("sample", chain, *told, "--augmentation", 0.4, "--out", tmp_path / "a")
    assert run("sample", "--manifest", tmp_path / "a/manifest.json", "--out", tmp_path / "b").code == 0
    assert (tmp_path / "a/samples.safetensors").read_bytes() == (tmp_path / "b/samples.safetensors").read_bytes()
    other = load_file(tmp_path / "a/samples.safetensors")["x"]
    run("sample", chain, *told, "--out", tmp_path / "c")
    assert not torch.allclose(load_file(tmp_path / "c/samples.safetensors")["x"], other, atol=1e-3)


def test_a_manifest_is_not_believed(run: Command, chain: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    run("sample", chain, "--nfe", 2, "-n", 1, "--out", tmp_path / "a")
    file = tmp_path / "a/manifest.json"
    text = file.read_text()
    file.write_text(text.replace('"seconds"', '"second"'))
    assert "not as it was written" in fails("sample", "--manifest", file, "--out", tmp_path / "b")
    file.write_text(text)
    models = json.loads(text)["models"]
    changed(file, models=[models[0] | {"sha256": "0" * 64}, models[1]])
    assert "put those back" in fails("sample", "--manifest", file, "--out", tmp_path / "b")


def test_sample_for_machines(run: Command, chain: Path, tmp_path: Path) -> None:
    record = json.loads(run("sample", chain, "--nfe", 3, "-n", 2, "--label", 1, "--json", "--out", tmp_path / "a").out)
    assert [stage["max"] for stage in record["nfe"]] == [3, 3]
    assert record["equivalents"] == pytest.approx(3 * sum(record["weights"]))
    assert Path(record["stages"]).is_file()
    assert load_file(record["samples"])["labels"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--grid", "karras"], "a cascade takes no --grid"),
        (["--stages", "ddim:3"], "stages='ddim:3' are 1, and this cascade has 2"),
        (["--stages", "ddim:3,ddim:x"], "'ddim:x' is neither METHOD:NFE nor METHOD:tol=TOL"),
        (["--stages", "ddim:3,nobody:4"], "nobody"),
        (["--stages", "ddim:3,ddim:4", "--nfe", "3"], "leave --nfe and --tol out"),
        (["--augmentation", "2"], "augmentation=2.0 must be a number from 0 to 1"),
        (["--augmentation", "0.1,0.2"], "1 stages are told an image"),
        (["--label", "7"], "label 7 does not exist"),
        (["--method", "adaptive", "--nfe", "20"], "for which there are no conditions; give tol"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], expected: str, chain: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    assert expected in fails("sample", chain, *options, "--out", tmp_path / "out")


def test_other_models_take_no_stages(tmp_path: Path, fails: Callable[..., str]) -> None:
    model = make_model(tmp_path / "model")
    line = fails("sample", model, "--stages", "ddim:3", "--out", tmp_path / "out")
    assert "only a cascade takes --stages" in line
    alone = stage(tmp_path / "alone", condition={"image": (1, 4, 4)})
    assert 'give conditions={"image": images}' in fails("sample", alone, "--out", tmp_path / "out")


def test_upscale_shrinks_and_compares_the_packages_images(run: Command, fashion_sized: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("upscale", fashion_sized, "-n", 3, "--nfe", 4, "--augmentation", 0.3, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert "3 Fashion-MNIST test images upscaled by ddim, measured NFE 4" in ran.out
    tensors = load_file(out / "samples.safetensors")
    pixels, classes = bundled_images()
    rows = [int((classes == k).nonzero()[0]) for k in range(3)]
    truth = to_float(pixels[rows])
    low = truth.unflatten(-1, (14, 2)).unflatten(-3, (14, 2)).mean((-3, -1))
    assert torch.allclose(tensors["low"], low, atol=1e-6)
    again = Cascade([ddim_ode.load(fashion_sized)], 0.3)
    expected = again.sample(SolveOptions(nfe=4), range(3), labels=[0, 1, 2], image=tensors["low"])
    assert torch.equal(tensors["x"], expected.x)
    manifest = json.loads((out / "manifest.json").read_text())
    error = (expected.x.clamp(-1, 1) - truth).square().flatten(1).mean(1) / 4
    assert manifest["psnr"] == pytest.approx(float((-10 * error.log10()).mean()), abs=1e-3)
    assert manifest["command"] == "upscale"
    with Image.open(out / "upscale.png") as sheet:
        assert sheet.size == (3 * (2 * 28 + 2) + 2, 3 * (2 * 28 + 2) + 2)


def test_upscale_takes_small_images_and_the_later_stages(run: Command, chain: Path, tmp_path: Path) -> None:
    low = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_images(low, tmp_path / "small")
    ran = run("upscale", chain, tmp_path / "small", "--label", "0,2", "--nfe", 3, "--json", "--out", tmp_path / "out")
    record = json.loads(ran.out)
    assert (record["count"], record["augmentation"]) == (2, [0.2])
    assert "psnr" not in record
    tensors = load_file(tmp_path / "out/samples.safetensors")
    assert tensors["x"].shape == (2, 1, 8, 8)
    assert tensors["labels"].tolist() == [0, 2]
    back = tensors["x"].unflatten(-1, (4, 2)).unflatten(-3, (4, 2)).mean((-3, -1))
    assert record["shrunk_again"] == pytest.approx(float((back - tensors["low"]).square().mean().sqrt()), rel=1e-4)


def test_upscale_refuses_labels_that_its_model_has_not(tmp_path: Path, fails: Callable[..., str]) -> None:
    save_images(torch.zeros(1, 1, 4, 4), tmp_path / "small")
    alone = stage(tmp_path / "alone", condition={"image": (1, 4, 4)}, num_classes=0)
    line = fails("upscale", alone, tmp_path / "small", "--label", 3, "--out", tmp_path / "out")
    assert "this model has no classes" in line


def test_upscale_promises_no_method_that_it_has_not(run: Command) -> None:
    assert "tuned" not in run("upscale", "--help").out


def test_wrong_images_are_one_line(chain: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    save_images(torch.zeros(1, 1, 8, 8), tmp_path / "large")
    wrong = fails("upscale", chain, tmp_path / "large", "--out", tmp_path / "out")
    assert "found 8 x 8 pixels of mode L, expected 4 x 4" in wrong
    assert "no IMAGES given" in fails("upscale", chain, "--out", tmp_path / "out")
    assert "is told no image" in fails("upscale", chain / "small", "--out", tmp_path / "out")
    assert "-n 1 or fewer" in fails(
        "upscale", chain, tmp_path / "large", "--shrink", "-n", 2, "--out", tmp_path / "out"
    )


def test_info_shows_the_stages_and_other_commands_say_what_it_is(run: Command, chain: Path, tmp_path: Path) -> None:
    ran = run("info", chain, "--json")
    small, large = json.loads(ran.out)["stages"]
    assert (small["shape"], small["told"], small["augmentation"]) == ([1, 4, 4], None, None)
    assert (large["shape"], large["told"], large["augmentation"]) == ([1, 8, 8], [1, 4, 4], 0.2)
    assert max(small["weight"], large["weight"]) == 1
    assert "1 x 8 x 8" in run("info", "fashion-cascade").out + run("info", chain).out
    for name in (chain, "fashion-cascade"):
        ran = run("encode", name, "--out", tmp_path / "z.safetensors")
        assert ran.code == 2
        assert "is a cascade of models; `ddim-ode sample`, `upscale` and Cascade.load take it" in ran.err
