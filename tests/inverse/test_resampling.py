"""RePaint: its interval by hand, its budget, its seeds."""

import math
from dataclasses import replace

import pytest
import torch

import ddim_ode
from ddim_ode.inverse import BoxDownsampling, Mask, MeasurementError, Resampling, restore
from ddim_ode.inverse.resampling import Noise
from ddim_ode.planning.inputs import seeded_noise
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64

SHAPE = (1, 4, 4)
MODEL = labelled(shape=SHAPE).denoiser(ddim_ode.paths.DiscreteVP.linear())
HALF = Mask.half((4, 4))
Y = labelled(shape=SHAPE).sample(3, seed=1)
#: what one interval costs alone
SPENT = {"adams3": 1, "dpmpp_2m": 1, "heun": 2, "exact_heun": 2, "plms": 2, "adams4": 3, "rk4": 4, "reversible_heun": 2}
WHOLE = replace(ddim_ode.METHODS["ddim"], grids=((2.0, 1.0, 0.0),))


@pytest.mark.parametrize("noise_std", [0.0, 0.5])
def test_two_intervals_by_hand(noise_std):
    """Algorithm 1 of the paper, in xbar: 2.0 -> 1.0, up again, down again, and to the image."""
    how = {"solver": "ddim", "grid": [2.0, 1.0, 0.0], "dtype": torch.float64}
    found = restore(MODEL, Y, HALF, method="repaint", times=2, noise_std=noise_std, **how)
    eps, known = Noise(range(3), SHAPE, Y), HALF.known
    x = float(MODEL.path.prior_std(f64(2.0))) * seeded_noise(range(3), SHAPE).double()
    for time in range(2):
        if time:
            x = x + math.sqrt(3) * eps.draw()
        data, noise, _ = MODEL(x, 2.0)
        x = torch.where(known, Y + math.sqrt(1 - noise_std**2) * eps.draw(), data + noise)
    data = MODEL(x, 1.0).data
    gain = 0.5 / (0.5 + noise_std**2)  # r^2 / (r^2 + s^2) at sigma = 1
    expected = torch.where(known, data + gain * (Y - data), data)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-12)
    assert found.nfe.tolist() == [3] * 3
    assert found.sigmas.tolist() == [2, 1, 0]


@pytest.mark.parametrize(("times", "nfe", "intervals"), [(1, 10, 10), (4, 20, 5), (4, 21, 6), (10, 11, 2)])
def test_the_budget_is_that_of_all_times(times, nfe, intervals):
    found = restore(MODEL, Y, HALF, method="repaint", times=times, nfe=nfe)
    assert len(found.sigmas) == intervals + 1
    assert found.nfe.tolist() == [(intervals - 1) * times + 1] * 3
    assert found.nfe.tolist() == found.steps.tolist()


def test_other_solvers():
    """Each interval pays for its own start; one more interval would not fit."""
    for solver, spent in SPENT.items():
        for nfe in (None, 20, 33):
            found = restore(MODEL, Y[:1], HALF, method="repaint", solver=solver, nfe=nfe)
            assert torch.isfinite(found.x).all()
            again = ((nfe or 20) - 1) // (4 * spent)  # intervals but the last
            assert len(found.sigmas) == again + 2
            assert found.nfe.tolist() == [4 * spent * again + 1]


def test_guidance_in_a_range_is_priced_where_it_is():
    how = {"method": "repaint", "solver": "ddim", "labels": [0, 1, 2], "guidance": 2.0, "nfe": 20}
    for within, spent in ((None, [8, 8, 2]), ((0.0, 1.0), [4, 4, 8, 2]), ((1.0, None), [8, 8, 1])):
        found = restore(MODEL, Y, HALF, guidance_range=within, **how)
        assert found.nfe.tolist() == [sum(spent)] * 3
        assert len(found.sigmas) == len(spent) + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nfe": 5, "times": 10}, "nfe=5 is too small for repaint with times=10: two intervals cost 11; use nfe >= 11"),
        ({"nfe": 8, "solver": "exact_heun"}, "two intervals cost 9; use nfe >= 9, or fewer times"),
        ({"nfe": 1, "times": 1}, "two intervals cost 2"),
        ({"nfe": 3, "grid": [2.0, 1.0, 0.0]}, "nfe=3 contradicts an explicit grid that costs 5; leave nfe out"),
        ({"solver": "adaptive"}, "repaint takes one step an interval, and adaptive chooses its own; use 'ddim'"),
        ({"solver": "dopri5", "nfe": 20}, "dopri5 chooses its own"),
        ({"solver": WHOLE}, "repaint goes each interval alone, and this method has whole grids; use 'ddim'"),
    ],
)
def test_what_cannot_be_gone_again_is_one_line(change, words):
    with pytest.raises(MeasurementError) as caught:
        restore(MODEL, Y, HALF, method="repaint", **change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_steps_that_are_too_long_for_a_solver_are_one_line():
    """The first step of PLMS from sigma = 20000 to 4 is a guess by two predictions, of noise."""
    model, (images, _) = ddim_ode.load("fashion"), ddim_ode.data.bundled_images()
    y = ddim_ode.data.to_float(images[:1])
    with pytest.raises(MeasurementError, match=r"plms left what images can be on its way to sigma=3\.95"):
        restore(model, y, Mask.half((28, 28)), method="repaint", solver="plms", nfe=20)


def test_an_explicit_grid_may_be_given_with_what_it_costs():
    found = restore(MODEL, Y, HALF, method="repaint", nfe=5, grid=[2.0, 1.0, 0.0])
    assert found.nfe.tolist() == [5] * 3


def test_noise_is_of_its_seed():
    drawn = Noise([3, 8], SHAPE, Y)
    first, second = drawn.draw(), drawn.draw()
    alone = Noise([8], SHAPE, Y)
    assert torch.equal(alone.draw()[0], first[1])
    assert torch.equal(alone.draw()[0], second[1])
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[1])


def test_it_is_for_masks():
    with pytest.raises(MeasurementError, match="BoxDownsampling has none; use method='mmps'"):
        Resampling(BoxDownsampling(2))


def test_nothing_is_replaced_by_what_is_noisier():
    found = restore(MODEL, Y, HALF, method="repaint", nfe=20, noise_std=0.5)
    plain = restore(MODEL, Y, HALF, method="repaint", nfe=20)
    kept = [sigma for sigma in plain.sigmas.tolist() if sigma > 0.5]
    assert found.sigmas.tolist() == [*kept, 0]
    assert len(kept) < len(plain.sigmas) - 1
    loud = restore(MODEL, Y, HALF, method="repaint", nfe=20, noise_std=1000.0)
    assert loud.sigmas.tolist() == [plain.sigmas[0], 0]
