"""The schedule that a scheduler of diffusers is configured for, without importing it."""

from collections.abc import Mapping
from typing import Any

from ddim_ode.checkpoints.diffusers_config import SCHEDULES
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.paths import DiscreteVP


class ScheduleError(DDIMError):
    """A schedule of betas that is none."""


def path_of(config: Mapping[str, Any]) -> DiscreteVP:
    """The path of a scheduler's config, computed in float64.

    Raises:
        ScheduleError: no betas, or a schedule of them that is unknown here.
        PathError: betas that no path can be made of.
    """
    steps, name = config.get("num_train_timesteps", 1000), config.get("beta_schedule")
    first, last = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    if name is None:
        kind = config.get("_class_name", "this scheduler")
        raise ScheduleError(f"{kind} has no beta_schedule; the model's schedule must be of DDPM's kind, made of betas")
    if config.get("trained_betas") is not None:
        path = DiscreteVP.from_betas(config["trained_betas"])
    elif name == "linear":
        path = DiscreteVP.linear(steps, first, last)
    elif name == "scaled_linear":
        path = DiscreteVP.scaled_linear(steps, first, last)
    elif name == "squaredcos_cap_v2":
        path = DiscreteVP.cosine(steps)
    else:
        raise ScheduleError(unknown("beta_schedule", str(name), SCHEDULES))
    return path.to_zero_snr() if config.get("rescale_betas_zero_snr") else path
