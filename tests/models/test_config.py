"""Schedules have the timesteps that they name, and a network that is accepted can be built."""

import pytest
import torch

from ddim_ode.models.config import ScheduleConfig
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.support.validation import parse


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_schedule_has_its_timesteps(name):
    path = ScheduleConfig(name=name, timesteps=7).path()
    assert path.num_timesteps == 7
    assert 0 < path.sigma_min < path.sigma_max


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 16)])
@pytest.mark.parametrize("patch", [1, 2])
def test_an_accepted_network_can_be_built_and_run(shape, patch):
    config = parse(UNetConfig, {"shape": shape, "channels": [32, 64], "patch": patch, "blocks": 1}, "")
    with torch.random.fork_rng():
        net = UNet(config)
    assert net(torch.zeros(2, *shape), torch.zeros(2)).shape == (2, *shape)
