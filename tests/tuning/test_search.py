"""Least squares, the search, and Gauss-Newton, on flows that are known."""

import math

import pytest
import torch

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.models.fields import GaussianField
from ddim_ode.paths import Noise
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import METHODS
from ddim_ode.tuning import greedy
from ddim_ode.tuning.greedy import family, fitted, least_squares, search
from ddim_ode.tuning.grid import best_named
from ddim_ode.tuning.numbers import Numbers
from ddim_ode.tuning.problem import Asked, Samples, Trajectories, missed, solved
from ddim_ode.tuning.refine import refine
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

PATH = Noise(0.01, 50.0)
SIZE = 1.0  # of the mixture's images, about


@pytest.fixture(scope="module")
def mixture() -> tuple[Asked, Samples]:
    asked = Asked(labelled(shape=(1, 4, 4), components=12).denoiser(PATH), 128)
    return asked, solved(asked, range(24), torch.arange(24) % 3, SolveOptions(), SIZE)


def searched(asked, count, few, way, told) -> Numbers:
    return search(asked, count, few, way, memory=count, size=SIZE, limit=10**9, told=told)


def quiet(*told: object) -> None:
    pass


def test_least_squares_finds_what_a_target_is_made_of():
    columns = [normal(6, 2, 3, seed=k) for k in range(3)]
    target = 0.5 * columns[0] - 2 * columns[1] + 1e-3 * columns[2]
    torch.testing.assert_close(
        least_squares(columns, target, torch.ones(6)), f64([0.5, -2, 1e-3]), rtol=1e-6, atol=1e-8
    )


def test_a_sample_that_ends_elsewhere_has_little_to_say():
    columns = [normal(30, 5, seed=1)]
    target = 2 * columns[0]
    target[0] += 50
    alone = least_squares(columns, target, torch.ones(30))
    found, _ = fitted(columns, target)
    assert abs(float(found) - 2) < 1e-3 < abs(float(alone) - 2)


def test_trajectories_are_the_exact_flow():
    field = GaussianField((1, 8, 8))
    model = field.denoiser(PATH)
    some = Samples(normal(3, 1, 8, 8, seed=0), None, torch.zeros(3, 1, 8, 8).double())
    way = Trajectories(Asked(model, 128), some)
    for sigma in (30.0, 3.3, 0.4, 0.03):
        exact = field.flow(50.0 * some.z, 50.0, sigma) / math.sqrt(1 + sigma**2)
        assert float(missed(way.at(math.log(sigma)), exact).max()) < 2e-4


def test_the_family_goes_from_its_first_sigma_to_its_last():
    sigmas = family(6, math.log(20), math.log(0.1), 0.3)
    assert sigmas[0] == pytest.approx(20)
    assert sigmas[-1] == pytest.approx(0.1)
    assert sigmas == sorted(sigmas, reverse=True)


def test_the_search_beats_its_first_guess_and_refining_beats_the_search(mixture, monkeypatch):
    asked, some = mixture
    few = some.part(slice(0, 16))
    way = Trajectories(asked, few)
    tried: list[float] = []
    found = searched(asked, 5, few, way, tried.append)
    assert 3 < len(tried) <= greedy.TRIES
    errors = missed(found.images(asked, few), few.x)
    assert float(errors.median()) < 0.8 * tried[0]
    seen: list[float] = []
    better = refine(asked, found, some, 10**9, lambda e: seen.append(float((e**2).log().mean())))
    assert seen[-1] < seen[0] - 0.1
    assert isinstance(better, Numbers)
    assert float(missed(better.images(asked, some), some.x).log().mean()) < float(
        missed(found.images(asked, some), some.x).log().mean()
    )
    monkeypatch.setattr(greedy, "TRIES", 3)
    tried.clear()
    searched(asked, 5, few, way, tried.append)
    assert len(tried) == 3


def test_refining_ends_within_its_limit(mixture):
    asked, some = mixture
    way = Trajectories(asked, some.part(slice(0, 16)))
    found = searched(asked, 4, some.part(slice(0, 16)), way, quiet)
    begin = found.moved(found.vector() * 1.05, asked.low, asked.high)  # from where there is much to gain
    seen: list[object] = []
    room = len(some) * begin.count  # to look at where it begins
    refine(asked, begin, some, asked.passes + room, seen.append)
    assert len(seen) == 2  # the price of an iteration is known after the first
    refine(asked, begin, some, asked.passes, seen.append)
    assert len(seen) == 3


def test_chunks_of_samples_give_the_same_numbers(mixture, monkeypatch):
    asked, some = mixture
    way = Trajectories(asked, some.part(slice(0, 16)))
    begin = searched(asked, 3, some.part(slice(0, 16)), way, quiet)
    limit = asked.passes
    whole = refine(asked, begin, some, limit, quiet)
    monkeypatch.setattr("ddim_ode.tuning.refine.MEMORY", 5000)
    parts = refine(asked, begin, some, limit, quiet)
    torch.testing.assert_close(parts.vector(), whole.vector(), rtol=1e-3, atol=1e-4)


def test_a_grid_begins_where_the_best_named_one_is_and_is_moved_from_there(mixture):
    asked, some = mixture
    tried: list[float] = []
    begin = best_named(asked, METHODS["adams3"], 6, some, tried.append)
    found = refine(asked, begin, some, 10**9, quiet)
    before, after = (float(missed(p.images(asked, some), some.x).log().mean()) for p in (begin, found))
    assert after < before - 0.05
    assert found.result()[0] == pytest.approx(50.0)
    assert found.result()[-1] == 0.0


@pytest.mark.parametrize("path", [Noise(0.001, 0.2), Noise(20, 1000), Noise(1e-5, 0.05), Noise(0.1, 0.3)])
def test_the_search_begins_within_any_range(path):
    asked = Asked(labelled(shape=(1, 4, 4), components=12).denoiser(path), 128)
    some = Samples(normal(16, 1, 4, 4, seed=0), torch.arange(16) % 3, normal(16, 1, 4, 4, seed=1))
    for count in (2, 6):
        found = searched(asked, count, some, Trajectories(asked, some), quiet)
        assert asked.low <= float(found.u[-1]) < float(found.u[0]) <= asked.high


def test_the_search_ends_at_its_limit(mixture):
    asked, some = mixture
    few = some.part(slice(0, 16))
    tried: list[float] = []
    search(asked, 5, few, Trajectories(asked, few), memory=5, size=SIZE, limit=asked.passes + 200, told=tried.append)
    assert len(tried) == 3  # of 80 passes each


def test_a_step_that_fails_costs_that_step_alone(mixture):
    asked, some = mixture
    begin = searched(asked, 4, some.part(slice(0, 16)), Trajectories(asked, some.part(slice(0, 16))), quiet)
    begin = begin.moved(begin.vector() * 1.05, asked.low, asked.high)
    calls = 0

    def failing(self, asked, samples):
        nonlocal calls
        calls += 1
        if calls == 2:  # the first trial
            raise NonFiniteError(1.0, 0)
        return images(self, asked, samples)

    images = Numbers.images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Numbers, "images", failing)
        found = refine(asked, begin, some, 10**9, quiet)
    before, after = (float(missed(one.images(asked, some), some.x).log().mean()) for one in (begin, found))
    assert after < before - 0.5


def test_trajectories_are_followed_in_batches(mixture):
    asked, some = mixture
    one, many = (Trajectories(Asked(asked.model, size), some) for size in (128, 5))
    torch.testing.assert_close(many.states, one.states, rtol=1e-5, atol=1e-5)
