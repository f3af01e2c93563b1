"""The vector of a table's numbers, what it makes of noise, and how that changes with each of them."""

import math

import pytest
import torch
from torch import Tensor

from ddim_ode import sample
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import DiscreteVP, Flow, Noise, Path
from ddim_ode.solvers.tuned import tabulated
from ddim_ode.tuning.numbers import CLOSEST, Numbers, in_order
from ddim_ode.tuning.problem import Asked, Samples
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal
from tests.helpers.tuned import FIVE, ddim_table

PATHS = [Noise(0.01, 50.0), Flow(0.007, 999.0), DiscreteVP.linear()]


def numbers(memory: int = 9, scale: float = 1.1) -> Numbers:
    table = ddim_table(FIVE, scale)
    return Numbers.of(table.sigmas, table.scale, table.noise, [f64(row) for row in table.data], memory)


def model_on(path: Path) -> Denoiser:
    return labelled().denoiser(path)


def samples(count: int = 3) -> Samples:
    z = normal(count, 2, 3, seed=5)
    return Samples(z, torch.arange(count), torch.zeros_like(z))


@pytest.mark.parametrize("memory", [1, 2, 9])
def test_the_vector_holds_what_may_be_moved_and_gives_it_back(memory):
    before = numbers(memory)
    vector = before.vector()
    assert len(vector) == before.known[-1] == 1 + 2 * 5 + sum(min(n + 1, memory) for n in range(5))
    after = before.moved(vector, -9.0, 9.0)
    assert after.result() == before.result()
    moved = before.moved(vector + torch.arange(len(vector)) / 1e3, -9.0, 9.0)
    torch.testing.assert_close(moved.vector(), vector + torch.arange(len(vector)) / 1e3)


def test_what_may_not_be_moved_stays():
    before = numbers(memory=2)
    after = before.moved(before.vector() + 0.01, -9.0, 9.0)
    old = torch.ones(5, 5).tril(-2).bool()
    assert torch.equal(after.data[old], before.data[old])
    assert not (after.data == before.data)[torch.ones(5, 5).tril().bool() & ~old].any()


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([2.0, 1.0, 0.0], [2.0, 1.0, 0.0]),
        ([9.0, 1.0, -9.0], [3.0, 1.0, -3.0]),
        ([1.0, 2.0, 0.0], [1.0, 1.0 - CLOSEST, 0.0]),
        ([-9.0, -9.0, -9.0], [-3.0 + 2 * CLOSEST, -3.0 + CLOSEST, -3.0]),
    ],
)
def test_places_come_back_in_order_and_into_the_range(places, expected):
    torch.testing.assert_close(in_order(f64(places), -3.0, 3.0), f64(expected))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_its_images_are_those_that_the_method_samples(path):
    model, some, its = model_on(path), samples(), numbers()
    asked = Asked(model, batch_size=2)
    found = its.images(asked, some)
    drawn = sample(model, tabulated([its.result()]), noise=some.z, labels=some.labels, dtype=torch.float64)
    torch.testing.assert_close(found, drawn.x, rtol=1e-10, atol=1e-10)
    assert asked.passes == int(drawn.nfe.sum()) == 15


@pytest.mark.parametrize("memory", [1, 9])
def test_the_jacobian_is_how_the_images_change(memory):
    """Against central differences of the whole way, one parameter after the other."""
    asked, some, its = Asked(model_on(Noise(0.01, 50.0)), 8), samples(), numbers(memory)
    x, found = its.jacobian(asked, some)
    torch.testing.assert_close(x, its.images(asked, some))
    places = set(its.known[:-1])
    for i in range(len(its.vector())):
        step = torch.zeros(len(its.vector())).double()
        step[i] = 0.1 if i in places else 1e-4  # in log sigma it looks as far as this

        def images(vector: Tensor) -> Tensor:
            return its.moved(vector, asked.low, asked.high).images(asked, some)

        slope = (images(its.vector() + step) - images(its.vector() - step)) / (2 * step[i])
        close = 0.15 if i in places else 0.02
        assert (found[i] - slope).norm() < close * slope.norm() + 1e-4, i


def test_the_price_is_what_the_jacobian_asks():
    asked, some, its = Asked(model_on(Noise(0.01, 50.0)), 8), samples(), numbers()
    its.jacobian(asked, some)
    assert asked.passes == its.price * len(some)
    assert math.log(0.01) == asked.low
