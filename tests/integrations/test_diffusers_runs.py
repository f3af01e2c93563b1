"""Whose run it is: requests that share a scheduler, pipelines of other models, and those that stop on the way."""

from typing import Any

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import NET, SHAPE
from tests.helpers.tensors import normal

# Some schedulers of diffusers give tensors to numpy in a way that it will not take any more.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


def go(scheduler: ODEScheduler, x: Tensor, times: Any) -> Tensor:
    for t in times:
        x = scheduler.step(0.8 * torch.tanh(x), t, x).prev_sample
    return x


def starts() -> tuple[Tensor, Tensor]:
    return normal(2, *SHAPE, seed=0, dtype=torch.float32), normal(2, *SHAPE, seed=1, dtype=torch.float32)


# --- two requests


@pytest.mark.parametrize("method", ["dpmpp_2m", "ddim", "adams4", "heun"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_of_a_run_that_was_left_is_refused(method, dtype):
    scheduler, (a, b) = ODEScheduler(method=method), (x.to(dtype) for x in starts())
    scheduler.set_timesteps(12)
    times = scheduler.timesteps
    first = go(scheduler, a, times[:4])
    for edit in (first, torch.cat([first[:1], a[1:]])):  # half of it changed since
        scheduler.set_timesteps(12)
        go(scheduler, b, times[:4])
        text = one_line(SchedulerError, go, scheduler, edit, times[4:])
        assert "a run that set_timesteps has ended; use one scheduler for each request" in text


def test_a_run_that_nobody_disturbs_is_as_before_others():
    scheduler, (a, b) = ODEScheduler(), starts()
    scheduler.set_timesteps(8)
    alone = go(scheduler, a, scheduler.timesteps)
    for n in range(6):  # more than are remembered
        scheduler.set_timesteps(8)
        go(scheduler, b + n, scheduler.timesteps[:3])
    scheduler.set_timesteps(8)
    assert torch.equal(go(scheduler, a, scheduler.timesteps), alone)


@pytest.mark.parametrize("method", ["dpmpp_2m", "ddim", "unipc_2"])
def test_inpainting_goes_on_after_a_run_that_was_interrupted(method):
    # latents = (1 - mask) * noised original + mask * latents, after the same seed was begun, and left, before.
    scheduler, (x, noise) = ODEScheduler(method=method), starts()
    original, mask = normal(2, *SHAPE, seed=2, dtype=torch.float32).clamp(-1, 1), torch.zeros(2, *SHAPE)
    mask[..., :3] = 1

    def inpaint(steps: int) -> Tensor:
        scheduler.set_timesteps(10)
        times, latents = scheduler.timesteps, x
        for n, t in enumerate(times[:steps]):
            latents = scheduler.step(0.8 * torch.tanh(latents), t, latents).prev_sample
            known = original
            if n + 1 < len(times):
                known = scheduler.add_noise(original, noise, times[n + 1 : n + 2])
            latents = (1 - mask) * known + mask * latents
        return latents

    alone = inpaint(10)
    inpaint(4)
    assert torch.equal(inpaint(10), alone)
    assert torch.equal(alone[..., 3:], original[..., 3:])
    scheduler.set_timesteps(10)
    assert (go(scheduler, x, scheduler.timesteps) - alone).abs().max() > 0.1


@pytest.mark.parametrize("change", [lambda x: x + 0.1, lambda x: -x, torch.zeros_like, lambda x: x.flip(0)])
def test_a_changed_sample_is_an_edit(change):
    scheduler, (x, _) = ODEScheduler(method="ddim"), starts()
    scheduler.set_timesteps(6)
    edit = change(go(scheduler, x, scheduler.timesteps[:2]))
    alone = ODEScheduler(method="ddim")  # which has seen nothing else
    alone.set_timesteps(6)
    alone.set_begin_index(2)
    assert torch.equal(go(scheduler, edit, scheduler.timesteps[2:]), go(alone, edit, alone.timesteps[2:]))


def test_a_question_of_the_midst_of_a_step_is_no_start():
    scheduler, (x, _) = ODEScheduler(method="heun"), starts()
    scheduler.set_timesteps(9)
    x = go(scheduler, x, scheduler.timesteps[:3])
    scheduler.set_timesteps(9)
    scheduler.set_begin_index(2)
    assert "in the midst of a step" in one_line(SchedulerError, go, scheduler, x, scheduler.timesteps[2:])


def test_a_state_is_a_start_for_the_rest():
    # As a pipeline with denoising_end hands it to one with denoising_start.
    scheduler, (x, _) = ODEScheduler(method="ddim"), starts()
    scheduler.set_timesteps(9)
    times = scheduler.timesteps
    alone = go(scheduler, x, times)
    scheduler.set_timesteps(9)
    x = go(scheduler, x, times[:4])
    scheduler.set_timesteps(9)
    scheduler.set_begin_index(4)
    torch.testing.assert_close(go(scheduler, x, times[4:]), alone, rtol=1e-5, atol=1e-5)
    scheduler.set_begin_index(0)  # not too late for the whole
    assert torch.equal(go(scheduler, starts()[0], times), alone)


def test_a_timestep_may_be_a_tensor_of_one():
    x, scheduler = starts()[0], ODEScheduler()
    scheduler.set_timesteps(4)
    found = scheduler.step(x, scheduler.timesteps[:1], x).prev_sample
    scheduler.set_timesteps(4)
    assert torch.equal(found, scheduler.step(x, scheduler.timesteps[0], x).prev_sample)


# --- sigmas and configs of others


def test_sigmas_of_another_scheduler_in_float32():
    theirs = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    theirs.set_timesteps(10)
    scheduler = ODEScheduler.from_config(theirs.config, method="ddim")
    sigmas = theirs.sigmas.clone()
    sigmas[0] *= 1 - 1e-6  # rounded up, it would be larger than the model's largest
    for given in (sigmas, sigmas.tolist(), sigmas.numpy()):
        scheduler.set_timesteps(sigmas=given)
        torch.testing.assert_close(scheduler.timesteps, theirs.timesteps, rtol=0, atol=0.05)
    x = start = starts()[0]
    for t in scheduler.timesteps:
        x = scheduler.step(NET(x, t).sample, t, x).prev_sample
    # Euler in sigma, of the same network: DDIM's own step.
    y, path = start * (1 + float(sigmas[0]) ** 2) ** 0.5, theirs.sigmas
    for n, t in enumerate(theirs.timesteps):
        eps = NET(y / (1 + float(path[n]) ** 2) ** 0.5, t).sample
        y = y + (path[n + 1] - path[n]) * eps
    torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [HeunDiscreteScheduler, LCMScheduler])
def test_no_default_is_lost_between_classes(kind):
    theirs = kind()
    scheduler = ODEScheduler.from_config(theirs.config, method="ddim")
    t, one = torch.tensor([100, 500, 999]), torch.ones(3, 1)
    found = scheduler.add_noise(one, 0 * one, t).flatten()
    torch.testing.assert_close(found, theirs.alphas_cumprod[t] ** 0.5, rtol=1e-4, atol=0)
    for source in (scheduler, ODEScheduler()):
        expected = source.add_noise(one, 0 * one, t).flatten()
        table = kind.from_config(source.config).alphas_cumprod[t]
        torch.testing.assert_close(table**0.5, expected, rtol=1e-4, atol=0)
