"""What a scheduler of diffusers says of its model, in our words and back, without importing diffusers.

The only place that reads one: from the file of a folder, from a pipeline, or from the config of a scheduler in memory.
Keys that it lacks have the defaults of `DDIMScheduler`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, PositiveInt

from ddim_ode.checkpoints.diffusers_config import VERSION
from ddim_ode.checkpoints.files import CheckpointError
from ddim_ode.errors import unknown
from ddim_ode.models.config import ScheduleConfig
from ddim_ode.support.validation import parse

PREDICTION: Mapping[str, str] = {"epsilon": "noise", "sample": "data", "v_prediction": "velocity"}
SCHEDULES: Mapping[str, str] = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


class ScheduleError(CheckpointError):
    """A scheduler without the betas of DDPM, or with words that are unknown here."""


class Scheduler(BaseModel):
    """What a scheduler says of the noise; the defaults are those of `DDIMScheduler`, and the schedule must be said."""

    num_train_timesteps: PositiveInt = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"


def read_scheduler(values: Mapping[str, Any], where: str | None = None) -> tuple[ScheduleConfig, str]:
    """The schedule that a scheduler's config means, and what the network predicts.

    where: what errors call it (default: the name of its class).

    Raises:
        ScheduleError: it has no betas as DDPM has, or names a schedule or a prediction that is unknown here.
        ConfigError: its numbers are no schedule.
    """
    kind = str(values.get("_class_name", "this scheduler"))
    if values.get("beta_schedule") is None:
        place = "" if where is None else f"{where}: "
        raise ScheduleError(
            f"{place}{kind} has no beta_schedule; the model's schedule must be of DDPM's kind, made of betas"
        )
    where, betas = kind if where is None else where, values.get("trained_betas")  # which may be an array in memory
    given = parse(Scheduler, {**values, "trained_betas": None if betas is None else np.asarray(betas).tolist()}, where)
    if given.prediction_type not in PREDICTION:
        raise ScheduleError(f"{where}: {unknown('prediction_type', given.prediction_type, PREDICTION)}")
    if given.trained_betas is None and given.beta_schedule not in SCHEDULES:
        raise ScheduleError(f"{where}: {unknown('beta_schedule', given.beta_schedule, SCHEDULES)}, or trained_betas")
    schedule: dict[str, Any] = {"zero_snr": given.rescale_betas_zero_snr}
    if given.trained_betas is not None:
        schedule |= {"name": "betas", "timesteps": len(given.trained_betas), "betas": given.trained_betas}
    else:
        schedule |= {"name": SCHEDULES[given.beta_schedule], "timesteps": given.num_train_timesteps}
        schedule |= {"beta_start": given.beta_start, "beta_end": given.beta_end}
    return parse(ScheduleConfig, schedule, where), PREDICTION[given.prediction_type]


def ignored_in(values: Mapping[str, Any]) -> list[str]:
    """The settings in a scheduler's config that act on samples and are no part of an ODE."""
    # clip_sample is on where DDPMScheduler's and DDIMScheduler's files do not say; the others have no such key.
    default = values.get("_class_name") in ("DDPMScheduler", "DDIMScheduler")
    clips = {"clip_sample": default, "thresholding": False}
    return [key for key, usual in clips.items() if values.get(key, usual)]


def write_schedule(schedule: ScheduleConfig, predicts: str) -> dict[str, Any]:
    """`scheduler_config.json` of a `DDIMScheduler`.

    Raises:
        CheckpointError: diffusers has no name for what the network predicts.
    """
    prediction = {ours: theirs for theirs, ours in PREDICTION.items()}
    if predicts not in prediction:
        known = ", ".join(prediction)
        raise CheckpointError(f"predicts={predicts!r} has no prediction_type of diffusers' DDIMScheduler; {known} have")
    kinds = {ours: theirs for theirs, ours in SCHEDULES.items()}
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": VERSION,
        **Scheduler(
            num_train_timesteps=schedule.timesteps,
            beta_start=schedule.beta_start,
            beta_end=schedule.beta_end,
            beta_schedule=kinds.get(schedule.name, "linear"),
            trained_betas=schedule.betas,
            rescale_betas_zero_snr=schedule.zero_snr,
            prediction_type=prediction[predicts],
        ).model_dump(mode="json"),
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing" if schedule.zero_snr else "leading",
    }
