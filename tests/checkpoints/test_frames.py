"""What schedulers of diffusers say about their networks, against what they do with an answer themselves."""

import re

import diffusers
import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    CosineDPMSolverMultistepScheduler,
    DDIMScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from ddim_ode.checkpoints.frames import NEAR, frame_of, told_before_shift
from ddim_ode.checkpoints.scheduler_config import ScheduleError
from ddim_ode.continuous import Preconditioned, TimedFlow
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import DiscreteVP
from tests.helpers.assertions import one_line
from tests.helpers.tensors import f64, normal

pytestmark = pytest.mark.filterwarnings("ignore:__array__")  # of diffusers

VIDEO = {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 700.0}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@pytest.mark.parametrize(
    ("scheduler", "path", "predicts"),
    [
        (DDIMScheduler(), DiscreteVP, "noise"),
        (DDIMScheduler(prediction_type="sample"), DiscreteVP, "data"),
        (EulerDiscreteScheduler(**VIDEO), Preconditioned, "velocity"),
        (EDMEulerScheduler(), Preconditioned, "data"),
        (CosineDPMSolverMultistepScheduler(), Preconditioned, "data"),
        (FlowMatchHeunDiscreteScheduler(), TimedFlow, "flow"),
        (UniPCMultistepScheduler(**FLOW), TimedFlow, "flow"),
    ],
)
def test_every_kind_has_its_frame(scheduler, path, predicts):
    frame = frame_of(scheduler)
    assert (type(frame.path), frame.predicts) == (path, predicts)


EULERS = [
    EulerDiscreteScheduler(timestep_spacing="trailing"),
    EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
    EulerDiscreteScheduler(**VIDEO, use_karras_sigmas=True),
    EDMEulerScheduler(sigma_data=0.5),
    EDMEulerScheduler(sigma_data=1.0, prediction_type="v_prediction"),
    FlowMatchEulerDiscreteScheduler(shift=3.0),
    FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
]


@pytest.mark.parametrize("scheduler", EULERS, ids=lambda s: f"{type(s).__name__}-{s.config.get('prediction_type')}")
def test_a_step_of_theirs_is_ddim_with_what_the_frame_makes_of_the_answer(scheduler):
    scheduler.set_timesteps(6)
    frame, k = frame_of(scheduler), 2
    sigma, after = frame.ratios(scheduler.sigmas)[[k, k + 1]]
    sample, out = normal(1, 2, 4, 4, seed=0, dtype=torch.float32), normal(1, 2, 4, 4, seed=1, dtype=torch.float32)
    scheduler.set_begin_index(k)
    seen = sample
    if hasattr(scheduler, "scale_model_input"):
        seen = scheduler.scale_model_input(sample, scheduler.timesteps[k])
    expected = scheduler.step(out, scheduler.timesteps[k], sample).prev_sample

    def net(x: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(t.double(), scheduler.timesteps[k].double().expand(1), rtol=1e-5, atol=1e-5)
        return frame.answer(out, x, sigma)

    xbar = seen / float(frame.path.scale(sigma))
    data, noise, _ = Denoiser(net, frame.path, frame.predicts, (2, 4, 4))(xbar, sigma)
    found = data + float(after) * noise
    found = found * float(frame.path.scale(after)) if frame.shares else found
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_theirs_are_the_inverse_of_ratios():
    for scheduler in (FlowMatchEulerDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(invert_sigmas=True)):
        frame = frame_of(scheduler)
        given = torch.tensor([0.9, 0.5, 0.01, 0.0])
        torch.testing.assert_close(frame.theirs(frame.ratios(given)).float(), given, rtol=0, atol=2e-6)


def test_betas_are_read_off_the_object():
    scheduler = DDIMScheduler()
    scheduler.alphas_cumprod = torch.linspace(0.9, 0.1, 50)
    assert frame_of(scheduler).path == DiscreteVP(torch.linspace(0.9, 0.1, 50))


def test_pure_noise_is_nearly_pure():
    frame = frame_of(DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    assert frame.path.num_timesteps == 1000
    assert abs(frame.path.sigma_max * NEAR - 1) < 1e-6


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (CMStochasticIterativeScheduler(), "CMStochasticIterativeScheduler is of no kind that is known here"),
        (FlowMatchLCMScheduler(), "FlowMatchLCMScheduler is of no kind"),
        (DDIMScheduler(rescale_betas_zero_snr=True), "DDIMScheduler ends with pure noise"),
        (UniPCMultistepScheduler(use_flow_sigmas=True), "use_flow_sigmas and prediction_type='epsilon'"),
        (3, "is the int 3 without a config"),
    ],
)
def test_what_is_not_understood_is_named(scheduler, words):
    assert re.search(words, one_line(ScheduleError, frame_of, scheduler))


@pytest.mark.parametrize("kind", ["DDIMScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
def test_an_unknown_key_is_refused_by_name(kind):
    scheduler = getattr(diffusers, kind)()
    scheduler.register_to_config(warp=2.0)
    assert "warp=2.0 is not known here" in one_line(ScheduleError, frame_of, scheduler)


@pytest.mark.parametrize("what", ["noise", "outputs"])
def test_a_preconditioning_that_is_another_is_refused(monkeypatch, what):
    scheduler = EDMDPMSolverMultistepScheduler()
    monkeypatch.setattr(scheduler, f"precondition_{what}", lambda *args: 3.0 * args[0])
    assert re.search("which alone (is|are) known here", one_line(ScheduleError, frame_of, scheduler))


def test_labels_from_before_a_shift_are_recognized_and_others_are_not():
    frame, shares = frame_of(FlowMatchEulerDiscreteScheduler()), f64([0.9, 0.6, 0.3])
    sigmas = shares / (1 - shares)
    assert told_before_shift(frame, sigmas, 1000 * shares, "it") is frame
    shifted = 3 * shares / (1 + 2 * shares)
    other = told_before_shift(frame, shifted / (1 - shifted), 1000 * shares, "it")
    assert abs(other.path.shift - 3) < 1e-9
    assert "by any rule" in one_line(ScheduleError, told_before_shift, frame, sigmas, 1000 * shares**3, "it")
