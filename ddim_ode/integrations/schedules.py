"""The schedule that a scheduler of diffusers is configured for, without importing it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddim_ode.errors import DDIMError, unknown
from ddim_ode.paths import DiscreteVP

#: `prediction_type` -> what a `Denoiser` calls it
PREDICTS = {"epsilon": "noise", "sample": "data", "v_prediction": "velocity"}


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
    elif name == "scaled_linear":  # of latent diffusion: sqrt(beta) is linear
        path = DiscreteVP.from_betas(np.linspace(first**0.5, last**0.5, steps) ** 2)
    elif name == "squaredcos_cap_v2":
        path = DiscreteVP.cosine(steps)
    else:
        raise ScheduleError(unknown("beta_schedule", str(name), ["linear", "scaled_linear", "squaredcos_cap_v2"]))
    return _to_zero_snr(path) if config.get("rescale_betas_zero_snr") else path


def _to_zero_snr(path: DiscreteVP) -> DiscreteVP:
    """sqrt(abar) shifted and scaled so that the last is 0 and the first stays (Lin et al. 2023, Alg. 1)."""
    root = np.sqrt(path.alphas_cumprod)
    return DiscreteVP(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2)
