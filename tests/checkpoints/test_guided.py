"""Weights of guided-diffusion against a network with its names, written after the published architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ddim_ode
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.checkpoints.convert import convert
from ddim_ode.checkpoints.guided import read_flags
from ddim_ode.models.unet import UNet
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.foreign import relative
from tests.helpers.guided_unet import FLAGS, guided, write_guided
from tests.helpers.tensors import normal

TIMES = torch.tensor([0.0, 37.0, 500.0, 999.0])
LABELS = torch.tensor([0, 999, 5, 417])

VARIANTS: dict[str, dict[str, Any]] = {
    "guided": {},
    "heads of equal width": {"num_head_channels": 16},
    "the new order of attention": {"use_new_attention_order": True},
    "improved-diffusion": {"resblock_updown": False, "class_cond": False, "attention_resolutions": "4"},
    "neither scale nor variance": {"use_scale_shift_norm": False, "learn_sigma": False, "num_res_blocks": 2},
    "attention in the middle": {"attention_resolutions": "1", "class_cond": False},
}

SMALL = {"class_cond": False, "channel_mult": "1", "attention_resolutions": "1"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_output_is_that_of_the_code(tmp_path, variant):
    changes = VARIANTS[variant]
    model = ddim_ode.load(write_guided(tmp_path, **changes))
    assert isinstance(model.net, UNet)
    reference, x = guided(FLAGS | changes), normal(len(TIMES), 3, 16, 16, seed=0, dtype=torch.float64)
    labels = [LABELS] if model.num_classes else []
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        given = (x.to(dtype), TIMES.to(dtype), *labels)
        expected = reference.to(dtype)(*given)[:, :3]
        assert expected.std() > 0.05
        assert relative(model.net.to(dtype)(*given), expected) < tolerance


def test_what_is_known_of_it(tmp_path):
    model = ddim_ode.load(write_guided(tmp_path, name="ema_0.9999_100000.pt"))
    assert (model.num_classes, model.null_class, model.predicts) == (1000, False, "noise")
    assert (model.provenance.kind, model.provenance.ema) == ("guided-diffusion code", "yes")
    assert model.provenance.ignored == ("learned variance",)
    assert model.path == ddim_ode.paths.DiscreteVP.linear()


@pytest.mark.parametrize("more", [{}, {"num_classes": 3}, {"NUM_CLASSES": 3}, {"num_classes": 3, "NUM_CLASSES": 3}])
def test_the_weights_say_how_many_classes_there_are(tmp_path, more):
    state = guided(FLAGS).state_dict()
    state["label_emb.weight"] = state["label_emb.weight"][:3]
    model = ddim_ode.load(write_guided(tmp_path, state=state, **more), check=False)
    assert (model.num_classes, model.null_class) == (3, False)
    assert torch.equal(model.net.state_dict()["class_embedding.weight"], state["label_emb.weight"])
    x, t, labels = normal(3, 3, 16, 16, seed=0, dtype=torch.float32), TIMES[:3], torch.arange(3)
    expected = guided(FLAGS)(x, t, labels)[:, :3]
    assert relative(model.net(x, t, labels), expected) < 1e-5


@pytest.mark.parametrize("more", [{"num_classes": 2}, {"NUM_CLASSES": 1000}, {"num_classes": 3, "NUM_CLASSES": 4}])
def test_flags_of_other_classes_than_the_weights_are_refused(tmp_path, more):
    state = guided(FLAGS).state_dict()
    state["label_emb.weight"] = state["label_emb.weight"][:3]
    text = one_line(ConfigError, ddim_ode.load, write_guided(tmp_path, state=state, **more))
    name, value = next(item for item in more.items() if item[1] != 3)
    assert f"{name}: {value}" in text
    assert "the rows of label_emb.weight: 3; they must be one number" in text


def test_a_safetensors_file_of_it(tmp_path):
    state = guided(FLAGS).state_dict()
    write_guided(tmp_path, state=state)
    (tmp_path / "model.pt").unlink()
    save_file(state, tmp_path / "ema.safetensors")
    for what in (tmp_path, tmp_path / "ema.safetensors"):
        model = ddim_ode.load(what, check=False)
        assert torch.equal(model.net.state_dict()["conv_in.weight"], state["input_blocks.0.0.weight"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 10**9),
        ("num_channels", 10**9),
        ("num_channels", 65_536),
        ("num_res_blocks", 10**9),
        ("num_heads", 10**30),
        ("num_head_channels", 10**30),
        ("num_classes", 10**12),
        ("NUM_CLASSES", 0),
        ("diffusion_steps", 10**10),
        ("diffusion_steps", 0),
        ("channel_mult", "1," * 10**5 + "1"),
        ("channel_mult", "1,1e308"),
        ("attention_resolutions", "16," * 10**5 + "8"),
        ("dropout", float("nan")),
    ],
)
def test_flags_that_no_network_has_are_refused_at_once(key, value):
    text = one_line(ConfigError, read_flags, FLAGS | {key: value}, Path("flags.yaml"))
    assert text.startswith("flags.yaml: ")
    assert len(text) <= 1000


def test_the_schedule_is_stretched_to_its_steps(tmp_path):
    model = ddim_ode.load(
        write_guided(tmp_path, diffusion_steps=250, rescale_timesteps=False, predict_xstart=True, **SMALL)
    )
    assert model.path == ddim_ode.paths.DiscreteVP.linear(250, 4e-4, 0.08)
    assert model.predicts == "data"
    cosine = ddim_ode.load(
        write_guided(tmp_path, diffusion_steps=4000, rescale_timesteps=False, noise_schedule="cosine", **SMALL)
    )
    assert cosine.path == ddim_ode.paths.DiscreteVP.cosine(4000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_mult": "0.5,1,1"}, "channel_mult: 0.5, ... cannot be had here; it must begin with 1"),
        ({"channel_mult": ""}, "image_size: 16 has no usual channel_mult; give one, as in 1,2,4"),
        ({"channel_mult": "1,x"}, "must be numbers with commas"),
        ({"channel_mult": "1,inf"}, "must be numbers with commas"),
        ({"num_heads_upsample": 4}, "num_heads_upsample: 4 cannot be had here; it must be num_heads"),
        ({"noise_schedule": "sqrt"}, "noise_schedule: sqrt cannot be had here; it must be linear or cosine"),
        ({"diffusion_steps": 4000}, "it must be 1000, or rescale_timesteps must be false"),
        ({"num_heads": 3}, "64 is not a multiple of heads=3"),
        ({"dropuot": 0.1}, "unknown key 'dropuot'; valid keys are image_size"),
    ],
)
def test_flags_that_cannot_be_had_are_named(tmp_path, changes, message):
    text = one_line(ConfigError, ddim_ode.load, write_guided(tmp_path, state={"x": torch.ones(1)}, **changes))
    assert text.startswith(f"{tmp_path / 'flags.yaml'}: ")
    assert message in text


def test_flags_of_another_network_are_found_out(tmp_path):
    state = guided(FLAGS).state_dict()
    text = one_line(CheckpointError, ddim_ode.load, write_guided(tmp_path, state=state, use_scale_shift_norm=False))
    assert "input_blocks.1.0.emb_layers.1.weight has shape (64, 128), where its configuration means (32, 128)" in text
    text = one_line(CheckpointError, ddim_ode.load, write_guided(tmp_path, state=state, class_cond=False))
    assert "label_emb.weight is unknown to the network" in text


def test_it_becomes_a_folder_of_ours_and_where_heads_allow_of_diffusers(tmp_path):
    (tmp_path / "a").mkdir()
    write_guided(tmp_path / "a")
    convert(str(tmp_path / "a"), tmp_path / "b")
    first, second = (ddim_ode.load(tmp_path / name).net.state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    text = one_line(CheckpointError, convert, str(tmp_path / "a"), tmp_path / "c", "diffusers")
    assert "heads=2: a UNet2DModel of diffusers has heads of as many channels each at every level" in text
    write_guided(tmp_path / "a", num_head_channels=16)
    convert(str(tmp_path / "a"), tmp_path / "c", "diffusers")
    model, again = ddim_ode.load(tmp_path / "a"), ddim_ode.load(tmp_path / "c")
    x, t = normal(2, 3, 16, 16, seed=0, dtype=torch.float32), torch.tensor([5.0, 900.0])
    assert torch.equal(model.net(x, t, LABELS[:2]), again.net(x, t, LABELS[:2]))
