"""What a scheduler's configuration of diffusers means, and every value that it cannot have."""

import numpy as np
import pytest

from ddim_ode.checkpoints.scheduler_config import read_scheduler
from ddim_ode.support.validation import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta_start": "x"}, "beta_start: Input should be a valid number"),
        ({"num_train_timesteps": -5}, "num_train_timesteps: Input should be greater than 0"),
        ({"trained_betas": "abc"}, "trained_betas: Input should be a valid tuple"),
        ({"trained_betas": [[0.1]]}, "trained_betas.0: Input should be a valid number"),
    ],
)
def test_a_schedulers_values_are_checked(values, message):
    with pytest.raises(ConfigError, match=f"DDIMScheduler: {message}"):
        read_scheduler({"_class_name": "DDIMScheduler", "beta_schedule": "linear", **values})


def test_trained_betas_may_be_an_array():
    config = {"beta_schedule": "linear", "trained_betas": np.array([0.1, 0.2])}
    assert read_scheduler(config)[0].path().num_timesteps == 2
