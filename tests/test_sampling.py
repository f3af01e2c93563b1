"""What a sample depends on: its seed, its label, the grid; not its companions, nor anything outside the call."""

import math

import numpy as np
import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.sampling import sample
from ddim_ode.solvers import DivergedError
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Recording, network, tiny_unet
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

VP = PATHS["linear"]
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(VP)


def test_noise_is_a_function_of_its_seed_to_the_bit():
    shape = (1, 28, 28)
    alone = [seeded_noise([seed], shape)[0] for seed in range(16)]
    for seeds in [range(16), range(15, -1, -1), [3, 3, 7], np.arange(5), torch.arange(5), iter([4, 2])]:
        expected = [int(seed) for seed in (seeds if not hasattr(seeds, "__next__") else [4, 2])]
        for row, seed in zip(seeded_noise(seeds, shape), expected, strict=True):
            assert torch.equal(row, alone[seed])


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**32 - 1])
def test_noise_is_torchs_own_for_that_seed(seed):
    expected = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(seeded_noise([seed], (3, 4))[0], expected)


def test_noise_is_standard_normal():
    # Fixed seeds; 65536 values: a standard error of 0.004 for the mean.
    z = seeded_noise(range(64), (32, 32))
    assert abs(float(z.mean())) < 0.02
    assert float(z.std()) == pytest.approx(1, abs=0.015)
    correlation = torch.corrcoef(z.flatten(1))
    assert (correlation - torch.eye(64)).abs().max() < 0.2


def test_a_sample_does_not_see_its_companions():
    model = network()
    labels = [seed % model.num_classes for seed in range(16)] if model.num_classes else None
    whole = sample(model, nfe=5, seeds=range(16), labels=labels).x
    assert torch.equal(sample(model, nfe=5, seeds=range(16), labels=labels).x, whole)  # the same bytes
    for batch_size in (1, 4, 16):
        x = sample(model, nfe=5, seeds=range(16), labels=labels, batch_size=batch_size).x
        assert (x - whole).abs().max() < 1e-4
    backwards = sample(
        model, nfe=5, seeds=range(15, -1, -1), labels=None if labels is None else labels[::-1], batch_size=4
    ).x
    assert (backwards.flip(0) - whole).abs().max() < 1e-4
    assert (whole[0] - whole[1]).abs().max() > 1e-2  # seeds do matter


