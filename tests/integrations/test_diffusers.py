"""`ODEScheduler` inside the pipelines of diffusers: the images of `sample`, and of diffusers' own DDIM."""

import re
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ddim_ode import paths
from ddim_ode.checkpoints.scheduler_config import PREDICTION, ScheduleError
from ddim_ode.errors import DDIMError
from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from ddim_ode.models.denoiser import Denoiser, DenoiserError, NonFiniteError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.sampling import sample
from ddim_ode.solvers import METHODS, MethodError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import NET, SHAPE, network, pictures, pipeline
from tests.helpers.tables import linear_table
from tests.helpers.tensors import normal

ON_GRIDS = [name for name, row in METHODS.items() if row.deterministic and not row.adaptive]
FLOW = FlowMatchEulerDiscreteScheduler()
SIX = ["ddim", "heun", "dpmpp_2m", "unipc_2", "adams4", "rk4"]


def ours(method: str, n: int | None, predicts: str = "noise", seed: int = 3, **options: Any) -> Tensor:
    model = Denoiser(
        lambda x, t: NET(x, t).sample, paths.DiscreteVP(linear_table()), predicts, SHAPE, dtype=torch.float32
    )
    if not options.keys() & {"start", "noise"}:
        options["noise"] = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return sample(model, method, n, **options).x


def shown(x: Tensor) -> Tensor:
    """As pipelines show images, in [0, 1]."""
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("method", ON_GRIDS)
def test_a_pipeline_makes_the_samples_of_sample(method):
    pipe, before = pipeline(ODEScheduler(method=method)), NET.calls
    found = pictures(pipe, 9)
    assert NET.calls - before == len(pipe.scheduler.timesteps) <= 9
    expected = shown(ours(method, 9))
    assert 0.05 < expected.mean() < 0.95
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", SIX)
def test_in_another_pipeline_and_once_more(method):
    pipe = pipeline(ODEScheduler(method=method), kind=DDIMPipeline)
    found = pictures(pipe, 12)
    torch.testing.assert_close(found, shown(ours(method, 12)), rtol=0, atol=1e-5)
    assert torch.equal(pictures(pipe, 12), found)  # nothing is left of the run before


@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("method", SIX)
def test_whatever_the_network_predicts(method, prediction):
    scheduler = ODEScheduler(method=method, grid="karras", prediction_type=prediction)
    found = pictures(pipeline(scheduler), 12)
    torch.testing.assert_close(found, shown(ours(method, 12, PREDICTION[prediction], grid="karras")), rtol=0, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("prediction", PREDICTION)
def test_ddim_is_the_ddim_of_diffusers(spacing, prediction):
    theirs = DDIMScheduler(clip_sample=False, prediction_type=prediction, timestep_spacing=spacing)
    scheduler = ODEScheduler.from_config(theirs.config, method="ddim", grid=spacing)
    expected = pictures(pipeline(theirs, kind=DDIMPipeline), 10)
    torch.testing.assert_close(pictures(pipeline(scheduler), 10), expected, rtol=0, atol=5e-5)


def test_explicit_sigmas_and_the_smallest_sigma_as_the_end():
    sigmas = [100.0, 10.0, 3.0, 1.0, 0.1]
    scheduler, x = ODEScheduler(method="heun3"), normal(2, *SHAPE, seed=0, dtype=torch.float32)
    scheduler.set_timesteps(sigmas=sigmas)
    for t in scheduler.timesteps:
        x, image = scheduler.step(NET(x, t).sample, t, x, return_dict=False)
    assert image.shape == x.shape
    expected = ours("heun3", None, grid=sigmas, noise=normal(2, *SHAPE, seed=0, dtype=torch.float32))
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
    found = pictures(pipeline(ODEScheduler(method="rk4", final="sigma_min")), 12)
    torch.testing.assert_close(found, shown(ours("rk4", 12, final="sigma_min")), rtol=0, atol=1e-5)


def test_half_precision_gets_a_float32_state():
    net = network().to(torch.bfloat16)
    found = pictures(pipeline(ODEScheduler(method="rk4"), net), 16)
    assert found.dtype == torch.bfloat16
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.bfloat16)
    path = paths.DiscreteVP(linear_table())
    model = Denoiser(lambda x, t: net(x, t).sample, path, "noise", SHAPE, dtype=torch.bfloat16)
    expected = sample(model, "rk4", 16, noise=noise).x
    torch.testing.assert_close(found.float(), shown(expected.bfloat16()).float(), rtol=0, atol=2**-8)


