"""Checkpoints of the DDIM code against a network with its names, written after the published architecture."""

import argparse
import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import ddim_ode
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.checkpoints.original import read_config
from ddim_ode.models.unet import UNet
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode
from tests.helpers.foreign import relative
from tests.helpers.original_unet import EMA, ORIGINAL, RAW, original, states, write_original
from tests.helpers.tensors import normal

TIMES = torch.tensor([0.0, 37.0, 500.0, 999.0])


def same_output(model: ddim_ode.Denoiser, seed: int) -> bool:
    """As a network of that seed, to 1e-5 in float32 and 1e-10 in float64."""
    assert isinstance(model.net, UNet)
    reference = original(seed=seed)
    x = normal(len(TIMES), 3, 16, 16, seed=0, dtype=torch.float64)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        expected = reference.to(dtype)(x.to(dtype), TIMES.to(dtype))
        assert expected.std() > 0.05
        if relative(model.net.to(dtype)(x.to(dtype), TIMES.to(dtype)), expected) > tolerance:
            return False
    return True


def test_the_averages_are_taken_and_reported(tmp_path):
    write_original(tmp_path)
    model = ddim_ode.load(tmp_path)
    assert model.provenance.ema == "yes"
    assert same_output(model, EMA)
    raw = ddim_ode.load(tmp_path, ema=False)
    assert raw.provenance.ema == "no"
    assert same_output(raw, RAW)
    assert (model.path, model.predicts, model.shape) == (ddim_ode.paths.DiscreteVP.linear(), "noise", (3, 16, 16))


def test_a_list_without_averages(tmp_path):
    model = ddim_ode.load(write_original(tmp_path, found=states(ema=False)))
    assert model.provenance.ema == "no"
    assert same_output(model, RAW)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_alone(tmp_path, prefix):
    state = {prefix + name: value for name, value in original(seed=5).state_dict().items()}
    write_original(tmp_path, found=state, name="diffusion_cifar10_model.ckpt")
    for model in (ddim_ode.load(tmp_path), ddim_ode.load(tmp_path / "diffusion_cifar10_model.ckpt")):
        assert model.provenance.ema == "not stated"
        assert same_output(model, 5)


def test_the_configuration_may_lie_elsewhere(tmp_path):
    write_original(tmp_path / "run")
    config = (tmp_path / "run/config.yml").rename(tmp_path / "elsewhere.yml")
    for what in (tmp_path / "run/ckpt.pth", tmp_path / "run"):
        assert same_output(ddim_ode.load(what, config=config), EMA)
        text = one_line(CheckpointError, ddim_ode.load, what)
        assert "ckpt.pth needs its configuration, a YAML file of the code that made it, and none is beside it" in text
    (tmp_path / "run/a.yml").touch()
    (tmp_path / "run/b.yaml").touch()
    assert "2 YAML files are beside it" in one_line(CheckpointError, ddim_ode.load, tmp_path / "run")


def test_the_configuration_as_the_code_itself_writes_it(tmp_path):
    """A nest of argparse.Namespace, with the tags of Python objects."""
    write_original(tmp_path)
    nested = argparse.Namespace(**{key: argparse.Namespace(**value) for key, value in ORIGINAL.items()})
    (tmp_path / "config.yml").write_text(yaml.dump(nested))
    assert "!!python/object:argparse.Namespace" in (tmp_path / "config.yml").read_text()
    assert same_output(ddim_ode.load(tmp_path), EMA)


def test_the_latest_of_several_checkpoints(tmp_path):
    write_original(tmp_path)
    torch.save(states(ema=False), tmp_path / "ckpt_5000.pth")
    assert ddim_ode.load(tmp_path).provenance.file == str(tmp_path / "ckpt.pth")
    (tmp_path / "ckpt.pth").rename(tmp_path / "ckpt_9000.pth")
    text = one_line(CheckpointError, ddim_ode.load, tmp_path)
    assert "has 2 checkpoints (ckpt_5000.pth, ckpt_9000.pth, ...); give the file of one" in text
    assert ddim_ode.load(tmp_path / "ckpt_9000.pth").provenance.ema == "yes"


def test_quad_is_linear_in_the_root(tmp_path):
    config = copy.deepcopy(ORIGINAL)
    config["diffusion"] |= {"beta_schedule": "quad", "num_diffusion_timesteps": 5}
    betas = [(0.01 + (0.02**0.5 - 0.01) * k / 4) ** 2 for k in range(5)]
    path = ddim_ode.load(write_original(tmp_path, config)).path
    assert path.alphas_cumprod == pytest.approx(ddim_ode.paths.DiscreteVP.from_betas(betas).alphas_cumprod, rel=1e-12)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("data", "rescaled", False, "data.rescaled: false cannot be had here; images must be in [-1, 1]"),
        ("data", "logit_transform", True, "data.logit_transform: true cannot be had here"),
        ("model", "resamp_with_conv", False, "model.resamp_with_conv: false cannot be had here"),
        ("model", "out_ch", 6, "model.out_ch: 6 cannot be had here; images have 3 channels"),
        ("model", "ch_mult", [2, 2], "model.ch_mult: [2, 2] cannot be had here; it must begin with 1"),
        ("model", "ch", 48, "48 is not a multiple of groups=32"),
        ("model", "ch", "many", "model.ch: Input should be a valid integer"),
        ("diffusion", "beta_schedule", "jsd", "beta_schedule: jsd cannot be had here; it must be linear or quad"),
        ("diffusion", "beta_end", 2.0, "schedule.beta_end: Input should be less than 1"),
    ],
)
def test_a_configuration_that_cannot_be_had_is_named(tmp_path, section, key, value, message):
    config = copy.deepcopy(ORIGINAL)
    config[section][key] = value
    text = one_line(ConfigError, ddim_ode.load, write_original(tmp_path, config, found={"x": torch.ones(1)}))
    assert text.startswith(f"{tmp_path / 'config.yml'}: ")
    assert message in text


