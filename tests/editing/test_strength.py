"""SDEdit: closed forms on Gaussians, what a strength is, where the budget goes, and every mistake in one line."""

import math

import pytest
import torch

import ddim_ode
from ddim_ode import paths
from ddim_ode.data import to_float
from ddim_ode.editing import EditError, sdedit, sigma_of_strength
from ddim_ode.errors import DDIMError
from ddim_ode.grids import GRIDS
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import seeded_noise
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import gaussians, labelled
from tests.helpers.tensors import f64, normal

PATH = paths.Flow(0.02, 60.0)
MODEL = labelled().denoiser(PATH)


@pytest.mark.parametrize(
    "path",
    [paths.DiscreteVP.linear(), paths.Noise(0.002, 80.0), paths.Flow(0.001, 1000.0), paths.Angle(0.01, 1e4)],
    ids=lambda path: type(path).__name__,
)
def test_a_strength_is_the_same_noise_on_every_schedule(path):
    model = gaussians(0.0, path=path)
    assert sigma_of_strength(model, 0.5) == pytest.approx(1.0, abs=0.02)
    sigmas = [sigma_of_strength(model, s) for s in (1e-12, 0.1, 0.3, 0.7, 0.9, 1 - 1e-12)]
    assert sigmas == sorted(sigmas)
    assert sigmas[0] == pytest.approx(model.sigma_min, rel=1e-3)
    assert sigmas[-1] == pytest.approx(model.sigma_max, rel=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
def test_an_edit_of_a_gaussian_is_the_known_map(sigma):
    """Down from sigma, (x - m) / sqrt(s^2 + sigma^2) stays what it is."""
    x = f64([[0.2], [-0.9], [1.5]])
    found = sdedit(gaussians(0.5, path=PATH), x, sigma=sigma, labels=0, nfe=100, method="adams3", dtype=torch.float64)
    xbar = x + sigma * seeded_noise(range(3), (1,)).double()
    low = PATH.sigma_min  # the last evaluation, from there to 0, is the mean of what is known there
    shrunk = 0.5 + (xbar - 0.5) * math.sqrt((0.3**2 + low**2) / (0.3**2 + sigma**2)) * 0.3**2 / (0.3**2 + low**2)
    torch.testing.assert_close(found.x, shrunk, rtol=0, atol=2e-4)


def test_edits_have_the_distribution_that_they_should():
    """From x = 0 of N(m, s^2) at sigma: mean m - m r, deviation r sigma, with r = s / sqrt(s^2 + sigma^2)."""
    model, sigma, s, m = gaussians(0.5, path=paths.Noise(1e-3, 80.0)), 0.8, 0.3, 0.5
    found = sdedit(model, torch.zeros(1, 1), sigma=sigma, seeds=range(4000), labels=0, nfe=30).x
    r = s / math.sqrt(s**2 + sigma**2)
    assert float(found.mean()) == pytest.approx(m - m * r, abs=4 * r * sigma / math.sqrt(4000))
    assert float(found.std()) == pytest.approx(r * sigma, rel=0.05)


@pytest.mark.parametrize("method", ["ddim", "adams3", "heun", "rk4", "exact_heun", "dpmpp_2m", "sde_heun", "euler"])
def test_the_budget_is_spent_on_the_way_from_sigma(method):
    x = normal(3, 2, 3, seed=0)
    found = sdedit(MODEL, x, 0.4, method, nfe=12, labels=1)
    assert float(found.sigmas[0]) == sigma_of_strength(MODEL, 0.4)
    assert found.sigmas[-1] == 0
    each = ddim_ode.METHODS[method].evaluations
    assert 12 - each < int(found.nfe.max()) <= 12


@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_every_grid_begins_at_the_edit_s_sigma(grid):
    model = gaussians(0.0, path=paths.DiscreteVP.linear())
    found = sdedit(model, torch.zeros(2, 1), sigma=0.7, nfe=6, grid=grid)
    assert found.sigmas[0] == 0.7
    assert (found.sigmas.diff() < 0).all()
    assert found.nfe.tolist() == [6, 6]


def test_an_adaptive_method_has_a_tolerance_or_a_budget():
    x = labelled().sample(6, seed=1)
    found = sdedit(MODEL, x, 0.5, "adaptive", tol=1e-3, labels=1, dtype=torch.float64)
    exact = sdedit(MODEL, x, 0.5, "adams3", nfe=200, labels=1, dtype=torch.float64)
    torch.testing.assert_close(found.x, exact.x, rtol=0, atol=0.01)
    budget = sdedit(MODEL, x, 0.5, "adaptive", nfe=15, labels=1)
    assert 5 < budget.nfe.double().mean() <= 18
    one = sdedit(MODEL, x[3:4], 0.5, "adaptive", nfe=15, labels=1, seeds=[3])
    torch.testing.assert_close(one.x, budget.x[3:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"method": "adams3"}, {"method": "ddim", "eta": 1.0}])
