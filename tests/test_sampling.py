"""What a run costs, what it depends on, and what it refuses."""

import math
import re

import numpy as np
import pytest
import torch
from helpers import PATHS, Counting, Recording, f64, labelled, network, normal, tiny_unet

from ddim_ode import paths
from ddim_ode.denoiser import Denoiser
from ddim_ode.grids import GridError, make_grid
from ddim_ode.guidance import GuidanceError, Guided
from ddim_ode.sampling import SampleError, sample, seeded_noise
from ddim_ode.solvers import DivergedError, MethodError

VP = PATHS["linear"]
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(VP)
BUDGETS = range(1, 26)


def counted() -> tuple[Counting, Denoiser]:
    counting = Counting(MODEL.net)
    return counting, Denoiser(counting, VP, "noise", MIXTURE.shape, MIXTURE.num_classes)


# --- cost


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("grid", [None, "leading", "trailing", "quadratic", "log_snr"])
@pytest.mark.parametrize("nfe", BUDGETS)
def test_the_budget_is_spent_to_the_last_evaluation(nfe, grid, final):
    counting, model = counted()
    sol = sample(model, nfe=nfe, grid=grid, final=final, seeds=range(3))
    assert sol.nfe.tolist() == [nfe] * 3
    assert counting.rows == 3 * nfe
    assert sol.nfe.dtype == torch.int64
    assert sol.steps.tolist() == [len(sol.sigmas) - 1] * 3 == [nfe] * 3
    assert sol.rejected.tolist() == [0] * 3
    assert float(sol.sigmas[-1]) == (0 if final == "denoise" else pytest.approx(VP.sigma_min, rel=1e-12))


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("nfe", range(2, 26))
def test_guidance_costs_two_evaluations_a_prediction(nfe, final):
    counting, model = counted()
    sol = sample(model, nfe=nfe, final=final, seeds=range(3), labels=[0, 1, 2], guidance=2.0)
    assert sol.nfe.tolist() == [nfe - nfe % 2] * 3
    assert counting.rows == int(sol.nfe.sum())
    assert sol.steps.tolist() == [nfe // 2] * 3


RANGES = [(0.0, 1.0), (0.1, 5.0), (1.0, math.inf), (3.0, 4.0), (1e-9, 2e-9)]


@pytest.mark.parametrize("sigma_range", RANGES)
@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("grid", ["uniform", "leading", "quadratic", "angle"])
def test_guidance_in_a_part_of_the_range_spends_the_most_it_can(grid, final, sigma_range):
    low, high = sigma_range
    costs = {}
    for intervals in range(1, 26):
        passes = make_grid(grid, VP, intervals, final)[:-1].tolist()
        costs[intervals] = sum(2 if low <= sigma <= high else 1 for sigma in passes)
    for nfe in BUDGETS:
        counting, model = counted()
        guided = Guided(model, 2.0, sigma_range=sigma_range)
        affordable = [cost for cost in costs.values() if cost <= nfe]
        if not affordable:
            least = min(costs.values())
            with pytest.raises(SampleError, match=f"nfe={nfe} is too small.*use nfe >= {least}"):
                sample(guided, nfe=nfe, grid=grid, final=final, labels=1)
            continue
        sol = sample(guided, nfe=nfe, grid=grid, final=final, seeds=range(2), labels=1)
        assert sol.nfe.tolist() == [max(affordable)] * 2, f"nfe={nfe}"
        assert counting.rows == int(sol.nfe.sum())


def test_too_small_a_budget_names_the_smallest_that_works():
    with pytest.raises(SampleError, match="nfe=1 is too small: one step costs 2 evaluations; use nfe >= 2"):
        sample(MODEL, nfe=1, labels=0, guidance=3.0)
    assert sample(MODEL, nfe=2, labels=0, guidance=3.0).nfe.tolist() == [2]


@pytest.mark.parametrize(
    ("grid", "final", "spent"),
    [("leading", "denoise", 1000), ("leading", "sigma_min", 999), ("trailing", "sigma_min", 666)],
)
def test_a_budget_larger_than_the_schedule_is_not_spent(grid, final, spent):
    assert sample(MODEL, nfe=1500, grid=grid, final=final).nfe.tolist() == [spent]
    with pytest.raises(GridError, match=r"1001|strictly decreasing"):
        make_grid(grid, MODEL.path, spent + 1, final)


@pytest.mark.parametrize(
    ("grid", "final", "nfe", "spent"),
    [
        ("leading", "denoise", 1500, 1500),
        ("trailing", "denoise", 2000, 2000),
        ("leading", "sigma_min", 1000, 1000),
        ("trailing", "sigma_min", 1000, 1000),
        ("quadratic", "sigma_min", 1000, 1000),
    ],
)
def test_a_guided_budget_is_for_passes_and_not_for_timesteps(grid, final, nfe, spent):
    sol = sample(MODEL, nfe=nfe, grid=grid, final=final, labels=1, guidance=2.0)
    assert sol.nfe.tolist() == [spent]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(
    ("grid", "cost"), [([5.0, 0.0], 1), ([5.0, 0.5], 1), ([100.0, 5.0, 1.0, 0.0], 3), ([100.0, 5.0, 1.0, 0.02], 3)]
)
def test_an_explicit_grid_costs_one_evaluation_an_interval(grid, cost, guidance):
    passes = cost * (1 if guidance == 1 else 2)
    for nfe in (None, passes):
        counting, model = counted()
        sol = sample(model, grid=grid, nfe=nfe, seeds=range(2), labels=1, guidance=guidance)
        assert sol.nfe.tolist() == [passes] * 2
        assert counting.rows == 2 * passes
        assert sol.sigmas.tolist() == grid
    for nfe in (passes - 1, passes + 1):
        with pytest.raises(SampleError, match=f"nfe={nfe} contradicts an explicit grid that costs {passes}; leave nfe"):
            sample(MODEL, grid=grid, nfe=nfe, labels=1, guidance=guidance)


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 5), (2, 3), (5, 1), (128, 1), (None, 1)])
def test_each_sample_is_charged_once_whatever_the_batches(batch_size, batches):
    sizes = []

    def net(x, t, labels):
        sizes.append(len(x))
        return torch.zeros_like(x)

    sol = sample(Denoiser(net, VP, "noise", (2,), 3), nfe=4, seeds=range(5), batch_size=batch_size)
    assert sol.nfe.tolist() == [4] * 5
    assert len(sizes) == 4 * batches
    assert sum(sizes) == 20


