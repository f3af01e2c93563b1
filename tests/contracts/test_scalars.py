"""Samples that are scalars, of shape (), are carried as those of shape (1,) are."""

import pytest
import torch

from ddim_ode import METHODS, Denoiser, decode, encode, log_likelihood, paths, sample

SCALAR, VECTOR = (
    Denoiser(
        lambda x, t: 0.9 * x / (1 + t.reshape(-1, *[1] * (x.ndim - 1)) / 1000), paths.DiscreteVP.linear(), "noise", s
    )
    for s in ((), (1,))
)


@pytest.mark.parametrize("method", METHODS)
def test_scalars_are_sampled_as_vectors_of_one(method):
    budget = {"tol": 0.1} if METHODS[method].adaptive else {"nfe": 16}
    scalar, vector = (sample(model, method, seeds=range(3), **budget) for model in (SCALAR, VECTOR))
    assert scalar.x.shape == (3,)
    assert torch.equal(scalar.x, vector.x[:, 0])
    assert torch.equal(scalar.nfe, vector.nfe)


@pytest.mark.parametrize("method", ["exact_heun", "leapfrog", "ddim", "adams3", "adaptive"])
def test_scalars_are_encoded_and_decoded(method, tmp_path):
    x, budget = torch.tensor([0.5, -0.25, 0.0]), {"tol": 0.1} if method == "adaptive" else {"nfe": 8}
    scalar, vector = encode(SCALAR, x, method, **budget), encode(VECTOR, x[:, None], method, **budget)
    assert torch.equal(scalar.noise, vector.noise[:, 0])
    scalar.save(tmp_path / "z")
    found = decode(SCALAR, type(scalar).load(tmp_path / "z")).x
    assert torch.equal(found, decode(VECTOR, vector).x[:, 0])
    if METHODS[method].exact:
        assert torch.equal(found, x)


def test_scalars_have_a_density():
    x = torch.tensor([0.5, -0.25, 0.0])
    scalar, vector = log_likelihood(SCALAR, x, trace="exact"), log_likelihood(VECTOR, x[:, None], trace="exact")
    assert torch.equal(scalar.nats, vector.nats)