def test_a_sample_is_a_function_of_its_image_and_its_seed(options):
    x, labels = normal(7, 2, 3, seed=2).float(), [0, 1, 2, 0, 1, 2, 0]
    seeds = [5, 3, 8, 1, 9, 2, 4]
    whole = sdedit(MODEL, x, 0.6, nfe=8, labels=labels, seeds=seeds, **options)
    parts = sdedit(MODEL, x, 0.6, nfe=8, labels=labels, seeds=seeds, batch_size=2, **options)
    torch.testing.assert_close(parts.x, whole.x, rtol=0, atol=1e-5)
    alone = sdedit(MODEL, x[4:5], 0.6, nfe=8, labels=labels[4], seeds=[9], **options)
    torch.testing.assert_close(alone.x, whole.x[4:5], rtol=0, atol=1e-5)
    again = sdedit(MODEL, x, 0.6, nfe=8, labels=labels, seeds=seeds, **options)
    assert torch.equal(again.x, whole.x)


def test_a_flow_without_ends_is_one_line_with_a_remedy_that_works():
    model = gaussians(0.5, path=paths.Flow())
    for told in ({"strength": 0.5}, {"sigma": 1.0, "method": "adaptive", "tol": 0.01}):
        line = one_line(EditError, sdedit, model, torch.zeros(1, 1), labels=0, **told)
        assert "give its path ends, as in Flow(sigma_min=0.001, sigma_max=1000.0)" in line
        sdedit(gaussians(0.5, path=paths.Flow(sigma_min=0.001, sigma_max=1000.0)), torch.zeros(1, 1), labels=0, **told)
    model = gaussians(0.5, path=paths.Flow(sigma_min=0.001))
    assert sdedit(model, torch.zeros(1, 1), 0.5, nfe=3).nfe.tolist() == [3]
    assert "sigma=inf is no noise" in one_line(EditError, sdedit, model, torch.zeros(1, 1), sigma=math.inf)


def test_one_image_by_many_seeds_and_bytes_as_floats():
    x = torch.randint(256, (1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = sdedit(MODEL, x, 0.3, nfe=4, seeds=range(5))
    same = sdedit(MODEL, to_float(x).expand(5, -1, -1), 0.3, nfe=4)
    assert torch.equal(found.x, same.x)


def test_conditions_are_told_to_the_network():
    def net(x, t, shift):
        return shift.expand_as(x)  # the predicted image

    model = Denoiser(net, paths.Flow(0.01, 50.0), "data", (2,))
    shift = f64([[0.1], [0.7], [-0.4]]).float()
    found = sdedit(model, torch.zeros(3, 2), 0.5, "ddim", nfe=5, conditions={"shift": shift}, batch_size=2)
    torch.testing.assert_close(found.x, shift.expand(3, 2))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"strength": 0.0}, "strength=0.0 is no share of the way to noise; give a number between 0 and 1"),
        ({"strength": 1}, "strength=1 is no share"),
        ({"strength": -0.5}, "strength=-0.5 is no share"),
        ({"strength": math.nan}, "strength=nan is no share"),
        ({"strength": "half"}, "strength='half' is no share"),
        ({}, "strength and sigma are both missing; give one of them"),
        ({"strength": 0.5, "sigma": 1.0}, "strength and sigma contradict each other"),
        ({"sigma": 61.0}, "sigma=61.0 is no noise to begin with"),
        ({"sigma": 0.02}, "sigma=0.02 is no noise to begin with"),
        ({"sigma": math.inf}, "sigma=inf is no noise to begin with"),
        ({"strength": 0.5, "labels": 3}, "label 3 does not exist; this model has labels 0..2"),
        ({"strength": 0.5, "seeds": range(3)}, "3 seeds are too many or too few for 2 images; give one each"),
        ({"strength": 0.5, "grid": [1.0, 0.0]}, "an edit's grid begins at its sigma"),
        ({"strength": 0.5, "grid": "auto"}, "an edit's grid begins at its sigma"),
        ({"strength": 0.5, "method": "no such"}, "no such"),
    ],
)
def test_what_cannot_be_edited_is_one_line(options, line):
    assert line in one_line(DDIMError, sdedit, MODEL, normal(2, 2, 3, seed=0), **options)
