"""The grid that is made for a method on a model: better than the named ones where that can be told."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import ddim_ode
from ddim_ode import paths, sample
from ddim_ode.errors import DDIMError
from ddim_ode.grids import GRIDS, make_grid
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.fields import GaussianField
from ddim_ode.planning.auto_grid import FINALISTS, StandIn, auto_grid
from ddim_ode.planning.profile import Profile, profile_of
from ddim_ode.solvers import METHODS
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal, rms

EDM = paths.Noise(0.002, 80.0)
MODELS = {
    "tight": GaussianMixture(normal(20, 1, 4, 4, seed=3), 0.1).denoiser(EDM),
    "field": GaussianField((3, 16, 16), std=0.4).denoiser(paths.DiscreteVP.scaled_linear(1000, 0.00085, 0.012)),
    "flow": GaussianMixture(normal(30, 1, 4, 4, seed=4), 0.05).denoiser(paths.Flow(0.001, 999.0)),
}


@cache
def truth_of(kind: str) -> Tensor:
    """Where 24 seeds arrive."""
    return sample(MODELS[kind], "rk4", 1201, range(24), grid="log_snr", dtype=torch.float64).x


@cache
def profile(kind: str) -> Profile:
    return profile_of(MODELS[kind], False)


@pytest.mark.parametrize("name", ["dpmpp_2m", "adams4", "unipc_2", "ddim"])
@pytest.mark.parametrize("kind", ["tight", "field"])
def test_the_stand_in_knows_which_grids_are_good(kind, name):
    model, method = MODELS[kind], METHODS[name]
    truth, stand_in, real, told = truth_of(kind), StandIn(profile(kind), model.path), [], []
    for grid in ("uniform", "karras", "log_snr", "angle", "trailing_angle", "near_image", "logistic"):
        sigmas = make_grid(grid, model.path, 10, "denoise")
        found = sample(model, method, seeds=range(24), grid=sigmas, dtype=torch.float64).x
        real.append(float(rms(found - truth).log().mean()))
        told.append(math.log(stand_in.missed(method, sigmas)))
    assert np.corrcoef(real, told)[0, 1] > 0.8
    likely = np.argsort(told)[:FINALISTS]  # of which the model itself will choose
    assert min(real[n] for n in likely) < min(real) + math.log(1.1)


@pytest.mark.filterwarnings("ignore::ddim_ode.grids.GridWarning")  # of even steps of sigma
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc_2", "adams3", "adams4", "heun"])
@pytest.mark.parametrize("kind", MODELS)
def test_it_is_no_worse_than_the_best_of_the_named_grids(kind, name):
    model, truth, errors = MODELS[kind], truth_of(kind), {}
    for grid in (*GRIDS, "auto"):
        try:
            found = sample(model, name, 12, range(24), grid=grid, dtype=torch.float64)
        except DDIMError:
            continue
        assert int(found.nfe.max()) <= 12
        errors[grid] = float(rms(found.x - truth).median())
    assert errors.pop("auto") < 1.25 * min(errors.values()), errors


def test_it_is_a_grid_like_any_other():
    model = MODELS["tight"]
    first = sample(model, "dpmpp_2m", 8, range(3), grid="auto")
    again = sample(model, "dpmpp_2m", 8, range(5), grid="auto")
    assert torch.equal(first.sigmas, again.sigmas)
    torch.testing.assert_close(first.x, again.x[:3], rtol=0, atol=1e-6)
    given = sample(model, "dpmpp_2m", 8, range(3), grid=profile("tight"))
    assert torch.equal(given.sigmas, first.sigmas)
    ends = sample(model, "dpmpp_2m", 8, range(3), grid="auto", final="sigma_min").sigmas
    assert float(ends[-1]) == model.sigma_min
    latent = ddim_ode.encode(model, first.x, method="heun_angle", nfe=16, grid="auto")
    assert torch.equal(latent.sigmas.sort().values, latent.sigmas.unique())


@pytest.mark.parametrize("intervals", [1, 2, 25, 60])
def test_short_and_long_grids(intervals):
    model = MODELS["tight"]
    sigmas = auto_grid(model, profile("tight"), METHODS["dpmpp_2m"], intervals)
    assert len(sigmas) == intervals + 1
    assert (sigmas.diff() < 0).all()


def test_labels_and_guidance_have_grids_of_their_own():
    model, labels = labelled(shape=(4, 4)).denoiser(paths.Flow(0.005, 200.0)), torch.arange(4) % 3
    plain = sample(model, "adams3", 8, range(4), grid="auto").sigmas
    each = sample(model, "adams3", 8, range(4), grid="auto", labels=labels).sigmas
    guided = sample(model, "adams3", 16, range(4), grid="auto", labels=labels, guidance=3.0).sigmas
    assert not torch.equal(plain, each)
    assert not torch.equal(each, guided)
    alone = sample(model, "adams3", 8, range(1), grid="auto", labels=2).sigmas
    assert torch.equal(alone, each)  # whatever the company


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sde_euler"}, "grid='auto' is for methods without noise"),
        ({"method": "exact_heun"}, "grid='auto' is for methods without noise, in floats"),
        ({"method": "adaptive"}, "chooses its steps"),
        ({"grid": "autos"}, "did you mean 'auto'"),
    ],
)
def test_where_it_cannot_be(options, words):
    given = {"method": "ddim", "nfe": 8, "grid": "auto", "seeds": range(2)} | options
    assert words in one_line(DDIMError, lambda: sample(MODELS["tight"], **given))
