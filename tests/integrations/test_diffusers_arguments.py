"""Arguments of `ODEScheduler` of another kind, shape or range: one line that names them."""

import re
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from ddim_ode.errors import DDIMError
from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import SHAPE


def stepped(scheduler: ODEScheduler, answer: Any, timestep: Any, sample: Any, **options: Any) -> None:
    scheduler.set_timesteps(5)
    scheduler.step(answer, timestep, sample, **options)


X = torch.zeros(2, *SHAPE)
TOP = 999.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ODEScheduler(method=3), "method is a int"),
        (lambda: ODEScheduler(grid=3), "grid is the int 3; give one of"),
        (lambda: ODEScheduler(quantize="no"), "quantize is the str 'no'"),
        (lambda: ODEScheduler(snr_shift_scale=-1.0), "snr_shift_scale"),
        (lambda: ODEScheduler.from_config("google/ddpm"), "config is the str 'google/ddpm'; give the config"),
        (lambda: ODEScheduler.from_config(EulerDiscreteScheduler()), "config is a EulerDiscreteScheduler; give"),
        (lambda: ODEScheduler.from_config(ODEScheduler().config, metod="ddim"), "metod='ddim' is not known here"),
        (lambda: ODEScheduler().set_timesteps("5"), "nfe='5' must be"),
        (lambda: ODEScheduler().set_timesteps(0), "nfe=0 must be"),
        (lambda: ODEScheduler().set_timesteps(2.5), "nfe=2.5 must be"),
        (lambda: ODEScheduler().set_timesteps(5, "nowhere"), "device='nowhere' is none"),
        (lambda: ODEScheduler().set_timesteps(sigmas=3.0), "grid"),
        (lambda: ODEScheduler().set_begin_index("1"), "begin_index='1' must be a whole number"),
        (lambda: ODEScheduler().set_begin_index(99), r"begins at timesteps\[99\]"),
        (lambda: stepped(ODEScheduler(), X, torch.tensor([TOP, TOP]), X), r"timestep=a Tensor of shape \(2,\)"),
        (lambda: stepped(ODEScheduler(), X, "999", X), "timestep='999'"),
        (lambda: stepped(ODEScheduler(), X, None, X), "timestep=None"),
        (lambda: stepped(ODEScheduler(), X, TOP, None), "sample is None; give a tensor"),
        (lambda: stepped(ODEScheduler(), None, TOP, X), "model_output is None; give a tensor"),
        (
            lambda: stepped(ODEScheduler(), X[:1], TOP, X),
            r"model_output has shape \(1, 1, 8, 8\) for a sample of shape",
        ),
        (lambda: stepped(ODEScheduler(), X[..., :4], TOP, X), "model_output has shape"),
        (lambda: stepped(ODEScheduler(), X.repeat(1, 3, 1, 1), TOP, X), "model_output has shape"),
        (lambda: stepped(ODEScheduler(), X, TOP, X.long()), "sample is a Tensor .* of int64; give"),
        (lambda: ODEScheduler().add_noise(1, X, torch.tensor([3])), "original_samples is the int 1; give a tensor"),
        (lambda: ODEScheduler().add_noise(X, X, 3), "timesteps is the int 3; give a tensor"),
        (lambda: ODEScheduler().add_noise(X, X[:1], torch.tensor([3])), "do not fit original_samples"),
        (lambda: ODEScheduler().add_noise(X, X, torch.tensor([3, 3, 3])), "do not fit original_samples"),
        (lambda: ODEScheduler().add_noise(X, X, torch.tensor([1000])), "must be within 0 to 999"),
    ],
)
def test_arguments_of_another_kind_are_one_line(call, words):
    text = one_line(DDIMError, call)
    assert re.search(words, text)


def test_a_batch_of_another_size_is_no_edit():
    scheduler = ODEScheduler()
    scheduler.set_timesteps(5)
    scheduler.step(X + 1, scheduler.timesteps[0], X + 1)
    text = one_line(SchedulerError, scheduler.step, X[:1], scheduler.timesteps[1], X[:1])
    assert "the sample has shape (1, 1, 8, 8), where this run has (2, 1, 8, 8)" in text


def test_kinds_of_arguments_are_argument_errors():
    assert one_line(ArgumentError, stepped, ODEScheduler(), X, TOP, "x")


def test_pure_noise_at_the_end_of_zero_terminal_snr():
    scheduler = ODEScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    found = scheduler.add_noise(X + 1, X, torch.tensor([999, 500]))
    assert torch.equal(found[0], X[0])
    assert float(found[1].mean()) > 0.1
