"""Guidance in a range of sigma, asked for in Python: what `Guided` around the model gives, and no pass more."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from ddim_ode import METHODS, Denoiser, paths
from ddim_ode.interpolation import interpolate
from ddim_ode.inversion import decode, encode, reconstruct
from ddim_ode.latents import Latent
from ddim_ode.likelihood import log_likelihood
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.sampling import sample
from ddim_ode.study.comparison import compare
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting
from tests.helpers.small_study import timeless

MIXTURE = labelled()
PATH = paths.Flow(0.02, 60.0)
MODEL = MIXTURE.denoiser(PATH)
SCALE = 2.5
LABELS = [0, 1, 2, 1]
#: as given, and with both ends closed; none of them at a sigma of the grid, where rounding would decide
RANGES = [
    ((0.2, 6.0), (0.2, 6.0)),
    ([None, 2.0], (0.0, 2.0)),
    ((4.0, None), (4.0, math.inf)),
    (np.array([4.0, math.inf]), (4.0, math.inf)),
]
GRID = [60.0, 20.0, 5.0, 3.0, 1.0, 0.3, 0.1, 0.0]
STEERING: dict[str, dict[str, Any]] = {
    "ddim": {"grid": GRID},
    "adams4": {"nfe": 20},
    "heun_angle": {"nfe": 20},
    "exact_heun": {"nfe": 20},
    "adaptive": {"tol": 0.01},
    "dopri5": {"tol": 0.01},
}

each_range = pytest.mark.parametrize(("given", "closed"), RANGES, ids=["inside", "up to", "from", "from, to infinity"])


def counted() -> tuple[Counting, Denoiser]:
    counting = Counting(MODEL.net)
    return counting, replace(MODEL, net=counting)


def images(count: int = 4) -> torch.Tensor:
    return MIXTURE.sample(count, seed=0, sigma=0.02)


@each_range
@pytest.mark.parametrize("method", STEERING)
def test_sampling_is_that_of_the_guided_model(method, given, closed):
    steering = STEERING[method] | {"seeds": range(4), "labels": LABELS, "dtype": torch.float64}
    counting, model = counted()
    found = sample(model, method, guidance=SCALE, guidance_range=given, **steering)
    expected = sample(Guided(MODEL, SCALE, closed), method, **steering)
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.nfe, expected.nfe)
    assert counting.rows == int(found.nfe.sum())
    everywhere = sample(MODEL, method, guidance=SCALE, **steering)
    nowhere = sample(MODEL, method, **steering)
    assert (found.x - everywhere.x).abs().max() > 1e-3
    assert (found.x - nowhere.x).abs().max() > 1e-3


@each_range
def test_a_prediction_costs_two_passes_inside_and_one_outside(given, closed):
    low, high = closed
    counting, model = counted()
    found = sample(model, grid=GRID, seeds=range(4), labels=LABELS, guidance=SCALE, guidance_range=given)
    passes = sum(2 if low <= sigma <= high else 1 for sigma in GRID[:-1])
    assert found.nfe.tolist() == [passes] * 4
    assert counting.rows == 4 * passes
    assert 7 < passes < 14 == int(sample(MODEL, grid=GRID, labels=0, guidance=SCALE).nfe)


@pytest.mark.parametrize("method", ["adaptive", "dopri5"])
def test_an_adaptive_method_pays_less_than_everywhere(method):
    tight = {"tol": 0.01, "seeds": range(4), "labels": LABELS, "guidance": 1.5}
    found = sample(MODEL, method, guidance_range=(0.0, 0.3), **tight)
    assert (found.nfe < sample(MODEL, method, **tight).nfe).all()


def test_outside_every_step_it_is_the_plain_model():
    plain = sample(MODEL, nfe=9, seeds=range(4), labels=LABELS)
    found = sample(MODEL, nfe=9, seeds=range(4), labels=LABELS, guidance=SCALE, guidance_range=(1e6, 1e7))
    assert torch.equal(found.x, plain.x)
    assert found.nfe.tolist() == plain.nfe.tolist() == [9] * 4


def test_a_range_of_everything_is_none():
    whole = sample(MODEL, nfe=18, seeds=range(4), labels=LABELS, guidance=SCALE)
    for given in ((0, None), (None, None), (0.0, math.inf)):
        found = sample(MODEL, nfe=18, seeds=range(4), labels=LABELS, guidance=SCALE, guidance_range=given)
        assert torch.equal(found.x, whole.x)
        assert torch.equal(found.nfe, whole.nfe)


@each_range
@pytest.mark.parametrize("method", ["exact_heun", "ddim", "adaptive"])
def test_a_latent_and_its_way_back_are_those_of_the_guided_model(method, given, closed, tmp_path):
    steering: dict[str, Any] = {"tol": 0.05} if METHODS[method].adaptive else {"nfe": 20}
    steering |= {"labels": LABELS}
    (counting, model), guided = counted(), Guided(MODEL, SCALE, closed)
    x = images().float()
    latent = encode(model, x, method, guidance=SCALE, guidance_range=given, **steering)
    assert counting.rows == int(latent.nfe.sum())
    expected = encode(guided, x, method, **steering)
    for one, other in zip(latent.states, expected.states, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(latent.nfe, expected.nfe)
    assert latent.options.guidance_range == closed
    latent.save(tmp_path / "z.safetensors")
    loaded = Latent.load(tmp_path / "z.safetensors")
    assert loaded.options == latent.options
    back = decode(guided, expected)
    for each in (latent, loaded):
        counting.rows = 0
        found = decode(model, each)
        assert torch.equal(found.x, back.x)
        assert torch.equal(found.nfe, back.nfe)
        assert counting.rows == int(found.nfe.sum())
    assert (method == "exact_heun") == torch.equal(back.x, x)
    everywhere = encode(MODEL, x, method, guidance=SCALE, **steering)
    assert (latent.noise - everywhere.noise).abs().max() > 1e-3


@each_range
def test_a_reconstruction_is_that_of_the_guided_model(given, closed):
    found = reconstruct(MODEL, images(), "ddim", 30, labels=LABELS, guidance=SCALE, guidance_range=given)
    expected = reconstruct(Guided(MODEL, SCALE, closed), images(), "ddim", 30, labels=LABELS)
    assert torch.equal(found.solution.x, expected.solution.x)
    assert torch.equal(found.rms, expected.rms)
    assert torch.equal(found.latent_std, expected.latent_std)
    assert found.latent.nfe.tolist() == expected.latent.nfe.tolist()


@each_range
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize(
    ("method", "steering"), [("heun_angle", {"grid": GRID[:-1]}), ("dopri5", {"tol": 0.03, "max_nfe": 50_000})]
)
def test_a_likelihood_is_that_of_the_guided_model(method, steering, trace, given, closed):
    options = steering | {"method": method, "trace": trace, "dtype": torch.float64}
    counting, model = counted()
    found = log_likelihood(model, images(), LABELS, guidance=SCALE, guidance_range=given, **options)
    expected = log_likelihood(Guided(MODEL, SCALE, closed), images(), LABELS, **options)
    assert torch.equal(found.nats, expected.nats)
    assert torch.equal(found.latent, expected.latent)
    assert torch.equal(found.nfe, expected.nfe)
    products = 6 if trace == "exact" else 1
    assert (1 + products) * counting.rows == int(found.nfe.sum())
    everywhere = log_likelihood(MODEL, images(), LABELS, guidance=SCALE, **options)
    assert (found.nats - everywhere.nats).abs().max() > 1e-3


def test_a_likelihood_on_a_grid_costs_less_than_everywhere():
    options = {"method": "heun_angle", "grid": GRID[:-1], "guidance": SCALE}
    found = log_likelihood(MODEL, images(), LABELS, guidance_range=(0.2, 6.0), **options).nfe
    # Heun asks at both ends of every step, and each of its slopes costs a pass forward and one backward.
    asked = [sigma for pair in pairwise(GRID[:-1]) for sigma in pair]
    passes = 2 * sum(2 if 0.2 <= sigma <= 6.0 else 1 for sigma in asked)
    assert found.tolist() == [passes] * 4
    assert log_likelihood(MODEL, images(), LABELS, **options).nfe.tolist() == [2 * 2 * len(asked)] * 4


@each_range
def test_an_interpolation_is_that_of_the_guided_model(given, closed):
    ends = seeded_noise([3, 4], MODEL.shape)
    steering = {"frames": 5, "labels": 1, "nfe": 16}
    counting, model = counted()
    found = interpolate(model, ends, guidance=SCALE, guidance_range=given, **steering)
    expected = interpolate(Guided(MODEL, SCALE, closed), ends, **steering)
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.nfe, expected.nfe)
    assert counting.rows == int(found.nfe.sum())


@each_range
def test_a_study_is_that_of_the_guided_model(given, closed):
    small: dict[str, Any] = {"methods": ["ddim", "adaptive", "exact_heun"], "nfe": [12], "seeds": range(4)}
    small |= {"labels": LABELS, "tols": [0.05]}
    found = timeless(compare(MODEL, guidance=SCALE, guidance_range=given, **small))
    expected = timeless(compare(Guided(MODEL, SCALE, closed), **small))
    assert found["rows"] == expected["rows"]
    assert found["reference"] == expected["reference"]
    assert {row["status"] for row in found["rows"]} == {"done"}
    everywhere = timeless(compare(MODEL, guidance=SCALE, **small))
    assert found["rows"][0]["error"] != everywhere["rows"][0]["error"]