@pytest.mark.parametrize(("content", "message"), [("a: [", "is not valid YAML"), ("a: 1", "data: Field required")])
def test_another_yaml_file_is_named(tmp_path, content, message):
    write_original(tmp_path, found={"x": torch.ones(1)})
    (tmp_path / "config.yml").write_text(content)
    text = one_line(ConfigError, ddim_ode.load, tmp_path)
    assert "config.yml" in text
    assert message in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("mid.attn_1.k.weight"), "mid.attn_1.k.weight is missing"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), "extra.weight is unknown to the network"),
        (lambda s: s.update({"conv_in.bias": torch.ones(4)}), "conv_in.bias has shape (4,), where its configuration"),
        (lambda s: s["up.0.block.1.conv1.bias"].fill_(torch.nan), "the weights of up.0.block.1.conv1.bias hold NaN"),
    ],
    ids=["missing", "extra", "shape", "nan"],
)
def test_weights_that_do_not_fit_are_named(tmp_path, damage, message):
    found = states()
    damage(found[4])
    text = one_line(CheckpointError, ddim_ode.load, write_original(tmp_path, found=found))
    assert text.startswith(f"{tmp_path / 'ckpt.pth'}: ")
    assert message in text


def test_the_safetensors_file_that_a_refusal_asks_for_is_read(tmp_path):
    """A number that only NumPy has in the optimizer's state; then, of the same weights, a file of tensors alone."""
    state = original(seed=5).state_dict()

    def taken(what: Path, config: Path | None = None) -> bool:
        found = ddim_ode.load(what, config, check=False).net.state_dict()
        return torch.equal(found["conv_in.weight"], state["conv_in.weight"])

    assert taken(write_original(tmp_path / "a", found=[state, {"lr": np.float64(2e-4)}, 1, 1000]))
    write_original(tmp_path / "b", found=[state, RunsCode(tmp_path / "ran"), 1, 1000])
    assert "save its tensors as safetensors" in one_line(CheckpointError, ddim_ode.load, tmp_path / "b")
    save_file(state, tmp_path / "b/ckpt.safetensors")
    assert taken(tmp_path / "b/ckpt.safetensors")
    assert taken(tmp_path / "b/ckpt.safetensors", tmp_path / "a/config.yml")
    (tmp_path / "b/ckpt.pth").unlink()
    for name in ("ckpt", "model"):
        (tmp_path / "b/ckpt.safetensors").rename(tmp_path / f"b/{name}.safetensors")
        assert taken(tmp_path / "b")
        (tmp_path / f"b/{name}.safetensors").rename(tmp_path / "b/ckpt.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "num_res_blocks", 10**9),
        ("model", "ch", 10**9),
        ("model", "ch_mult", [1] * 10**5),
        ("model", "attn_resolutions", [16] * 10**5),
        ("model", "in_channels", 10**4000),
        ("data", "image_size", 10**9),
        ("data", "channels", 10**9),
        ("diffusion", "num_diffusion_timesteps", 10**10),
        ("diffusion", "beta_start", float("nan")),
        ("diffusion", "beta_end", float("inf")),
        ("diffusion", "beta_end", 10**400),
        ("diffusion", "beta_start", -0.5),
    ],
)
def test_sizes_that_no_network_has_are_refused_at_once(section, key, value):
    config = copy.deepcopy(ORIGINAL)
    config[section][key] = value
    text = one_line(ConfigError, read_config, config, Path("a.yml"))
    assert text.startswith("a.yml: ")
    assert key in text or "shape" in text or "channels" in text
    assert len(text) <= 1000


@pytest.mark.parametrize("found", [[], [1, 2], {"a": {"x": torch.ones(1)}}, torch.ones(2)], ids=str)
def test_another_kind_of_checkpoint_is_named(tmp_path, found):
    text = one_line(CheckpointError, ddim_ode.load, write_original(tmp_path, found=found))
    assert f"ckpt.pth holds a {type(found).__name__}" in text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_cut_checkpoint_is_named(tmp_path, share):
    file = write_original(tmp_path) / "ckpt.pth"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert "ckpt.pth is damaged" in one_line(CheckpointError, ddim_ode.load, tmp_path)


def test_a_checkpoint_that_would_run_code_does_not(tmp_path):
    mark = tmp_path / "ran"
    write_original(tmp_path, found=[*states()[:4], RunsCode(mark)])
    assert "ckpt.pth is a pickle that would run code" in one_line(CheckpointError, ddim_ode.load, tmp_path)
    (tmp_path / "ckpt.pth").write_bytes(pickle.dumps(RunsCode(mark), protocol=2))
    assert "ckpt.pth is a pickle that would run code" in one_line(CheckpointError, ddim_ode.load, tmp_path)
    assert not mark.exists()


def test_it_samples(tmp_path):
    found = ddim_ode.sample(ddim_ode.load(write_original(tmp_path)), nfe=4, seeds=[0, 1]).x
    own = ddim_ode.Denoiser(original(seed=EMA).eval(), ddim_ode.paths.DiscreteVP.linear(), "noise", (3, 16, 16))
    torch.testing.assert_close(found, ddim_ode.sample(own, nfe=4, seeds=[0, 1]).x, rtol=1e-4, atol=1e-4)
