"""RePaint: its interval by hand, its budget, its seeds."""

import math

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


@pytest.mark.parametrize(("times", "nfe", "intervals"), [(1, 10, 10), (4, 20, 5), (4, 21, 6), (10, 5, 1)])
def test_the_budget_is_that_of_all_times(times, nfe, intervals):
    found = restore(MODEL, Y, HALF, method="repaint", times=times, nfe=nfe)
    assert len(found.sigmas) == intervals + 1
    assert found.nfe.tolist() == [(intervals - 1) * times + 1] * 3
    assert found.nfe.tolist() == found.steps.tolist()


def test_other_solvers_and_an_adaptive_one():
    for how in ({"solver": "heun", "nfe": 21}, {"solver": "adams3", "nfe": 20}, {"solver": "adaptive", "tol": 0.05}):
        found = restore(MODEL, Y, HALF, method="repaint", **how)
        assert torch.isfinite(found.x).all()
        assert found.converged.all()
        assert "nfe" not in how or int(found.nfe.max()) <= how["nfe"]


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