def test_learned_variances_are_left_out():
    net = network(out_channels=2)
    found = pictures(pipeline(ODEScheduler(method="heun"), net), 9)
    model = Denoiser(lambda x, t: net(x, t).sample[:, :1], paths.DiscreteVP(linear_table()), "noise", SHAPE)
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, shown(sample(model, "heun", 9, noise=noise).x), rtol=0, atol=1e-5)


# --- beginning elsewhere, and changes on the way


@pytest.mark.parametrize(("method", "k"), [("dpmpp_2m", 5), ("heun", 6), ("rk4", 8), ("ipndm", 3)])
def test_a_pipeline_can_begin_at_a_later_step(method, k):
    scheduler, image = ODEScheduler(method=method), normal(2, *SHAPE, seed=0, dtype=torch.float32)
    noise = normal(2, *SHAPE, seed=1, dtype=torch.float32)
    scheduler.set_timesteps(13)
    rest = scheduler.timesteps[k:]
    scheduler.set_begin_index(k)
    x = scheduler.add_noise(image, noise, rest[:1].repeat(2))
    for t in rest:
        x = scheduler.step(NET(x, t).sample, t, x).prev_sample
    path = paths.DiscreteVP(linear_table())
    sigma = path.sigma(rest[0].double())
    whole = sample(Denoiser(lambda x, t: 0 * x, path, "noise", SHAPE), method, 13).sigmas
    grid = whole[(whole - sigma).abs().argmin() :].tolist()
    start = image + float(sigma) * noise
    torch.testing.assert_close(x, ours(method, None, grid=grid, start=start), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("method", "k"), [("heun", 5), ("adams4", 4), ("rk4", 3)])
def test_where_no_step_begins_there_is_one_line(method, k):
    scheduler = ODEScheduler(method=method)
    scheduler.set_timesteps(13)
    assert f"timesteps[{k}]" in one_line(SchedulerError, scheduler.set_begin_index, k)
    scheduler.set_begin_index(0)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_sample_that_is_changed_between_steps_is_taken_up(in_place):
    # As inpainting does. With ddim, which has no memory, it is a run from there.
    scheduler, x = ODEScheduler(method="ddim"), normal(2, *SHAPE, seed=0, dtype=torch.float32)
    scheduler.set_timesteps(8)
    for n, t in enumerate(scheduler.timesteps):
        if n == 3:
            change = 0.1 * normal(2, *SHAPE, seed=1, dtype=torch.float32)
            x = x.add_(change) if in_place else x + change
            changed = x.clone()
        x = scheduler.step(NET(x, t).sample, t, x).prev_sample
    sigmas = sample(Denoiser(lambda x, t: 0 * x, paths.DiscreteVP(linear_table()), "noise", SHAPE), "ddim", 8).sigmas
    a = 1 / (1 + float(sigmas[3]) ** 2) ** 0.5
    torch.testing.assert_close(x, ours("ddim", None, grid=sigmas[3:].tolist(), start=changed / a), rtol=1e-5, atol=1e-5)


