"""Methods as sampler functions of k-diffusion: the field's formulas, every method, steps of its own choice."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddim_ode import METHODS, Method, paths
from ddim_ode.integrations.charts import SamplerError
from ddim_ode.integrations.k_diffusion import SpentWarning, sampler
from ddim_ode.solvers import Adaptive
from tests.helpers.k_models import EDM, OURS, KModel, begun, grid, solved
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

BOTH = pytest.mark.parametrize("flow", [False, True], ids=["edm", "flow"])


def by_formula(name: str, model: KModel, x: Tensor, s: Tensor) -> Tensor:
    slopes: list[Tensor] = []
    before: Tensor | None = None
    for n in range(len(s) - 1):
        image, h = model(x, s[n].expand(len(x))), s[n + 1] - s[n]
        slopes.insert(0, (x - image) / s[n])
        if s[n + 1] == 0:
            return image
        if name == "euler":
            x = x + h * slopes[0]
        elif name == "heun":
            guess = x + h * slopes[0]
            x = x + h / 2 * (slopes[0] + (guess - model(guess, s[n + 1].expand(len(x)))) / s[n + 1])
        elif name == "dpmpp_2m":
            if before is None:
                better = image
            else:
                share = math.log(s[n] / s[n + 1]) / (2 * math.log(s[n - 1] / s[n]))
                better = image + share * (image - before)
            x, before = s[n + 1] / s[n] * x + (1 - s[n + 1] / s[n]) * better, image
        else:
            used = slopes[:4]
            if name == "ipndm":
                tables = [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
                weights = [float(h) * w for w in tables[len(used) - 1]]
            else:
                nodes = s[max(0, n - 3) : n + 1].flip(0).numpy()
                weights = [integral(nodes, j, float(s[n]), float(s[n + 1])) for j in range(len(used))]
            x = x + sum(w * slope for w, slope in zip(weights, used, strict=True))
    return x


def integral(nodes: np.ndarray, j: int, a: float, b: float) -> float:
    """Of the polynomial that is 1 at a node and 0 at the others."""
    others = np.delete(nodes, j)
    whole = np.poly1d(others, r=True).integ() if len(others) else np.poly1d([1.0, 0.0])
    return float((whole(b) - whole(a)) / np.prod(nodes[j] - others))


@BOTH
@pytest.mark.parametrize("name", ["euler", "heun", "lms", "dpmpp_2m", "ipndm"])
@pytest.mark.parametrize(("first", "last"), [(0, 11), (0, 7), (4, 11)], ids=["whole", "noise left", "from an image"])
def test_methods_of_the_field_are_its_formulas(name, flow, first, last):
    model, x = begun(flow)
    s = grid(flow)[first:last]
    x = model.noisy(labelled().sample(3, seed=5), normal(3, 2, 3, seed=6), s[0]) if first else x
    found, there = sampler(name)(model, x, s, disable=True), by_formula(name, model, x, s)
    assert float((found - there).abs().max() / there.abs().max()) < 1e-9


@BOTH
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if not row.invertible])
def test_every_method_comes_near_the_solution(name, flow):
    model, x = begun(flow, n=16)
    s = grid(flow)
    fine = torch.cat([s[:-1], (s[:-2] * s[1:-1]).sqrt()]).sort(descending=True).values
    fine = torch.cat([fine, f64([0.0])])
    options = {"tol": 1e-3, "max_nfe": 2000} if METHODS[name].adaptive else {}
    found = sampler(name, **options)(model, x, fine, {"seed": 3}, disable=True)
    assert found.dtype == x.dtype
    assert torch.isfinite(found).all()
    if METHODS[name].deterministic:
        truth = model(solved(model, x, float(s[0]), float(s[-2])), s[-2].expand(16))
        error = (found - truth).flatten(1).square().mean(1).sqrt().median()
        assert error < (0.2 if METHODS[name].order < 2 else 0.1)


@BOTH
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_solver_3", "adams4", "sde_heun"])
def test_steps_are_the_sigmas_that_were_given(name, flow):
    model, x = begun(flow)
    s = grid(flow)
    sampler(name)(model, x, s, disable=True)
    asked = torch.stack(model.asked)[:, 0].double()
    assert all(float((asked - sigma).abs().min()) <= 1e-6 * float(sigma) for sigma in s[:-1])
    assert asked.max() <= s[0] * (1 + 1e-7)
    assert asked.min() >= s[-2] * (1 - 1e-7)


@BOTH
def test_the_last_sigma_that_is_not_0_is_where_the_network_has_the_last_word(flow):
    for name in (*OURS, "euler"):
        model, x = begun(flow)
        said = []

        def noting(x: Tensor, s: Tensor, model: KModel = model, said: list[Tensor] = said, **_: Any) -> Tensor:
            said.append(model(x, s))
            return said[-1]

        found = sampler(name, is_flow=flow)(noting, x, grid(flow), disable=True)
        assert torch.equal(found, said[-1]), name
        assert float(model.asked[-1][0]) == pytest.approx(float(grid(flow)[-2]))


@BOTH
def test_an_adaptive_method_takes_the_two_ends(flow):
    model, x = begun(flow)
    s = grid(flow)
    one = sampler("adaptive", tol=1e-3)(model, x, s, disable=True)
    two = sampler("adaptive", tol=1e-3)(model, x, s[[0, -2, -1]], disable=True)
    assert torch.equal(one, two)
    truth = model(solved(model, x, float(s[0]), float(s[-2])), s[-2].expand(3))
    assert (one - truth).flatten(1).square().mean(1).sqrt().max() < 3e-3


@BOTH
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.adaptive])
def test_a_batch_shares_its_steps(name, flow):
    model, x = begun(flow, n=5)
    sampler(name, tol=0.05, max_nfe=2000)(model, x, grid(flow), disable=True)
    for asked, handed in zip(model.asked, model.handed, strict=True):
        assert handed.shape == x.shape
        assert asked.shape == (5,)
        assert len(asked.unique()) == 1


def test_the_worst_of_a_batch_decides():
    model, x = begun(False, n=4)
    s = EDM[[0, -2, -1]]
    sampler("adaptive", tol=1e-3)(model, x, s, disable=True)
    together = len(model.asked)
    alone = []
    for n in range(4):
        model.asked.clear()
        sampler("adaptive", tol=1e-3)(model, x[n : n + 1], s, disable=True)
        alone.append(len(model.asked))
    assert together >= max(alone) - 2


@BOTH
def test_noise_that_is_left_goes_on_from_there(flow):
    model, x = begun(flow)
    s = grid(flow)
    middle = sampler("adaptive", tol=1e-5)(model, x, s[:6], disable=True)
    assert (middle - solved(model, x, float(s[0]), float(s[5]))).abs().max() < 1e-3
    whole = sampler("adaptive", tol=1e-5)(model, x, s, disable=True)
    assert (sampler("adaptive", tol=1e-5)(model, middle, s[5:], disable=True) - whole).abs().max() < 1e-3


def test_calls_are_bounded():
    model, x = begun(False)
    with pytest.warns(SpentWarning, match="max_nfe=9 ended adaptive before tol=0.0001"):
        sampler("adaptive", tol=1e-4, max_nfe=9)(model, x, EDM, disable=True)
    assert len(model.asked) <= 9
    model.asked.clear()
    with pytest.raises(SamplerError, match="heun makes 19 calls on these sigmas, and max_nfe=18"):
        sampler("heun", max_nfe=18)(model, x, EDM, disable=True)
    assert model.asked == []
    sampler("heun", max_nfe=19)(model, x, EDM, disable=True)
    assert len(model.asked) == 19


class Alone(Adaptive):
    """An adaptive solver of somebody else's, with steps of each sample's own."""

    def solve(self, *_: Any) -> Any: ...


def test_steps_of_each_sample_s_own_are_refused():
    with pytest.raises(SamplerError, match="steps of its own"):
        sampler(Method(Alone(), paths.flow, "", 1, 1, ""))
