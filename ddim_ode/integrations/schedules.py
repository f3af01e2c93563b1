"""The schedule that a scheduler of diffusers is configured for, without importing it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddim_ode.checkpoints.diffusers_config import SCHEDULES, Scheduler, schedule_of
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.paths import DiscreteVP
from ddim_ode.support.validation import parse


class ScheduleError(DDIMError):
    """A schedule of betas that is none."""


def path_of(config: Mapping[str, Any]) -> DiscreteVP:
    """The path of a scheduler's config, computed in float64.

    Raises:
        ScheduleError: no betas, or a schedule of them that is unknown here.
        ConfigError: a value is not of its kind, or no path can be made of the betas.
    """
    kind, name = str(config.get("_class_name", "this scheduler")), config.get("beta_schedule")
    if name is None:
        raise ScheduleError(f"{kind} has no beta_schedule; the model's schedule must be of DDPM's kind, made of betas")
    betas = config.get("trained_betas")  # diffusers takes arrays too
    given = parse(Scheduler, {**config, "trained_betas": None if betas is None else np.asarray(betas).tolist()}, kind)
    if given.trained_betas is None and given.beta_schedule not in SCHEDULES:
        raise ScheduleError(unknown("beta_schedule", given.beta_schedule, SCHEDULES))
    return schedule_of(given, kind).path()
