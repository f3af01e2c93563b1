"""There and back between our folders and those of diffusers: the same weights, to the bit, and the same network."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, UNet2DModel
from safetensors.torch import load_file
from yaml import safe_dump

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.checkpoints.convert import convert
from ddim_ode.models.config import ModelConfig
from ddim_ode.support.outputs import OutputError
from tests.helpers.assertions import one_line
from tests.helpers.command_line import make_model
from tests.helpers.foreign import LAYOUTS, OTHERS, SMALL, pipeline, relative, unet2d
from tests.helpers.networks import tiny_unet
from tests.helpers.original_unet import ORIGINAL, original
from tests.helpers.tensors import normal

CHOICES = {
    "as trained here": {},
    "no classes": {"num_classes": 0},
    "no null class": {"null_class": False},
    "every choice": {
        "shape": (2, 8, 16),
        "attention": (0,),
        "mid_attention": False,
        "head_channels": 4,
        "time_order": "cos_sin",
        "time_shift": 0.0,
        "norm_eps": 1e-5,
        "downsample_padding": "symmetric",
        "scale_shift": True,
        "dropout": 0.1,
    },
    "ResBlocks that resample": {"resample": "block", "channels": (8, 16, 16), "attention": (1,)},
}


def ours(folder: Path, dtype: torch.dtype = torch.float32, schedule: object = None, **choices: object) -> ModelConfig:
    net = tiny_unet(**choices)
    values = {"network": net.config, "predicts": "velocity", "schedule": schedule or {"name": "cosine"}}
    config = ModelConfig.model_validate(values)
    checkpoints.save(folder, config, net.state_dict(), dtype)
    return config


def same(a: ddim_ode.Denoiser, b: ddim_ode.Denoiser) -> bool:
    one, other = a.net.state_dict(), b.net.state_dict()
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_ours_there_and_back(tmp_path, choices, dtype):
    config = ours(tmp_path / "a", dtype, **CHOICES[choices])
    assert convert(str(tmp_path / "a"), tmp_path / "b").kind == "diffusers"
    weights = load_file(tmp_path / "b/unet/diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {dtype}
    done = convert(str(tmp_path / "b"), tmp_path / "c")
    assert (done.kind, done.dtype) == ("ddim_ode", str(dtype).removeprefix("torch."))
    for name in ("config.yaml", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    assert ddim_ode.load(tmp_path / "c").provenance.config == config


@pytest.mark.parametrize("choices", CHOICES)
def test_diffusers_runs_what_we_write(tmp_path, choices):
    ours(tmp_path / "a", **CHOICES[choices])
    convert(str(tmp_path / "a"), tmp_path / "b")
    model = ddim_ode.load(tmp_path / "a")
    unet = DDIMPipeline.from_pretrained(tmp_path / "b").unet.eval().requires_grad_(False)
    x, t = normal(2, *model.shape, seed=0, dtype=torch.float32), torch.tensor([5.0, 900.0])
    every = range(model.num_classes + model.null_class) if model.num_classes else [None]
    for label in every:
        labels = [torch.full((2,), label)] if label is not None else []
        assert relative(unet(x, t, *labels).sample, model.net(x, t, *labels)) < 1e-5


def test_diffusers_reads_half_precision(tmp_path):
    ours(tmp_path / "a", torch.float16)
    convert(str(tmp_path / "a"), tmp_path / "b")
    unet = UNet2DModel.from_pretrained(tmp_path / "b/unet", torch_dtype=torch.float32)
    assert unet.dtype == torch.float32
    assert torch.equal(unet.conv_in.weight, ddim_ode.load(tmp_path / "a").net.conv_in.weight)


@pytest.mark.parametrize("layout", ["class-conditional", "learned variance", "scale-shift, ResBlocks that resample"])
def test_theirs_there_and_back(tmp_path, layout):
    pipeline(tmp_path / "a", unet2d(LAYOUTS[layout]), beta_schedule="scaled_linear", clip_sample=True)
    done = convert(str(tmp_path / "a"), tmp_path / "b")
    assert "clip_sample" in done.dropped
    convert(str(tmp_path / "b"), tmp_path / "c")
    first, last = (ddim_ode.load(tmp_path / name) for name in "ac")
    assert same(first, last)
    assert first.provenance.config == last.provenance.config == ddim_ode.load(tmp_path / "b").provenance.config
    theirs = [load_file(tmp_path / name / "unet/diffusion_pytorch_model.safetensors") for name in "ac"]
    if layout != "learned variance":
        assert theirs[0].keys() == theirs[1].keys()
        assert all(torch.equal(theirs[0][name], theirs[1][name]) for name in theirs[0])


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "linear", "beta_end": 0.03, "timesteps": 500},
        {"name": "scaled_linear"},
        {"name": "cosine", "timesteps": 100, "zero_snr": True},
        {"name": "betas", "timesteps": 3, "betas": (0.1, 0.2, 0.3)},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_schedules_are_kept(tmp_path, schedule):
    config = ours(tmp_path / "a", schedule=schedule, num_classes=0)
    convert(str(tmp_path / "a"), tmp_path / "b")
    assert ddim_ode.load(tmp_path / "b").provenance.config == config
    theirs = DDIMPipeline.from_pretrained(tmp_path / "b").scheduler.alphas_cumprod.double()
    table = torch.tensor(config.schedule.path().alphas_cumprod)
    torch.testing.assert_close(table, theirs[: len(table)], rtol=1e-3, atol=1e-9)


def test_a_checkpoint_of_the_ddim_code_becomes_either(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.yml").write_text(safe_dump(ORIGINAL))
    torch.save(original().state_dict(), folder / "ckpt.pth")
    assert convert(str(folder), tmp_path / "b").kind == "ddim_ode"
    assert convert(str(folder), tmp_path / "c", "diffusers").kind == "diffusers"
    assert same(ddim_ode.load(tmp_path / "b"), ddim_ode.load(folder))
    assert same(ddim_ode.load(tmp_path / "c"), ddim_ode.load(folder))


def test_what_cannot_be_expressed_is_refused(tmp_path):
    ours(tmp_path / "patch", patch=2)
    text = one_line(CheckpointError, convert, str(tmp_path / "patch"), tmp_path / "out")
    assert "patch=2: this network works on patches of pixels, which a UNet2DModel of diffusers cannot" in text
    config = ours(tmp_path / "flow")
    checkpoints.save(tmp_path / "flow", config.model_copy(update={"predicts": "flow"}), tiny_unet().state_dict())
    text = one_line(CheckpointError, convert, str(tmp_path / "flow"), tmp_path / "out")
    assert "predicts='flow' has no prediction_type of diffusers' DDIMScheduler" in text
    pipeline(tmp_path / "other", unet2d(OTHERS["SkipDownBlock2D"]))
    text = one_line(CheckpointError, convert, str(tmp_path / "other"), tmp_path / "out")
    assert "is run by diffusers, not by our UNet" in text
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path):
    make_model(tmp_path / "a")
    text = one_line(OutputError, convert, str(tmp_path / "a"), tmp_path / "a")
    assert text == f"{tmp_path / 'a'} is not empty; choose another folder to write"
    (tmp_path / "file").touch()
    assert "is a file" in one_line(OutputError, convert, str(tmp_path / "a"), tmp_path / "file")


@pytest.mark.parametrize("out", ["{tmp}/a", "/dev/null/b", "/proc/b", "{tmp}/" + "b" * 300])
def test_an_output_that_cannot_be_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, out):
    make_model(tmp_path / "a")
    monkeypatch.setattr("ddim_ode.checkpoints.convert.load", None)
    out = out.format(tmp=tmp_path)
    assert one_line(OutputError, convert, tmp_path / "a", out).startswith(out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]


def test_what_fails_leaves_nothing(tmp_path):
    make_model(tmp_path / "a")
    (tmp_path / "a/model.safetensors").write_bytes(b"")
    one_line(CheckpointError, convert, tmp_path / "a", tmp_path / "b/c")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("to", ["ddim_ode", "diffusers"])
def test_a_bit_of_the_weights_that_flips_is_found(tmp_path, to):
    make_model(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", to)
    (file,) = (tmp_path / "b").rglob("*.safetensors")
    data = file.read_bytes()
    for place in (len(data) // 2, len(data) - 1):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert f"{file} is damaged: its digest is another" in one_line(CheckpointError, ddim_ode.load, tmp_path / "b")


def test_the_command(tmp_path, run, fails):
    make_model(tmp_path / "a")
    code, out, _ = run("convert", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "a folder of diffusers, weights in float16 as they were stored (averaged: not stated)" in out
    pipeline(tmp_path / "c", unet2d(SMALL | LAYOUTS["learned variance"]))
    facts = json.loads(run("convert", tmp_path / "c", tmp_path / "d", "--json").out)
    assert facts["dropped"] == ["clip_sample", "learned variance"]
    assert (facts["kind"], facts["dtype"], facts["out"]) == ("ddim_ode", "float32", str(tmp_path / "d"))
    assert run("convert", tmp_path / "c", tmp_path / "e", "--to", "diffusers").code == 0
    assert ddim_ode.load(tmp_path / "e").provenance.ignored == ()
    assert "is not empty" in fails("convert", tmp_path / "a", tmp_path / "b")


def test_the_command_with_a_configuration_elsewhere(tmp_path, run, fails):
    raw, averages = original(seed=1), original(seed=2)
    found = [raw.state_dict(), {}, 3, 1000, averages.state_dict()]
    (tmp_path / "run").mkdir()
    torch.save(found, tmp_path / "run/ckpt.pth")
    (tmp_path / "elsewhere.yml").write_text(safe_dump(ORIGINAL))
    assert "--config of info and convert" in fails("info", tmp_path / "run")
    assert "leave ema=False (--no-ema) out" in fails("info", "fashion", "--no-ema")
    config = ("--config", tmp_path / "elsewhere.yml")
    for option, ema in ([], "yes"), (["--no-ema"], "no"):
        assert json.loads(run("info", tmp_path / "run", *config, *option, "--json").out)["ema"] == ema
        out = tmp_path / ema
        assert f"(averaged: {ema})" in run("convert", tmp_path / "run", out, *config, *option).out
        assert same(ddim_ode.load(out), ddim_ode.load(tmp_path / "run", tmp_path / "elsewhere.yml", ema == "yes"))
