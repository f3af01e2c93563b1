"""Latents: saved as they are, taken in parts, and refused by any model but their own."""

import dataclasses

import pytest
import torch

from ddim_ode import METHODS, paths
from ddim_ode.inversion import decode, encode
from ddim_ode.latents import Latent, LatentError
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.guidance import Guided
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.options import SolveOptions
from tests.helpers.assertions import one_line
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
        assert "is nothing to decode; give a Latent" in one_line(LatentError, decode, MODEL, nothing)


def test_what_is_no_latent_is_one_line(tmp_path):
    file = tmp_path / "z.safetensors"
    assert "there is no file" in one_line(LatentError, Latent.load, file)
    latent = encode(MODEL, normal(2, 2, 3, seed=0), nfe=4)
    latent.save(file)
    file.write_bytes(file.read_bytes()[:-8])
    assert "is damaged" in one_line(LatentError, Latent.load, file)
    file.write_text("not at all")
    assert "is damaged" in one_line(LatentError, Latent.load, file)
    from safetensors.torch import save_file

    for states in (
        latent.states[:1],
        (latent.states[0], latent.states[1][..., :1]),
        tuple(s[:1] for s in latent.states),
    ):
        dataclasses.replace(latent, states=states).save(file)
        assert "does not hold what 'exact_heun' needs" in one_line(LatentError, Latent.load, file)
    save_file({"state0": torch.zeros(1)}, file)
    assert "is not a latent of this version" in one_line(LatentError, Latent.load, file)
    nameless = dataclasses.replace(latent, options=SolveOptions(method=METHODS["leapfrog"]))
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
