"""Our methods against the schedulers of diffusers: the same network, start and sigmas, in float32.

A scheduler gets its sigmas from us and keeps its arithmetic, float32 coefficients included. Where its arithmetic is not
the published one, a case of `CASES` says what makes the two equal, and `DIFFERENCES` that without it they are not.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler
from diffusers import DEISMultistepScheduler as DEIS
from diffusers import DPMSolverMultistepScheduler as MULTI
from diffusers import DPMSolverSinglestepScheduler as SINGLE
from diffusers import LMSDiscreteScheduler as LMS
from diffusers import PNDMScheduler as PNDM
from diffusers import UniPCMultistepScheduler as UNIPC
from torch import Tensor

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from ddim_ode.solvers import Method
from ddim_ode.solvers.exponential import HEUN, THIRDS, Adams, SingleStep
from ddim_ode.solvers.weights import Rule, bh1, equal_steps, half, half_quadratic
from tests.helpers.networks import tiny_unet
from tests.helpers.tables import cosine_table, linear_table
from tests.helpers.tensors import normal

pytestmark = [
    pytest.mark.filterwarnings("ignore:.algorithm_types:FutureWarning"),  # it wants users to prefer "dpmsolver++"
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # it gives torch tensors to numpy
]

TOLERANCE = 2e-5  # max abs difference over max abs value; rounding is up to 4e-6
LABELS = torch.tensor([0, 2])
TABLES = {"noise": linear_table(), "velocity": cosine_table()}
RUNS = [("noise", 8), ("velocity", 16)]  # (network, steps); below 15 steps diffusers lowers the last orders


class SolverThree(SINGLE):
    """Alg. 2 of DPM-Solver: its second stage has an exact moment (here "heun"), where diffusers takes m_1 = m_0 / 2."""

    def singlestep_dpm_solver_second_order_update(self, *args: Any, **kwargs: Any) -> Tensor:
        self.register_to_config(solver_type="heun")
        x = super().singlestep_dpm_solver_second_order_update(*args, **kwargs)
        self.register_to_config(solver_type="midpoint")
        return x


class Case(NamedTuple):
    """Ours and theirs.

    parts: steps of theirs in one of ours; those between are stages.
    last: their final sigma, where ours is 0.
    denoise: up to how many steps their last one is of order 1, which to sigma = 0 is our final denoising. With more
        steps, both end at the last sigma above 0.
    next_timestep: correct the one that they compute, see `diffuse`.
    """

    method: str | Method
    scheduler: Callable[..., Any]
    options: Mapping[str, Any] = {}
    parts: int = 1
    last: float = 0.0
    denoise: float = math.inf
    next_timestep: bool = True


def on(path: paths.Path, solver: Adams | SingleStep) -> Method:
    return Method(solver, path, grid="uniform", order=1, evaluations=1, summary="")


def unipc(order: int, rule: Rule) -> Method:
    return on(paths.data, Adams("log_snr", rule, order=order, corrector=True, lower_final=math.inf))


QUADRATIC = SingleStep("log_snr", pieces=(*THIRDS[:2], (1, (0, 1, 2))))
AB4, AB4_EQUAL = Adams("sigma", order=4, to_zero=True), Adams("sigma", equal_steps, True, order=4, start=HEUN)
NOISE_3M = Adams("log_snr", half_quadratic, order=3, lower_final=15)

TINY = 1e-8  # sigma; formulas in exp(h), h the step in log SNR, give NaN at 0
LOWER = {"lower_order_final": True}  # singlestep: end with order 1, which the multistep ones do of their own
NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}  # it refuses "zero", for that reason
EULER = NOISE | {"euler_at_final": True}  # otherwise the last step is of order 1 below 15 steps only
PLMS = {"skip_prk_steps": True, "set_alpha_to_one": True}
EPS = PLMS | {"prediction_type": "epsilon"}  # with "v_prediction" PNDM adds velocities of different times
TWO, THREE, BH1, THEIR_HEUN = {"solver_order": 2}, {"solver_order": 3}, {"solver_type": "bh1"}, {"solver_type": "heun"}

CASES = {
    "ddim": Case("ddim", DDIMScheduler, {"clip_sample": False}),
    "dpm++ 2M": Case("dpmpp_2m", MULTI),
    "dpm++ 2M heun": Case(on(paths.data, Adams("log_snr", order=2)), MULTI, THEIR_HEUN),
    "dpm++ 3M": Case("dpmpp_3m", MULTI, THREE),
    "dpm 2M": Case(on(paths.noise, Adams("log_snr", half, order=2)), MULTI, EULER, last=TINY),
    "dpm 2M heun": Case("deis_log2", MULTI, EULER | THEIR_HEUN, last=TINY),  # the same method
    "dpm 3M": Case(on(paths.noise, NOISE_3M), MULTI, EULER | THREE, last=TINY),
    "dpm++ 2S": Case("dpmpp_2s", SINGLE, LOWER, parts=2),
    "dpm++ 3S heun": Case(on(paths.data, QUADRATIC), SINGLE, LOWER | THREE | THEIR_HEUN, parts=3),
    "dpm 2S": Case("dpm_solver_2", SINGLE, NOISE | LOWER, parts=2, last=TINY),
    "dpm 3S": Case("dpm_solver_3", SolverThree, NOISE | LOWER | THREE, parts=3, last=TINY),
    "dpm 3S heun": Case(on(paths.noise, QUADRATIC), SINGLE, NOISE | LOWER | THREE | THEIR_HEUN, parts=3, last=TINY),
    "unipc 1": Case(unipc(1, half), UNIPC, {"solver_order": 1}),
    "unipc 2": Case("unipc_2", UNIPC, TWO),
    "unipc 3": Case("unipc_3", UNIPC, THREE),
    # B(h) = h multiplies a correction of 0; at sigma = 0 that is inf * 0
    "unipc 1 bh1": Case(unipc(1, bh1), UNIPC, BH1 | {"solver_order": 1}, last=TINY),
    "unipc 2 bh1": Case("unipc_2_bh1", UNIPC, BH1 | TWO, last=TINY),
    "unipc 3 bh1": Case("unipc_3_bh1", UNIPC, BH1 | THREE, last=TINY),
    "deis 1": Case("ddim", DEIS, {"solver_order": 1}, last=TINY),
    "deis 2": Case("deis_log2", DEIS, TWO, last=TINY, denoise=14),
    "deis 3": Case("deis_log3", DEIS, THREE, last=TINY, denoise=14),
    "heun": Case("heun", HeunDiscreteScheduler),
    "lms": Case("lms", LMS, denoise=0),
    "lms to 0": Case(on(paths.noise, AB4), LMS),
    "plms": Case("plms", PNDM, EPS, denoise=0),
    "plms to 0": Case(on(paths.noise, AB4_EQUAL), PNDM, EPS),
}

DIFFERENCES = {
    "the timestep it computes is not the next one": CASES["ddim"]._replace(next_timestep=False),
    "half the moment in stage 2 of DPM-Solver-3": CASES["dpm 3S"]._replace(scheduler=SINGLE),
    "bh1 is NaN at sigma = 0": CASES["unipc 3 bh1"]._replace(last=0.0),
    "DEIS is NaN at sigma = 0": CASES["deis 2"]._replace(last=0.0),
    "LMS steps to sigma = 0 with 4 slopes": CASES["lms"]._replace(denoise=math.inf),
    "PNDM steps to sigma = 0 with 4 slopes": CASES["plms"]._replace(denoise=math.inf),
    "PNDM adds velocities": CASES["plms"]._replace(options=PLMS),
    "3M ends with lower orders below 15 steps": CASES["dpm++ 3M"]._replace(
        options=THREE | {"lower_order_final": False}
    ),
}

SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
ABOVE_ZERO = [
    Case("dpmpp_2m", MULTI, SIGMA_MIN, denoise=0),
    Case("deis_log2", DEIS, TWO, denoise=0),
    Case("dpmpp_3m", MULTI, THREE | SIGMA_MIN, denoise=0),
    Case("deis_log3", DEIS, THREE, denoise=0),
    Case("unipc_2", UNIPC, TWO | SIGMA_MIN, denoise=0),
    Case("unipc_3", UNIPC, THREE | SIGMA_MIN, denoise=0),
]


@cache
def model(predicts: str) -> Denoiser:
    net = tiny_unet()
    # Most of a trained network's noise is its own input; without that, methods hardly differ.
    skip = 1.0 if predicts == "noise" else 0.0
    path = paths.DiscreteVP(TABLES[predicts])
    shape, classes = net.config.shape, net.config.num_classes
    return Denoiser(lambda x, t, c: skip * x + net(x, t, c), path, predicts, shape, classes, dtype=torch.float32)


def grid(predicts: str, steps: int, denoise: bool) -> Tensor:
    """Sigmas of integer timesteps, unevenly apart because of rounding; cosine's last few are beyond float32."""
    timesteps = np.linspace({"noise": 999, "velocity": 980}[predicts], 8, steps).round()
    sigmas = model(predicts).path.sigma(torch.tensor(timesteps))
    return torch.cat([sigmas, torch.zeros(1).double()]) if denoise else sigmas


