"""Samples that are each at a time of their own: what they cost, where they begin and where they arrive."""

import math

import numpy as np
import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.guidance import Guided
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.solvers.trajectories import LARGE, Trajectories
from tests.helpers.mixtures import MIXTURES
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

MODEL = MIXTURES["labelled"].denoiser(PATHS["linear"])
SIGMAS = f64([150.0, 0.01, 0.0])


def trajectories(model=MODEL, count=4, members=1, labels=None):
    xbar = 150 * normal(count, *([members] if members > 1 else []), *MODEL.shape, seed=0)
    return Trajectories(ProbabilityFlow(model, paths.flow, (0.01, 150.0), labels), xbar, SIGMAS, members)


def test_the_first_evaluation_leads_to_where_it_is_made():
    """What it predicts there is the image of a DDIM step down to it."""
    way, sigma = trajectories(), 20.0
    ode, xbar = way.ode, way.x
    u, y, slope = way.start(np.arange(4), ode.enter(xbar, SIGMAS[0]), sigma, most=1)
    data = MODEL(xbar * sigma / 150, sigma).data
    noise = (xbar - data) / 150
    torch.testing.assert_close(ode.leave(y, f64(sigma)), data + sigma * noise, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, noise - data, rtol=1e-12, atol=1e-12)
    assert paths.flow.sigma(f64(u)) == pytest.approx(sigma)
    assert way.nfe.tolist() == [1, 1, 1, 1]


def test_a_sample_is_evaluated_at_its_own_time():
    way, rows, sigmas = trajectories(labels=torch.tensor([0, 1, 2, 1])), np.array([3, 0]), f64([20.0, 5.0])
    y = normal(2, *MODEL.shape, seed=1)
    slopes = way.evaluate(rows, paths.flow.u(sigmas).numpy(), y)
    for k, label in enumerate([1, 0]):
        found = MODEL(y[k : k + 1] * (1 + sigmas[k]), sigmas[k], torch.tensor([label]))
        torch.testing.assert_close(slopes[k], (found.noise - found.data)[0], rtol=1e-12, atol=1e-12)
    assert way.nfe.tolist() == [1, 0, 0, 1]


def test_what_they_cost_is_their_own():
    way = trajectories(Guided(MODEL, 2.0, sigma_range=(1.0, 10.0)), labels=torch.tensor([0, 1, 2, 1]))
    rows, sigmas = np.arange(4), np.array([20.0, 5.0, 2.0, 0.5])
    assert way.affordable(rows, sigmas, 2).tolist() == [True] * 4
    way.evaluate(rows, paths.flow.u(f64(sigmas)).numpy(), normal(4, *MODEL.shape, seed=1))
    assert way.nfe.tolist() == [1, 2, 2, 1]
    assert way.affordable(rows, sigmas, 3).tolist() == [True, False, False, True]


def test_the_norm_is_of_the_worst_member():
    y = normal(4, 3, 5, *MODEL.shape, seed=1)
    each = y.flatten(3).square().sum(3).sqrt()
    torch.testing.assert_close(trajectories(members=5).norms(y), each.amax(2))
    torch.testing.assert_close(trajectories().norms(y[:, :, 0]), each[:, :, 0])


@pytest.mark.parametrize(("numbers", "most"), [(LARGE // 4, 1.0), (LARGE, 1.0), (4 * LARGE, 2.0)])
def test_an_error_at_a_large_sigma_counts_more_in_a_large_image(numbers, most):
    way = trajectories()
    way.size = numbers
    sigmas = np.array([0.0, 0.5, 100.0])
    assert way.weight(sigmas).tolist() == pytest.approx(np.minimum(1 + sigmas, most).tolist())


def test_where_they_have_been():
    way = trajectories(count=3)
    u = paths.flow.u(f64([20.0, 5.0, 0.01])).numpy()
    u[2] = way.end
    way.record(np.arange(3), u, way.sigmas(u), np.array([True, False, True]))
    way.arrive(np.array([2]), torch.ones(1, *MODEL.shape, dtype=torch.float64))
    way.abandon(np.array([0, 1]), u[:2], *torch.zeros(2, 2, *MODEL.shape, dtype=torch.float64))
    found = way.outcome()
    assert found.sigmas[0].tolist()[:3] == pytest.approx([150.0, 20.0, 0.0])
    assert found.sigmas[1].tolist()[:2] == [150.0, 0.0]
    assert found.sigmas[2].tolist()[:3] == [150.0, 0.01, 0.0]
    assert math.isnan(found.sigmas[1][2])
    assert found.rejected.tolist() == [0, 1, 0]
    assert found.converged.tolist() == [False, False, True]
    assert (found.x[2] == 1).all()
    assert (found.x[:2] == 0).all()
