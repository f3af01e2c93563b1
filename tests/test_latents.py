"""Latents: saved as they are, taken in parts, and refused by any model but their own."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddim_ode import adams, paths
from ddim_ode.inversion import decode, encode, encode_with
from ddim_ode.latents import Latent, LatentError
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.guidance import Guided
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.options import SolveOptions
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line, same
from tests.helpers.mixtures import labelled
from tests.helpers.networks import random_network
from tests.helpers.tensors import normal

MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Flow(0.02, 60.0))


def test_a_latent_is_saved_as_it_is(tmp_path):
    x = MIXTURE.sample(3, seed=0, sigma=0.02).float()
    for name in ("leapfrog", "bdia", "ddim"):
        latent = encode(MODEL, x, name, nfe=6, labels=[0, 2, 1])
        latent.save(tmp_path / "z.safetensors")
        found = Latent.load(tmp_path / "z.safetensors")
        assert len(found) == 3
        for one, other in zip(latent.states, found.states, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        assert torch.equal(found.labels, torch.tensor([0, 2, 1]))
        assert torch.equal(decode(MODEL, found).x, decode(MODEL, latent).x)
        assert [p.name for p in tmp_path.iterdir()] == ["z.safetensors"]


def test_a_part_of_a_latent():
    x = MIXTURE.sample(5, seed=0, sigma=0.02).float()
    latent = encode(MODEL, x, nfe=6, labels=[0, 2, 1, 1, 0], batch_size=1)
    assert torch.equal(decode(MODEL, latent[1:3]).x, x[1:3])
    assert torch.equal(decode(MODEL, latent[[4, 0]]).x, x[[4, 0]])
    for one in (0, torch.tensor(1)):
        with pytest.raises(TypeError, match="slice or a list"):
            latent[one]
    for nothing in (latent[[]], latent.noise):
        assert "and nothing to decode; give a Latent" in one_line(LatentError, decode, MODEL, nothing)


def test_what_is_no_latent_is_one_line(tmp_path):
    file = tmp_path / "z.safetensors"
    assert "cannot be read: No such file" in one_line(LatentError, Latent.load, file)
    latent = encode(MODEL, normal(2, 2, 3, seed=0), nfe=4)
    latent.save(file)
    file.write_bytes(file.read_bytes()[:-8])
    assert "is damaged" in one_line(LatentError, Latent.load, file)
    file.write_text("not at all")
    assert "is damaged" in one_line(LatentError, Latent.load, file)
    one, other = latent.states
    for words, states in {
        "it holds converged, nfe, sigmas, state0, where": (one,),
        "state1 is torch.int64 of shape (2, 2, 1)": (one, other[..., :1]),
        "nfe is not torch.int64 (B,)": (one[:1], other[:1]),
        "state0 is torch.float32": (one.float(), other.float()),
    }.items():
        dataclasses.replace(latent, states=states).save(file)
        assert words in one_line(LatentError, Latent.load, file)
    save_file({"state0": torch.zeros(1)}, file)
    assert "is not a latent of this version" in one_line(LatentError, Latent.load, file)
    nameless = dataclasses.replace(latent, options=SolveOptions(method=adams(3, path="flow")))
    assert "without a name cannot be saved" in one_line(LatentError, nameless.save, file)


def test_a_latent_belongs_to_its_model():
    latent = encode(MODEL, normal(2, 2, 3, seed=0), nfe=4)
    other = MIXTURE.denoiser(paths.Flow(0.02, 61.0))
    assert "decode with that model, or start from latent.noise" in one_line(LatentError, decode, other, latent)
    wide = GaussianMixture(torch.zeros(1, 4), 1.0).denoiser(paths.Flow(0.02, 60.0))
    assert "has shape (2, 3); this model needs (4,)" in one_line(LatentError, decode, wide, latent)


def test_a_fingerprint_is_of_what_is_predicted_with():
    one, other = random_network(), random_network()
    assert fingerprint(one) == fingerprint(other)
    net = other.net
    assert isinstance(net, torch.nn.Module)
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] += 1e-3
    distinct = [
        one,
        other,
        dataclasses.replace(one, predicts="velocity"),
        dataclasses.replace(one, quantize=True),
        dataclasses.replace(one, path=paths.DiscreteVP.cosine()),
        Guided(one, 2.0),
        Guided(one, 3.0),
        Guided(one, 3.0, (0.1, 9.0)),
    ]
    assert len({fingerprint(model) for model in distinct}) == len(distinct)


def test_labels_that_share_their_memory_are_saved_and_so_is_every_other_image(tmp_path):
    x = MIXTURE.sample(5, seed=0, sigma=0.02).float()
    for name in ("exact_heun", "ddim", "adaptive"):
        latent = encode(MODEL, x, name, labels=1)
        for part in (latent, latent[::2], latent[1:], latent[[4, 0]]):
            part.save(tmp_path / "z.safetensors")
            found = Latent.load(tmp_path / "z.safetensors")
            for key in ("states", "sigmas", "nfe", "converged", "labels"):
                assert same(getattr(found, key), getattr(part, key)), key
            assert found.options == part.options
            assert found.labels.tolist() == [1] * len(part)
        latent[::2].save(tmp_path / "z.safetensors")
        assert torch.equal(decode(MODEL, Latent.load(tmp_path / "z.safetensors")).x, decode(MODEL, latent[::2]).x)


def test_what_is_saved_is_on_disk_in_order_whatever_it_was_in_memory(tmp_path):
    latent = encode(MODEL, MIXTURE.sample(3, seed=0, sigma=0.02).float(), "leapfrog", nfe=6, labels=[0, 2, 1])
    turned = dataclasses.replace(latent, states=tuple(s.mT.contiguous().mT for s in latent.states))
    assert not turned.states[0].is_contiguous()
    flipped = dataclasses.replace(turned, sigmas=latent.sigmas.flip(0).flip(0), nfe=latent.nfe[:1].expand(3))
    flipped.save(tmp_path / "z.safetensors")
    found = Latent.load(tmp_path / "z.safetensors")
    assert same(found.states, latent.states)
    assert torch.equal(decode(MODEL, found).x, decode(MODEL, latent).x)


def test_the_first_step_of_an_adaptive_latent_is_part_of_the_way(tmp_path):
    x = MIXTURE.sample(4, seed=0, sigma=0.02)
    options = SolveOptions(method="adaptive", tol=1e-3, final="sigma_min", dtype=torch.float64)
    plain = decode(MODEL, encode_with(MODEL, x, options))
    latent = encode_with(MODEL, x, dataclasses.replace(options, first_step=1e-5))
    assert latent.options.first_step == 1e-5
    latent.save(tmp_path / "z.safetensors")
    found = Latent.load(tmp_path / "z.safetensors")
    assert found.options == latent.options
    back, again = decode(MODEL, latent), decode(MODEL, found)
    assert torch.equal(back.x, again.x)
    assert torch.equal(back.sigmas.nan_to_num(-1), again.sigmas.nan_to_num(-1))
    assert (back.steps > plain.steps).all()  # it began with a step that was asked for


IMPOSSIBLE = {
    "a method unknown": {"method": "dimm"},
    "a dtype for no state": {"dtype": "float16"},
    "an empty range": {"guidance": 2.0, "guidance_range": [2.0, 1.0]},
    "a range below 0": {"guidance": 2.0, "guidance_range": [-1.0, 1.0]},
    "a range without guidance": {"guidance_range": [0.1, 1.0]},
    "a range of three": {"guidance": 2.0, "guidance_range": [0.1, 1.0, 2.0]},
    "a tolerance on a grid": {"tol": 0.1},
    "a first step on a grid": {"first_step": 0.1},
    "a tolerance of 0": {"method": "adaptive", "tol": 0.0},
    "no batch": {"batch_size": 0},
    "no threads": {"threads": 0},
    "guidance of a word": {"guidance": "much"},
    "guidance of nan": {"guidance": math.nan},
    "guidance of infinity": {"guidance": math.inf},
    "a setting of tomorrow": {"colour": "red"},
}


def settings_in(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as stored:
        return json.loads(stored.metadata()["settings"])


def save_as_before(file: Path, settings: str) -> None:
    """Write the tensors of a file once more, as 0.1.0 did: without a digest, and with these settings."""
    save_file(load_file(file), file, {"format": "ddim_ode latent 1", "settings": settings})


@pytest.mark.parametrize("method", ["exact_heun", "ddim", "adaptive"])
def test_a_bit_that_flips_is_found(method, tmp_path):
    file = tmp_path / "z.safetensors"
    encode(MODEL, normal(2, 2, 3, seed=0), method, **({"tol": 0.1} if method == "adaptive" else {"nfe": 4})).save(file)
    written = file.read_bytes()
    bits = torch.randint(8 * len(written), (200,), generator=torch.Generator().manual_seed(0)).tolist()
    for bit in bits:
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        assert str(file) in one_line(LatentError, Latent.load, file)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_states_that_are_not_finite_are_refused(value, tmp_path):
    file = tmp_path / "z.safetensors"
    latent = encode(MODEL, normal(2, 2, 3, seed=0), "ddim", nfe=4)
    latent.states[0][1, 0, 0] = value
    latent.save(file)
    assert "state0 holds NaN or infinity" in one_line(LatentError, Latent.load, file)


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_settings_that_cannot_be_name_the_file(case, tmp_path):
    file = tmp_path / "impossible.safetensors"
    method = IMPOSSIBLE[case].get("method", "ddim")
    encode(MODEL, normal(2, 2, 3, seed=0), "adaptive" if method == "adaptive" else "ddim").save(file)
    settings = settings_in(file)
    save_as_before(file, json.dumps(settings))
    assert len(Latent.load(file)) == 2  # as it was
    save_as_before(file, json.dumps(settings | IMPOSSIBLE[case]))
    with pytest.raises((LatentError, ConfigError)) as caught:
        Latent.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", ["", "{", "[]", "null", "3", "{}"])
def test_settings_that_are_none_name_the_file(settings, tmp_path):
    file = tmp_path / "none.safetensors"
    encode(MODEL, normal(2, 2, 3, seed=0), "ddim").save(file)
    save_as_before(file, settings)
    assert str(file) in one_line(ConfigError, Latent.load, file)


def test_settings_of_a_file_of_before_are_read(tmp_path):
    """Those of 0.1.0 had no range and no first step."""
    file = tmp_path / "old.safetensors"
    latent = encode(MODEL, normal(2, 2, 3, seed=0), "adaptive", tol=0.1)
    latent.save(file)
    settings = settings_in(file)
    for name in ("guidance_range", "first_step"):
        del settings[name]
    save_as_before(file, json.dumps(settings))
    found = Latent.load(file)
    assert found.options == latent.options
    assert torch.equal(decode(MODEL, found).x, decode(MODEL, latent).x)
