"""Schedules have the timesteps that they name, and a network that is accepted can be built."""

import pytest
import torch

from ddim_ode.models.config import ModelConfig, ScheduleConfig
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.paths import Flow
from ddim_ode.support.validation import ConfigError, parse
from tests.helpers.assertions import one_line

NETWORK = {"shape": [1, 8, 8], "channels": [32], "blocks": 1}


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_schedule_has_its_timesteps(name):
    path = ScheduleConfig(name=name, timesteps=7).path()
    assert path.num_timesteps == 7
    assert 0 < path.sigma_min < path.sigma_max


@pytest.mark.parametrize("ends", [(1e-3, 0.999), (0.02, 0.5)])
def test_a_flow_runs_between_the_shares_of_noise_that_it_names(ends):
    config = parse(ModelConfig, {"network": NETWORK, "schedule": {"name": "flow", "noise_range": ends}}, "")
    path = config.schedule.path()
    assert isinstance(path, Flow)
    assert path.num_timesteps == 0
    assert path.u(torch.tensor([path.sigma_min, path.sigma_max], dtype=torch.float64)).tolist() == pytest.approx(ends)
    assert parse(ModelConfig, config.model_dump(mode="json"), "") == config


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"name": "flow", "timesteps": 10}, "leave timesteps out"),
        ({"name": "flow", "noise_range": [0.0, 0.9]}, "noise_range"),
        ({"name": "flow", "noise_range": [0.9, 0.1]}, "is no range"),
        ({"name": "linear", "noise_range": [0.1, 0.9]}, "noise_range"),
        ({"name": "flow", "zero_snr": True, "beta_end": 0.1}, "leave beta_end, zero_snr out"),
        ({"name": "flows"}, "'linear', 'scaled_linear', 'cosine', 'betas' or 'flow'"),
        ({"timesteps": 1}, "timesteps"),
        ("flow", "schedule"),
        (3, "schedule"),
    ],
)
def test_what_is_no_schedule_is_named_in_one_line(schedule, words):
    assert words in one_line(ConfigError, parse, ModelConfig, {"network": NETWORK, "schedule": schedule}, "a.yaml")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 16)])
@pytest.mark.parametrize("patch", [1, 2])
def test_an_accepted_network_can_be_built_and_run(shape, patch):
    config = parse(UNetConfig, {"shape": shape, "channels": [32, 64], "patch": patch, "blocks": 1}, "")
    with torch.random.fork_rng():
        net = UNet(config)
    assert net(torch.zeros(2, *shape), torch.zeros(2)).shape == (2, *shape)