def test_a_sample_that_is_changed_within_a_step_is_what_the_network_was_asked_about():
    # Of Heun the slope at the end of a step is taken there, as HeunDiscreteScheduler takes it.
    scheduler, x = ODEScheduler(method="heun"), normal(2, *SHAPE, seed=0, dtype=torch.float32)
    scheduler.set_timesteps(7)
    first, second = scheduler.timesteps[:2]
    sigma0, sigma1 = scheduler._plan.calls[:2].tolist()
    a0, a1 = ((1 + sigma**2) ** -0.5 for sigma in (sigma0, sigma1))
    slope0 = NET(x, first).sample
    changed = scheduler.step(slope0, first, x).prev_sample + 0.3
    slope1 = NET(changed, second).sample
    found = scheduler.step(slope1, second, changed).prev_sample
    expected = a1 * (x / a0 + (sigma1 - sigma0) * (slope0 + slope1) / 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("method", "at"), [("adaptive", 2), ("leapfrog", 2)])
def test_a_change_that_cannot_be_taken_up_is_refused(method, at):
    scheduler, x = ODEScheduler(method=method), normal(2, *SHAPE, seed=0, dtype=torch.float32)
    scheduler.set_timesteps(8)
    for t in scheduler.timesteps[:at]:
        x = scheduler.step(NET(x, t).sample, t, x).prev_sample
    t = scheduler.timesteps[at]
    assert "changed in between" in one_line(SchedulerError, scheduler.step, NET(x, t).sample, t, x + 1)


# --- errors


def steps(scheduler: ODEScheduler, *times: float, **options: Any) -> None:
    scheduler.set_timesteps(5)
    x = normal(2, *SHAPE, seed=0, dtype=torch.float32)
    for t in times or scheduler.timesteps:
        x = scheduler.step(x, t, x, **options).prev_sample


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (MethodError, lambda: ODEScheduler(method="dpmp_2m"), "did you mean 'dpmpp_2m'"),
        (SchedulerError, lambda: ODEScheduler(method=METHODS["ddim"]), "method is a Method"),
        (SampleError, lambda: ODEScheduler(tol=0.01), "tol=0.01 is for adaptive methods"),
        (SchedulerError, lambda: ODEScheduler(method="sde_heun"), "'sde_heun' draws noise .* 'dpmpp_2m'"),
        (ScheduleError, lambda: ODEScheduler(prediction_type="flow"), "unknown prediction_type 'flow'"),
        (ScheduleError, lambda: ODEScheduler(beta_schedule="sigmoid"), "unknown beta_schedule 'sigmoid'"),
        (
            ScheduleError,
            lambda: ODEScheduler.from_config(FLOW.config),
            "does not say whose it is; use ODEScheduler",
        ),
        (DDIMError, lambda: ODEScheduler(grid="karas"), "did you mean 'karras'"),
        (DenoiserError, lambda: ODEScheduler(rescale_betas_zero_snr=True), "zero terminal SNR; leave"),
        (SampleError, lambda: ODEScheduler(method="rk4").set_timesteps(0), "nfe=0 must be"),
        (SampleError, lambda: ODEScheduler(final="never").set_timesteps(9), "final='never'"),
        (SchedulerError, lambda: steps(ODEScheduler(), eta=0.5), "eta=0.5"),
        (SchedulerError, lambda: steps(ODEScheduler(), 999.0, 999.0), r"timestep=999, .* turn of timesteps\[1\]"),
        (SchedulerError, lambda: ODEScheduler().step(torch.zeros(1), 999.0, torch.zeros(1)), "turn of set_timesteps"),
    ],
)
def test_what_cannot_be_is_an_error_of_one_line(error, call, words):
    assert re.search(words, one_line(error, call))


def test_an_answer_that_is_not_finite_is_named():
    scheduler = ODEScheduler(method="heun")
    scheduler.set_timesteps(7)
    x = torch.zeros(2, *SHAPE)
    for t in scheduler.timesteps[:2]:
        x = scheduler.step(torch.ones_like(x), t, x).prev_sample
    bad = torch.ones_like(x)
    bad[1] = torch.nan
    with pytest.raises(NonFiniteError) as caught:
        scheduler.step(bad, scheduler.timesteps[2], x)
    assert (caught.value.sample, caught.value.step) == (1, 2)
