"""Grids at the quantiles of a logistic distribution of log sigma, and their names."""

import math

import numpy as np
import pytest
import torch

from ddim_ode import METHODS, paths, sample
from ddim_ode.grids import GridError, logistic, make_grid, shape_of
from ddim_ode.support.logistic import Logistic
from tests.helpers.mixtures import labelled

EDM = paths.Noise(0.002, 80.0)
PLACES = [EDM, paths.DiscreteVP.cosine(), paths.DiscreteVP.scaled_linear(), paths.Flow(0.001, 999.0)]
SHAPES = [
    Logistic(),
    Logistic(0.2, 1.2, 3.0, 1.0),
    Logistic(1, 1, 1.6, 1, 3),
    Logistic(1.35, 0.4, 11.0, 1.5),
    Logistic(1.0, 2.5, 2.5, 0.0),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("n", [1, 3, 10, 200])
def test_nodes_begin_at_the_largest_sigma_and_fall(shape, path, n):
    sigmas = shape.nodes(path.sigma_max, path.sigma_min, n)
    assert sigmas.shape == (n,)
    assert sigmas[0] == path.sigma_max
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] >= path.sigma_min
    if shape.left == 0 and n > 1:
        assert sigmas[-1] == path.sigma_min


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_share_is_between_two_nodes_and_left_steps_are_below_the_last(shape):
    def share(sigma: float) -> float:  # the density on each side, integrated in steps
        z = np.linspace(-40, math.log(sigma / shape.centre), 400_001)
        density = 1 / np.cosh(z / np.where(z < 0, shape.below, shape.above) / 2) ** 2
        return float(np.trapezoid(density, z))

    shares = np.array([share(float(sigma)) for sigma in [*shape.nodes(80.0, 0.002, 8), torch.tensor(EDM.sigma_min)]])
    steps = -np.diff(shares)
    assert steps[1:7] == pytest.approx(np.full(6, steps[1]), rel=1e-4)
    assert steps[0] == pytest.approx(shape.first * steps[1], rel=1e-4)
    assert steps[7] == pytest.approx(shape.left * steps[1], rel=1e-3, abs=1e-6)


def test_with_ones_it_is_even_in_the_time_of_a_flow():
    path = paths.Flow(0.001, 999.0)
    times = path.u(Logistic(1, 1, 1, 1).nodes(999.0, 0.001, 9))
    assert times.tolist() == pytest.approx(path.u(make_grid("trailing", path, 9, "denoise")[:-1]).tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("logistic", Logistic()),
        ("logistic:1", Logistic(1)),
        ("logistic:1:2", Logistic(1, 2, 2)),
        ("logistic:0.5:2:3", Logistic(0.5, 2, 3)),
        ("logistic:0.5:2:3:0", Logistic(0.5, 2, 3, 0)),
        ("logistic:0.5:2:3:0:3", Logistic(0.5, 2, 3, 0, 3)),
    ],
)
def test_a_name_may_have_numbers(text, shape):
    assert shape_of(text) == shape
    assert Logistic.named(str(shape)) == shape
    sigmas = make_grid(text, EDM, 7, "denoise")
    assert torch.equal(sigmas[:-1], shape.nodes(80.0, 0.002, 7))
    assert make_grid(text, EDM, 7, "sigma_min")[-1] == EDM.sigma_min
    model = labelled(shape=(4, 4)).denoiser(EDM)
    assert torch.equal(sample(model, "dpmpp_2m", 7, range(2), grid=text).sigmas, sigmas)


@pytest.mark.parametrize(
    "numbers", ["", "a", "1:2:3:4:5:6", "1:1:1:1:0", "0", "1:0", "nan", "1:1:1:-1", "1:1:1:inf", "1:2:3:11"]
)
def test_a_name_of_no_distribution_is_refused(numbers):
    with pytest.raises(GridError, match="is no distribution; give the sigma of its centre"):
        make_grid(f"logistic:{numbers}", EDM, 7, "denoise")


@pytest.mark.parametrize("shape", [None, 3, "logistic", Logistic(-1), Logistic(1, 0.01), Logistic(1, 1, 1, math.nan)])
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(GridError, match=r"is no distribution; give Logistic\("):
        logistic(EDM, 5, shape)


def test_every_method_has_a_grid_for_every_path():
    for method in METHODS.values():
        for path in PLACES:
            if method.grid:
                assert len(make_grid(method.grid, path, 6, "denoise")) == 7
