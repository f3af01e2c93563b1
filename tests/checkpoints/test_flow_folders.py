"""A folder of diffusers with the scheduler of a flow: the images that its scheduler leads to."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ddim_ode
from tests.helpers.foreign import LAYOUTS, pipeline, relative, unet2d
from tests.helpers.tensors import normal


@pytest.mark.parametrize("inverted", [False, True])
def test_a_flow_is_asked_as_its_scheduler_does(tmp_path, inverted):
    unet = unet2d(LAYOUTS["no attention"])
    pipeline(tmp_path, unet)
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0, invert_sigmas=inverted)
    theirs.save_pretrained(tmp_path / "scheduler")
    model = ddim_ode.load(tmp_path)
    theirs.set_timesteps(5)
    noise = x = normal(1, *model.shape, seed=0, dtype=torch.float32)
    for t in theirs.timesteps:
        x = theirs.step(unet(x, t).sample, t, x).prev_sample
    shares = (1 - theirs.sigmas if inverted else theirs.sigmas).double().clamp(max=1 - 1.0001e-4)
    found = ddim_ode.sample(model, "euler_flow", grid=(shares / (1 - shares)).tolist(), noise=noise).x
    assert relative(found, x) < 2e-3  # the first step begins 1e-4 later
    assert model.provenance.schedule.name == "flow"