def start(sigma: Tensor) -> Tensor:
    return (0.5 * normal(2, 1, 8, 8, seed=3) + sigma * normal(2, 1, 8, 8, seed=4)).float()


@cache
def ours(method: str | Method, predicts: str, steps: int, denoise: bool) -> Tensor:
    sigmas = grid(predicts, steps, denoise)
    return sample(model(predicts), method, start=start(sigmas[0]), grid=sigmas, labels=LABELS).x


def theirs(case: Case, predicts: str, steps: int) -> Tensor:
    sigmas = grid(predicts, steps, steps <= case.denoise)
    x = start(sigmas[0])
    positive = sigmas[sigmas > 0]
    stages = [a * (b / a) ** (k / case.parts) for a, b in pairwise(positive) for k in range(case.parts)]
    sigmas = torch.stack([*stages, positive[-1], *sigmas[sigmas == 0].clamp(min=case.last)])

    table = [1.0, *TABLES[predicts]]
    betas = [1 - abar / before for before, abar in pairwise(table)]
    prediction_type = {"noise": "epsilon", "velocity": "v_prediction"}[predicts]
    scheduler = case.scheduler(**({"prediction_type": prediction_type, "trained_betas": betas} | case.options))
    return diffuse(scheduler, model(predicts), sigmas, x, case.next_timestep)


