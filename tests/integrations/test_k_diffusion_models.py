"""Sampler functions with noise on the way, of tables, and for models that say what they are; what is refused."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_ode import METHODS
from ddim_ode.errors import DDIMError
from ddim_ode.integrations.charts import SamplerError, predicts_flow
from ddim_ode.integrations.k_diffusion import sampler
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.solvers.tuned import tabulated
from tests.helpers.k_models import CONST, EDM, FLOW, KModel, begun, grid
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal
from tests.helpers.tuned import FIVE, ddim_table

BOTH = pytest.mark.parametrize("flow", [False, True], ids=["edm", "flow"])


@BOTH
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if not row.deterministic])
def test_noise_is_that_of_the_seed(name, flow):
    model, x = begun(flow)
    s = grid(flow)

    options = {"max_nfe": 4000} if METHODS[name].adaptive else {}

    def run(seed: int | None) -> Tensor:
        return sampler(name, **options)(model, x, s, {} if seed is None else {"seed": seed}, disable=True)

    assert torch.equal(run(2**64 - 1), run(2**64 - 1))
    assert not torch.allclose(run(5), run(6), atol=1e-3)
    assert not torch.allclose(run(5)[0], run(5)[1], atol=1e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, two = run(None), run(None)
        torch.manual_seed(0)
        assert torch.equal(run(None), one)
    assert not torch.allclose(one, two, atol=1e-3)


@BOTH
@pytest.mark.parametrize("name", ["sde_dpmpp_2m", "sde_heun", "edm_churn"])
def test_noise_leaves_the_distribution_what_it_is(name, flow):
    model = KModel(GaussianMixture(f64([[0.3]]), 0.5), flow)
    x = normal(4000, 1, seed=3) * (1.0 if flow else 10.0)
    s = torch.cat([torch.linspace(1.0, 0.02, 40, dtype=torch.float64) * (1.0 if flow else 10.0), f64([0.0])])
    found = sampler(name)(model, x, s, {"seed": 1}, disable=True)
    assert float(found.mean()) == pytest.approx(0.3, abs=0.04)
    assert float(found.std()) == pytest.approx(0.5, abs=0.04)


@BOTH
@pytest.mark.parametrize("size", ["sigma", "all of it"])
def test_a_table_steps_on_its_own_grid(flow, size):
    begin = FIVE[0]
    method = tabulated([ddim_table(FIVE, (1 + begin) / math.hypot(1, begin) if flow else 1.0)])
    model = KModel(labelled(), flow)
    ratio, z = f64(method.grids[0]), normal(200, 2, 3, seed=1)
    s = ratio / (1 + ratio) if flow else ratio
    z = z / z.square().mean().sqrt()
    whole = 1.0 if flow else float((1 + s[0] ** 2).sqrt())
    found = sampler(method)(model, z * (s[0] if size == "sigma" else whole), s.float(), disable=True)
    there = sampler("ddim")(model, z * whole, s.float(), disable=True)
    assert (found - there).abs().max() < 0.02


def test_what_a_table_cannot_do_is_one_line():
    method = tabulated([ddim_table(FIVE)])
    model, x = begun(False)
    s = f64(method.grids[0])
    with pytest.raises(SamplerError, match="numbers for grids of its own alone, of 5 steps"):
        sampler(method)(model, x, EDM, disable=True)
    with pytest.raises(SamplerError, match="tables begin with pure noise"):
        sampler(method)(model, 100 * x, s, disable=True)
    with pytest.raises(SamplerError, match="begins with noise"):
        sampler(method)(model, x, s.flip(0), disable=True)


def around(inner: Any, times: int) -> Any:
    for _ in range(times):
        inner = SimpleNamespace(inner_model=inner)
    return inner


@pytest.mark.parametrize("times", [0, 1, 3])
@pytest.mark.parametrize(
    ("inner", "flow"),
    [
        (SimpleNamespace(model_sampling=type("Mixed", (SimpleNamespace, CONST), {})()), True),
        (SimpleNamespace(model_sampling=SimpleNamespace(prediction_type="const")), False),
        (SimpleNamespace(predictor=SimpleNamespace(prediction_type="const")), True),
        (SimpleNamespace(predictor=SimpleNamespace(prediction_type="epsilon")), False),
        (torch.nn.Linear(1, 1), False),
        (None, False),
    ],
)
def test_flows_are_known_by_what_they_say(inner, flow, times):
    assert predicts_flow(around(inner, times)) is flow


def test_a_chain_without_an_end_is_no_flow():
    model = SimpleNamespace()
    model.inner_model = model
    assert not predicts_flow(model)


def test_who_knows_it_says_whether_it_is_a_flow():
    model, x = begun(True)
    plain = lambda x, sigma: model(x, sigma)  # noqa: E731  # without anything to know it by
    said = sampler("adams3", is_flow=True)(plain, x, FLOW, disable=True)
    assert torch.equal(said, sampler("adams3")(model, x, FLOW, disable=True))
    assert not torch.equal(said, sampler("adams3")(plain, x, FLOW, disable=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigmas": [3.0, 1.0, 2.0, 0.0]}, "sigmas turn round at 1"),
        ({"sigmas": [3.0, math.nan, 0.0]}, "not finite numbers >= 0"),
        ({"sigmas": [3.0, -1.0]}, "not finite numbers >= 0"),
        ({"sigmas": [[3.0, 1.0]]}, "not finite numbers >= 0"),
        ({"x": torch.ones(3)}, "give floats"),
        ({"x": torch.ones(3, 2, dtype=torch.int64)}, "give floats"),
        ({"x": [1.0]}, "x is a list of 1"),
        ({"is_flow": True}, "sigma=10 is beyond a flow's"),
        ({"model": lambda x, sigma: x[:1]}, "the model returned a Tensor of shape"),
        ({"model": lambda x, sigma: None}, "the model returned None"),
        ({"method": "sde_heun", "sigmas": [0.1, 1.0, 2.0]}, "sde_heun draws noise on the way"),
        ({"method": "huen"}, "did you mean 'heun'"),
        ({"method": "leapfrog"}, "leapfrog keeps two states for the way back"),
        ({"method": "tuned"}, "load_tuned"),
        ({"tol": 0.1}, "is for adaptive methods"),
        ({"method": "adaptive", "tol": 0.0}, "must be a finite number"),
        ({"method": "adaptive", "max_nfe": 1}, "max_nfe=1 must be a whole number >= 2"),
        ({"is_flow": "no"}, "give True, False or None"),
    ],
)
def test_what_cannot_be_is_one_line(changes, words):
    given = {"method": "heun", "model": begun(False)[0], "x": begun(False)[1], "sigmas": EDM} | changes
    options = {name: value for name, value in given.items() if name in ("tol", "max_nfe", "is_flow")}
    with pytest.raises(DDIMError, match=words) as error:
        sampler(given["method"], **options)(given["model"], given["x"], torch.as_tensor(given["sigmas"]), disable=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["heun", "adaptive", "dopri5"])
def test_a_network_that_returns_nan_says_where(name):
    model, x = begun(False)

    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        return model(x, sigma) * (math.nan if sigma[0] < 3 else 1.0)

    with pytest.raises(NonFiniteError, match="not finite at sigma="):
        sampler(name)(broken, x, EDM, disable=True)


def test_a_method_of_one_s_own_is_taken():
    model, x = begun(False)
    row = replace(METHODS["heun"], summary="mine")
    assert torch.equal(sampler(row)(model, x, EDM, disable=True), sampler("heun")(model, x, EDM, disable=True))