# --- what a sample depends on


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


# --- what it refuses

PLAIN = Denoiser(Recording(), VP, "noise", (2, 3))

REFUSED = {
    "method": (MODEL, {"method": "dimm"}, MethodError, "unknown method 'dimm'; did you mean 'ddim'? choose one of "),
    "final": (MODEL, {"final": "zero"}, SampleError, "final='zero' is unknown; choose 'denoise' or 'sigma_min'"),
    "grid": (MODEL, {"grid": "karas"}, GridError, "unknown grid 'karas'; did you mean 'karras'?"),
    "grid up": (MODEL, {"grid": [1.0, 2.0]}, GridError, "decreasing"),
    "grid high": (
        MODEL,
        {"grid": [1e4, 1.0]},
        GridError,
        "the grid starts at sigma=10000; the model was trained up to",
    ),
    "nfe 0": (MODEL, {"nfe": 0}, SampleError, "nfe=0 must be a whole number >= 1"),
    "nfe negative": (MODEL, {"nfe": -5}, SampleError, "nfe=-5 must be a whole number >= 1"),
    "nfe fraction": (MODEL, {"nfe": 2.5}, SampleError, "nfe=2.5 must be a whole number >= 1"),
    "nfe bool": (MODEL, {"nfe": True}, SampleError, "nfe=True must be a whole number >= 1"),
    "nfe nan": (MODEL, {"nfe": math.nan}, SampleError, "nfe=nan must be a whole number >= 1"),
    "nfe inf": (MODEL, {"nfe": math.inf}, SampleError, "nfe=inf must be a whole number >= 1"),
    "nfe word": (MODEL, {"nfe": "ten"}, SampleError, "must be a whole number >= 1"),
    "batch_size": (MODEL, {"batch_size": 0}, SampleError, "batch_size=0 must be a whole number >= 1"),
    "batch_size fraction": (MODEL, {"batch_size": 1.5}, SampleError, "batch_size=1.5 must be a whole number >= 1"),
    "dtype half": (MODEL, {"dtype": torch.float16}, SampleError, "use torch.float32 or torch.float64"),
    "dtype int": (MODEL, {"dtype": torch.int64}, SampleError, "dtype=torch.int64 is no dtype for a state"),
    "no seeds": (MODEL, {"seeds": []}, SampleError, "seeds is empty; give at least one"),
    "seed negative": (MODEL, {"seeds": [1, -1]}, SampleError, "seed -1 is not a whole number in 0..2^32-1"),
    "seed large": (MODEL, {"seeds": [2**32]}, SampleError, f"seed {2**32} is not a whole number in 0..2^32-1"),
    "seed fraction": (MODEL, {"seeds": [0.5]}, SampleError, "seed 0.5 is not a whole number"),
    "seed bool": (MODEL, {"seeds": [True]}, SampleError, "seed True is not a whole number"),
    "seed nan": (MODEL, {"seeds": [math.nan]}, SampleError, "seed nan is not a whole number"),
    "seed word": (MODEL, {"seeds": ["a"]}, SampleError, "seed 'a' is not a whole number"),
    "seeds int": (MODEL, {"seeds": 3}, SampleError, "seeds"),
    "two starts": (
        MODEL,
        {"seeds": [0], "noise": torch.zeros(1, 2, 3)},
        SampleError,
        "seeds and noise exclude each other; give one",
    ),
    "three starts": (
        MODEL,
        {"seeds": [0], "noise": torch.zeros(1, 2, 3), "start": torch.zeros(1, 2, 3)},
        SampleError,
        "seeds and noise and start exclude each other",
    ),
    "noise shape": (
        MODEL,
        {"noise": torch.zeros(1, 3, 2)},
        SampleError,
        "noise has shape (1, 3, 2); this model needs (B, ",
    ),
    "noise without batch": (MODEL, {"noise": torch.zeros(2, 3)}, SampleError, "noise has shape (2, 3)"),
    "noise scalar": (MODEL, {"noise": torch.tensor(1.0)}, SampleError, "noise has shape ()"),
    "noise empty": (MODEL, {"noise": torch.zeros(0, 2, 3)}, SampleError, "noise has shape (0, 2, 3)"),
    "start shape": (MODEL, {"start": torch.zeros(1, 3, 2)}, SampleError, "start has shape (1, 3, 2)"),
    "noise nan": (MODEL, {"noise": torch.full((1, 2, 3), math.nan)}, SampleError, "noise holds NaN or infinity"),
    "start inf": (MODEL, {"start": torch.full((1, 2, 3), math.inf)}, SampleError, "start holds NaN or infinity"),
    "label large": (MODEL, {"labels": 3}, SampleError, "label 3 does not exist; this model has labels 0..2"),
    "label negative": (MODEL, {"labels": [-1]}, SampleError, "label -1 does not exist"),
    "label float": (
        MODEL,
        {"labels": 1.0},
        SampleError,
        "labels are torch.float32; they must be whole numbers in 0..2",
    ),
    "label bool": (MODEL, {"labels": True}, SampleError, "labels are torch.bool; they must be whole numbers"),
    "labels count": (
        MODEL,
        {"labels": [0, 1, 2], "seeds": range(2)},
        SampleError,
        "labels have shape (3,); give one label, or one a sample (2)",
    ),
    "labels none": (PLAIN, {"labels": 0}, SampleError, "this model has no classes; leave labels out"),
    "guidance none": (PLAIN, {"guidance": 2.0}, GuidanceError, "guidance=2 needs a class-conditional model"),
    "guidance nan": (MODEL, {"guidance": math.nan, "labels": 0}, GuidanceError, "guidance=nan is not finite"),
    "no range": (
        MIXTURE.denoiser(paths.noise),
        {},
        GridError,
        "needs a finite range of sigma, and this model's is [0, inf]; give its path sigma_min and sigma_max",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_cannot_be_are_refused(case):
    model, arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)):
        sample(model, **arguments)


def test_every_refusal_is_a_value_error():
    assert all(issubclass(error, ValueError) for _, _, error, _ in REFUSED.values())


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="num_steps"):
        sample(MODEL, num_steps=10)


def test_a_network_in_float32_takes_a_double_state():
    model = Denoiser(tiny_unet(), VP, "noise", (1, 8, 8), 3)
    x = sample(model, nfe=3, seeds=range(2), dtype=torch.float64).x
    exact = sample(model.to(dtype=torch.float64), nfe=3, seeds=range(2), dtype=torch.float64).x
    assert x.dtype == torch.float64
    assert 1e-12 < ((x - exact).abs().max() / exact.abs().max()) < 1e-4