def test_a_double_state_does_not_see_its_companions_at_all():
    whole = sample(MODEL, nfe=10, seeds=range(16), dtype=torch.float64).x
    for batch_size in (1, 3, 16):
        x = sample(MODEL, nfe=10, seeds=range(16), dtype=torch.float64, batch_size=batch_size).x
        torch.testing.assert_close(x, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("argument", ["noise", "start"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_callers_tensors_are_left_alone(dtype, argument):
    given = normal(4, 2, 3, seed=0, dtype=dtype)
    labels, grid = torch.tensor([0, 1, 2, 0]), f64([150.0, 5.0, 1.0, 0.0])
    copies = given.clone(), labels.clone(), grid.clone()
    sol = sample(MODEL, **{argument: given}, labels=labels, grid=grid, guidance=2.0, dtype=dtype)
    sol.x.zero_()
    sol.sigmas.zero_()
    for tensor, copy in zip((given, labels, grid), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_torchs_own_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(MODEL, nfe=3, seeds=range(4)).x
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sample(MODEL, nfe=3, seeds=range(4)).x, first)


def test_seeds_and_their_noise_are_the_same_start():
    z = seeded_noise(range(3), MIXTURE.shape)
    for dtype in (torch.float32, torch.float64):
        by_seed = sample(MODEL, nfe=7, seeds=range(3), dtype=dtype).x
        assert torch.equal(sample(MODEL, nfe=7, noise=z, dtype=dtype).x, by_seed)
    assert torch.equal(sample(MODEL, nfe=7).x, sample(MODEL, nfe=7, seeds=[0]).x)


@pytest.mark.parametrize(
    ("path", "scale"),
    [
        (VP, math.sqrt(1 + 5.0**2)),  # x = a xbar is a standard normal
        (paths.Noise(0.01, 80.0), 5.0),
        (paths.Flow(0.01, 80.0), 6.0),
        (paths.Angle(0.01, 80.0), math.sqrt(26)),
    ],
)
def test_noise_is_scaled_by_the_prior_of_the_path(path, scale):
    z, net = normal(2, 3, seed=0), Recording()
    sol = sample(Denoiser(net, path, "noise", (3,)), noise=z, grid=[5.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(sol.x, scale * z, rtol=1e-14, atol=0)  # no noise is predicted, so nothing moves
    torch.testing.assert_close(net.calls[0][0], z if path.prior_std(f64(5.0)) != 5.0 else 5 * z, rtol=1e-13, atol=0)


def test_start_is_xbar_and_not_scaled():
    xbar, net = normal(2, 3, seed=0), Recording()
    sol = sample(Denoiser(net, VP, "noise", (3,)), start=xbar, grid=[5.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(net.calls[0][0], xbar / math.sqrt(26), rtol=1e-13, atol=0)
    torch.testing.assert_close(sol.x, xbar, rtol=1e-14, atol=0)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_start_continues_a_trajectory(dtype, k):
    grid = [150.0, 20.0, 3.0, 0.7, 0.1, 0.0]
    labels = [0, 1, 2]
    whole = sample(MODEL, grid=grid, seeds=range(3), labels=labels, dtype=dtype)
    first = sample(MODEL, grid=grid[: k + 1], seeds=range(3), labels=labels, dtype=dtype)
    second = sample(MODEL, grid=grid[k:], start=first.x, labels=labels, dtype=dtype)
    assert torch.equal(second.x, whole.x)
    assert (first.nfe + second.nfe).tolist() == whole.nfe.tolist()


@pytest.mark.parametrize(("final", "grid"), [("denoise", None), ("sigma_min", None), ("denoise", [9.0, 2.0, 0.5])])
def test_the_callback_sees_every_step_of_every_batch(final, grid):
    seen = []
    sol = sample(
        MODEL,
        nfe=None if grid else 5,
        grid=grid,
        final=final,
        seeds=range(5),
        batch_size=2,
        callback=lambda p: seen.append((p.samples, p.step, p.steps, p.sigma, p.xbar.clone())),
    )
    steps = len(sol.sigmas) - 1
    batches = [range(2), range(2, 4), range(4, 5)]
    assert [(p[0], p[1], p[2]) for p in seen] == [(rows, n, steps) for rows in batches for n in range(1, steps + 1)]
    assert [p[3] for p in seen] == sol.sigmas[1:].tolist() * 3
    for rows, step, _, _, xbar in seen:
        assert xbar.shape == (len(rows), *MIXTURE.shape)
        if step == steps:
            assert torch.equal(xbar, sol.x[rows.start : rows.stop])
    inner = sample(MODEL, grid=sol.sigmas[:3], seeds=range(2)).x
    assert torch.equal(seen[1][4], inner)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solution_is_in_the_precision_of_the_state(dtype):
    sol = sample(network(), nfe=2, seeds=range(2), dtype=dtype)
    assert sol.x.dtype == dtype
    assert sol.x.shape == (2, *network().shape)
    assert sol.sigmas.dtype == torch.float64


def test_a_network_in_float32_takes_a_double_state():
    model = Denoiser(tiny_unet(), VP, "noise", (1, 8, 8), 3)
    x = sample(model, nfe=3, seeds=range(2), dtype=torch.float64).x
    exact = sample(model.to(dtype=torch.float64), nfe=3, seeds=range(2), dtype=torch.float64).x
    assert x.dtype == torch.float64
    assert 1e-12 < ((x - exact).abs().max() / exact.abs().max()) < 1e-4


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("predicts", ["velocity", "data"])
def test_a_single_state_is_close_to_a_double_one(name, predicts):
    # Such networks say where the image is without dividing by sqrt(abar), whatever the sigma (20291 on cosine).
    model = MIXTURE.denoiser(PATHS[name], predicts)
    for nfe in (5, 20):
        single, double = (
            sample(model, nfe=nfe, seeds=range(8), dtype=dtype).x for dtype in (torch.float32, torch.float64)
        )
        assert 1e-9 < (single - double).abs().max() < 3e-5


@pytest.mark.parametrize("labels", [1, [1, 1, 1], (1, 1, 1), torch.tensor(1), torch.tensor([1, 1, 1]), np.ones(3, int)])
def test_labels_may_be_one_for_all_or_one_for_each(labels):
    expected = sample(MODEL, nfe=5, seeds=range(3), labels=torch.tensor([1, 1, 1])).x
    assert torch.equal(sample(MODEL, nfe=5, seeds=range(3), labels=labels).x, expected)
    assert (sample(MODEL, nfe=5, seeds=range(3)).x - expected).abs().max() > 1e-3


def test_labels_follow_their_samples_through_the_batches():
    labels = [2, 0, 1, 1, 0]
    together = sample(MODEL, nfe=5, seeds=range(5), labels=labels, dtype=torch.float64).x
    for i, label in enumerate(labels):
        alone = sample(MODEL, nfe=5, seeds=[i], labels=label, dtype=torch.float64).x
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)
    split = sample(MODEL, nfe=5, seeds=range(5), labels=labels, batch_size=2, dtype=torch.float64).x
    torch.testing.assert_close(split, together, rtol=0, atol=1e-12)


def test_the_guidance_argument_is_a_guided_model():
    by_argument = sample(MODEL, nfe=8, seeds=range(3), labels=1, guidance=2.5)
    by_model = sample(Guided(MODEL, 2.5), nfe=8, seeds=range(3), labels=1)
    assert torch.equal(by_argument.x, by_model.x)
    assert by_argument.nfe.tolist() == by_model.nfe.tolist() == [8] * 3


def test_a_run_that_diverges_says_so():
    model = Denoiser(lambda x, t: torch.full_like(x, 1e38), paths.Noise(0.01, 100.0), "noise", (2,))
    with pytest.raises(DivergedError, match="diverged: the state is not finite; use more steps or another method"):
        sample(model, grid=[100.0, 50.0, 10.0, 1.0])