def diffuse(scheduler: Any, model: Denoiser, sigmas: Tensor, x: Tensor, next_timestep: bool) -> Tensor:
    """The loop of a pipeline of diffusers, from xbar at the first sigma to xbar at the last."""
    steps = len(sigmas) - 1
    scale, times = model.path.scale(sigmas), model.path.u(sigmas)
    in_table = isinstance(scheduler, DDIMScheduler | PNDM)  # sigmas are those of integer timesteps
    in_xbar = isinstance(scheduler, HeunDiscreteScheduler | LMS)  # the others are in a xbar
    nodes = list(range(steps))  # at which sigma each evaluation is
    if isinstance(scheduler, HeunDiscreteScheduler):
        nodes = [0, *(n for n in range(1, steps) for _ in range(2))]
    if isinstance(scheduler, PNDM):
        nodes = [0, 1, *range(1, steps)]

    scheduler.set_timesteps(steps)
    if not in_table:
        scheduler.sigmas = sigmas[[*nodes, steps]].float()
        scheduler.set_begin_index(0)
    x = x if in_xbar else (scale[0] * x).float()
    for n, node in enumerate(nodes):
        t = round(times[node].item()) if in_table else times[node]
        if in_table and next_timestep:
            # They take t - T // steps for the next timestep, whatever the timesteps are: give them the T that fits.
            a, b = (0, 1) if isinstance(scheduler, PNDM) and n < 2 else (node, node + 1)
            after = round(times[b].item()) if sigmas[b] > 0 else -1
            scheduler.register_to_config(num_train_timesteps=(round(times[a].item()) - after) * steps)
        out = model.net(scheduler.scale_model_input(x, t), times[node].float().expand(len(x)), LABELS)
        if model.predicts == "velocity" and scheduler.config.prediction_type == "epsilon":
            out = scale[node] * (out + sigmas[node] * x)
        x = scheduler.step(out, t, x).prev_sample
    return x if in_xbar else x / scale[-1]


def error(x: Tensor, reference: Tensor) -> float:
    return ((x - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize(("predicts", "steps"), RUNS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_diffusers(case, predicts, steps):
    expected = theirs(case, predicts, steps)
    assert error(ours(case.method, predicts, steps, steps <= case.denoise), expected) < TOLERANCE


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_differs_where_the_comments_say_so(difference):
    case = DIFFERENCES[difference]
    found = error(ours(case.method, "velocity", 8, denoise=case.denoise >= 8), theirs(case, "velocity", 8))
    assert math.isnan(found) if "NaN" in difference else found > 10 * TOLERANCE


@pytest.mark.parametrize("predicts", TABLES)
def test_no_other_method_would_pass(predicts):
    methods = {case.method for case in CASES.values()}
    for one, other in combinations(methods, 2):
        apart = error(ours(one, predicts, 8, True), ours(other, predicts, 8, True))
        assert apart > 10 * TOLERANCE, (one, other)


@pytest.mark.parametrize("case", ABOVE_ZERO, ids=lambda case: case.method)
def test_lower_orders_before_a_last_sigma_above_zero(case):
    """lower_order_final: the last step is of order 1, the one before of order 2, whichever sigma they lead to."""
    assert error(ours(case.method, "velocity", 8, denoise=False), theirs(case, "velocity", 8)) < TOLERANCE
