"""DDIM is the paper's Eq. 12 to the last digits: against a loop that knows an alphas_cumprod table and nothing else.

x_{t-1} = sqrt(abar_{t-1}) (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t) + sqrt(1 - abar_{t-1}) eps        (eta = 0)
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from tests.helpers.mixtures import labelled
from tests.helpers.networks import network, random_network
from tests.helpers.tables import cosine_table, linear_table

TOLERANCE = 1e-12  # max abs difference over max abs value, in float64

# At cosine's largest sigma, 20291, Eq. 12 divides what is left of x - sqrt(1 - abar) eps by 5e-5: in double precision
# its own rounding is 1e-11 of the image. Extended precision leaves the library's rounding alone to be measured.
EXTENDED = np.longdouble
extended_only = pytest.mark.skipif(np.finfo(EXTENDED).eps > 1e-18, reason="no extended precision on this machine")

T = 1000


def coefficients(table: list[float], ts: list[float], final: str) -> list[tuple[Any, Any]]:
    """(abar, 1 - abar) at each timestep, log sigma linear between two of them; (1, 0) after the last if denoising."""
    log_sigma = [np.log((1 - abar) / abar) / 2 for abar in np.array(table, EXTENDED)]
    result = []
    for t in ts:
        k, weight = int(t), EXTENDED(t) - int(t)
        between = log_sigma[k] if weight == 0 else (1 - weight) * log_sigma[k] + weight * log_sigma[k + 1]
        snr = np.exp(-2 * between)
        result.append((snr / (1 + snr), 1 / (1 + snr)))
    return [*result, (EXTENDED(1), EXTENDED(0))] if final == "denoise" else result  # set_alpha_to_one=True


def timesteps(grid: str, steps: int, final: str) -> list[float]:
    """Where the network is evaluated and, with "sigma_min", where the last step ends."""
    if grid == "leading":
        ratio = T // steps
        if final == "denoise":
            return [float(i * ratio) for i in range(steps - 1, -1, -1)]
        return [*(float(i * ratio + 1) for i in range(steps - 1, -1, -1)), 0.0]  # steps_offset=1
    nodes = steps if final == "denoise" else steps + 1
    first = T - 1.0 if grid == "uniform" else math.sqrt(0.8 * T)
    even = [first * (1 - i / max(nodes - 1, 1)) for i in range(nodes)]
    return even if grid == "uniform" else [r**2 for r in even]


def eq12(eps: Any, table: list[float], ts: list[float], final: str, seeds: Sequence[int]) -> Tensor:
    """The deterministic DDIM loop from the seeds' noise; returns the image."""
    z = torch.stack([torch.randn(eps.shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    x = z.numpy().astype(EXTENDED)
    alphas = coefficients(table, ts, final)
    for t, (abar, rest), (abar_next, rest_next) in zip(ts, alphas, alphas[1:], strict=False):
        e = eps(x, t, abar, rest)
        x = np.sqrt(abar_next) * (x - np.sqrt(rest) * e) / np.sqrt(abar) + np.sqrt(rest_next) * e
    return torch.from_numpy((x / np.sqrt(alphas[-1][0])).astype(np.float64))


class MixtureEps:
    """The noise in x_t according to a mixture's closed form."""

    def __init__(self):
        self.mixture = labelled(shape=(3, 4), seed=5)
        self.shape = (3, 4)

    def __call__(self, x: Any, t: float, abar: Any, rest: Any) -> Any:
        xbar = torch.from_numpy((x / np.sqrt(abar)).astype(np.float64))
        return self.mixture.denoise(xbar, float(np.sqrt(rest / abar)))[1].numpy().astype(EXTENDED)


class NetworkEps:
    """The noise in x_t according to a network in double precision, called as DDPM calls it."""

    def __init__(self, model: Denoiser):
        self.model = model.to(dtype=torch.float64)
        self.shape = self.model.shape
        self.table = self.model.path.alphas_cumprod.tolist()

    def __call__(self, x: Any, t: float, abar: Any, rest: Any) -> Any:
        with torch.no_grad():
            out = self.model.net(torch.from_numpy(x.astype(np.float64)), torch.full((len(x),), t, dtype=torch.float64))
        out = out.numpy().astype(EXTENDED)
        if self.model.predicts == "noise":
            return out
        assert self.model.predicts == "velocity"
        return np.sqrt(abar) * out + np.sqrt(rest) * x


def relative(x: Tensor, expected: Tensor) -> float:
    return float((x - expected).abs().max() / expected.abs().max())


#: 1000 steps with one timestep more, and 0 left for the end, would need timestep 1000
IMPOSSIBLE = ("leading", 1000, "sigma_min")

COMBINATIONS = [
    (grid, steps, final)
    for grid in ("uniform", "leading", "quadratic")
    for steps in (1, 7, 10, 50, 1000)
    for final in ("denoise", "sigma_min")
    if (grid, steps, final) != IMPOSSIBLE
]


@pytest.mark.parametrize(
    ("schedule", "grid", "steps", "final"),
    [
        (schedule, *combination)
        for schedule in ("linear", "cosine")
        for combination in COMBINATIONS
        # One ulp of eps at sigma = 20291 is 4.5e-12 of the image, and no step comes after to forgive it.
        if schedule == "linear" or combination[:2] != ("uniform", 1)
    ],
)
def test_ddim_is_equation_12_on_a_mixture(schedule, grid, steps, final):
    eps = MixtureEps()
    table, predicts = (linear_table(), "noise") if schedule == "linear" else (cosine_table(), "velocity")
    path = paths.DiscreteVP(torch.tensor(table, dtype=torch.float64))
    sol = sample(
        eps.mixture.denoiser(path, predicts),
        method="ddim",
        nfe=steps,
        grid=grid,
        final=final,
        seeds=(0, 1),
        dtype=torch.float64,
    )
    assert sol.nfe.tolist() == [steps, steps]
    assert relative(sol.x, eq12(eps, table, timesteps(grid, steps, final), final, (0, 1))) <= TOLERANCE


def check_network(model: Denoiser, grid: str, steps: int, final: str) -> None:
    eps = NetworkEps(model)
    seeds = (0, 1) if steps < 50 else (0,)
    sol = sample(eps.model, method="ddim", nfe=steps, grid=grid, final=final, seeds=seeds, dtype=torch.float64)
    assert sol.nfe.tolist() == [steps] * len(seeds)
    assert relative(sol.x, eq12(eps, eps.table, timesteps(grid, steps, final), final, seeds)) <= TOLERANCE


@extended_only
@pytest.mark.parametrize(("grid", "steps", "final"), [c for c in COMBINATIONS if c[1] != 1000])
def test_ddim_is_equation_12_on_the_network_that_ships(grid, steps, final):
    check_network(network(), grid, steps, final)


@extended_only
@pytest.mark.parametrize(
    "model", [pytest.param(random_network, id="random"), pytest.param(network, id="shipped", marks=pytest.mark.slow)]
)
def test_ddim_is_equation_12_on_a_network_in_a_thousand_steps(model):
    check_network(model(), "uniform", 1000, "denoise")


def test_the_comparison_would_notice_a_hundredth_of_a_timestep():
    eps, table = MixtureEps(), linear_table()
    path = paths.DiscreteVP(torch.tensor(table, dtype=torch.float64))
    ts = timesteps("uniform", 10, "denoise")
    x = sample(eps.mixture.denoiser(path), nfe=10, seeds=(0, 1), grid="uniform", dtype=torch.float64).x
    assert relative(x, eq12(eps, table, ts, "denoise", (0, 1))) <= TOLERANCE
    assert relative(x, eq12(eps, table, [*ts[:5], ts[5] + 0.01, *ts[6:]], "denoise", (0, 1))) > 1e-7
