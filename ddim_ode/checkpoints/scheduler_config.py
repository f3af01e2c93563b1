"""What a scheduler of diffusers says of its model, in our words and back, without importing diffusers.

The only place that reads one: from the file of a folder, from a pipeline, or from the config of a scheduler in memory.
Keys that it lacks have the defaults of the class that it names, and those of `DDIMScheduler` where it names none. Every
other key is of sampling and has no effect on an ODE, or is refused.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field, PositiveInt

from ddim_ode.checkpoints.diffusers_config import VERSION
from ddim_ode.checkpoints.files import CheckpointError, CheckpointWarning
from ddim_ode.errors import unknown
from ddim_ode.models.config import ScheduleConfig
from ddim_ode.paths import DiscreteVP
from ddim_ode.support.checks import of_kind, shown
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
    snr_shift_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    prediction_type: str = "epsilon"


_CLIPS = {"clip_sample": True}
_STABLE = {"beta_start": 0.00085, "beta_end": 0.012}
_SCALED = {**_STABLE, "beta_schedule": "scaled_linear"}
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "DDIM DDIMInverse DDIMParallel DDPM DDPMParallel RePaint": _CLIPS,
    "UnCLIP": {"beta_schedule": "squaredcos_cap_v2", **_CLIPS},
    "CogVideoXDDIM CogVideoXDPM": {**_SCALED, "snr_shift_scale": 3.0, **_CLIPS},
    "DPMSolverSDE HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete": _STABLE,
    "LCM TCD": _SCALED,
    "DPMSolverMultistep DPMSolverMultistepInverse DPMSolverSinglestep DEISMultistep UniPCMultistep": {},
    "EulerDiscrete EulerAncestralDiscrete LMSDiscrete PNDM SASolver ODE": {},
}
#: classes with the betas of DDPM -> what holds unless a config says otherwise, where it is not so in `Scheduler`
CLASSES: Mapping[str, Mapping[str, Any]] = {
    f"{name}Scheduler": usual for names, usual in _USUAL.items() for name in names.split()
}
#: how classes without them begin, whose configs other classes may have been made from
OTHERS = (
    *("Flow", "EDM", "CosineDPM", "CMStochastic", "IPNDM", "KarrasVe", "ScoreSde", "Consistency", "SCM", "Helios"),
    *("DDPMWuerstchen", "LTXEuler"),
)

_SAMPLING = {
    "it acts on samples": "clip_sample clip_sample_range clip_denoised clip_predicted_image clip_predicted_sample"
    " thresholding dynamic_thresholding_ratio sample_max_value sample_min_value eta variance_type s_churn s_noise"
    " s_tmin s_tmax stochastic_sampling do_brownian_noise is_predicting_variance",
    "it places timesteps, and what is of flows does nothing without use_flow_sigmas": "timestep_spacing steps_offset"
    " set_alpha_to_one set_alpha_to_zero clip_alpha_at_one num_inference_steps origin_steps denoise_final"
    " final_sigma_zero revert_all_steps use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas"
    " sigma_min sigma_max"
    " final_sigmas_type interpolation_type lambda_min_clipped timestep_scaling original_inference_steps flow_shift"
    " use_dynamic_shifting time_shift_type shift_terminal timestep_values",
    "it is of a solver": "solver_order solver_type solver_p algorithm_type lower_order_final euler_at_final predict_x0"
    " disable_corrector predictor_order corrector_order tau_func skip_prk_steps noise_sampler_seed tensor_format"
    " ab_order predictor_corrector_mode use_nihanth_order_dropoff use_new_add_noise",
    "it is of `ODEScheduler`": "method grid final quantize tuned tol scheduler",
}
#: keys that are no part of the model
SAMPLING = frozenset(key for keys in _SAMPLING.values() for key in keys.split())

_FLOW = "its model is a flow, for whose network there is Denoiser.from_flow"
#: keys of another model -> the one value that is understood, and what to do with others
FIXED: Mapping[str, tuple[Any, str]] = {
    "use_flow_sigmas": (False, _FLOW),
    "shift": (None, _FLOW),
    "sigma_data": (None, "its model is of EDM, for whose network there is Denoiser.from_edm"),
    "timestep_type": ("discrete", "its network is told the logarithm of sigma; give it to Denoiser with a path of it"),
    "predict_epsilon": (True, "write prediction_type='sample'"),
}


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config with the defaults of its class where it says nothing.

    diffusers' own list of the values that nobody gave is left out, so that no other class has its defaults there.

    Raises:
        ScheduleError: it does not say what the noise is, and its class is unknown here.
    """
    given = _modern({key: value for key, value in values.items() if key != "_use_default_values"})
    kind = str(given.get("_class_name"))
    usual = {key: field.default for key, field in Scheduler.model_fields.items() if not field.is_required()}
    if "_class_name" not in given:
        return {**usual, **given}
    if kind in CLASSES:
        return {**usual, "beta_schedule": "linear", **CLASSES[kind], **given}
    if given.get("beta_schedule") is not None:
        for key in ("num_train_timesteps", "beta_start", "beta_end", "prediction_type"):
            needless = key.startswith("beta") and given.get("trained_betas") is not None
            if key not in given and not needless:
                raise ScheduleError(
                    f"the default of {key} in a {shown(kind)} is not known here; say {key} in its config"
                )
    return {**usual, **given}


def read_scheduler(
    values: Mapping[str, Any], where: str | None = None, table: Any = None
) -> tuple[ScheduleConfig, str]:
    """The schedule that a scheduler's config means, and what the network predicts.

    Args:
        where: what errors call it (default: the name of its class).
        table: its `alphas_cumprod`, (T,), where it is in memory; it must be what the config means, and is the schedule
            where the config has no name that is known here.

    Raises:
        ScheduleError: it has no betas as DDPM has, or names a schedule, a prediction or a key that is unknown here.
        ConfigError: its numbers are no schedule.
    """
    of_kind("config", values, Mapping, "the config of a scheduler, such as pipe.scheduler.config")
    kind = str(values.get("_class_name", "this scheduler"))
    values = {} if kind.startswith(OTHERS) else with_defaults(values)
    if values.get("beta_schedule") is None:
        place = "" if where is None else f"{where}: "
        raise ScheduleError(
            f"{place}{kind} has no beta_schedule; the model's schedule must be of DDPM's kind, made of betas"
        )
    where, betas = kind if where is None else where, values.get("trained_betas")  # which may be an array in memory
    strange = _strange_keys(values, where)
    if strange and table is None:
        raise ScheduleError(
            f"{where}: {strange[0]}={shown(values[strange[0]])} is not known here, and might change the schedule; leave"
            f" {strange[0]} out if it does not"
        )
    given = parse(Scheduler, {**values, "trained_betas": None if betas is None else np.asarray(betas).tolist()}, where)
    if given.prediction_type not in PREDICTION:
        raise ScheduleError(f"{where}: {unknown('prediction_type', given.prediction_type, PREDICTION)}")
    found = None if table is None else torch.as_tensor(table).detach().cpu().double().numpy()
    schedule = _schedule(given, where, found)
    if found is not None:
        _check_table(schedule.discrete(), found, where)
    for key in strange:  # which did not change the table
        warnings.warn(f"{where}: {key}={shown(values[key])} is not known here", CheckpointWarning, stacklevel=3)
    return schedule, PREDICTION[given.prediction_type]


def _modern(values: dict[str, Any]) -> dict[str, Any]:
    """The config with the words of today: before diffusers 0.9, predict_epsilon=False was prediction_type="sample"."""
    if values.get("predict_epsilon") is not False or values.get("prediction_type") not in (None, "sample"):
        return values
    return {key: value for key, value in values.items() if key != "predict_epsilon"} | {"prediction_type": "sample"}


def _strange_keys(values: Mapping[str, Any], where: str) -> list[str]:
    """Keys that are not known here. Raises ScheduleError for one that says that the model is of another kind."""
    strange = []
    for key, value in values.items():
        if key.startswith("_") or key in Scheduler.model_fields or key in SAMPLING or value is None:
            continue
        if key not in FIXED:
            strange.append(key)
            continue
        usual, remedy = FIXED[key]
        if value != usual:
            raise ScheduleError(f"{where}: {key}={shown(value)} is another model than one with betas; {remedy}")
    return strange


def _schedule(given: Scheduler, where: str, table: np.ndarray | None) -> ScheduleConfig:
    schedule: dict[str, Any] = {"zero_snr": given.rescale_betas_zero_snr}
    if given.trained_betas is not None:
        schedule |= {"name": "betas", "timesteps": len(given.trained_betas), "betas": given.trained_betas}
    elif given.beta_schedule in SCHEDULES:
        schedule |= {"name": SCHEDULES[given.beta_schedule], "timesteps": given.num_train_timesteps}
        schedule |= {"beta_start": given.beta_start, "beta_end": given.beta_end}
    elif table is not None:
        return _of_table(table, where)
    else:
        raise ScheduleError(f"{where}: {unknown('beta_schedule', given.beta_schedule, SCHEDULES)}, or trained_betas")
    if given.snr_shift_scale == 1:
        return parse(ScheduleConfig, schedule, where)
    # abar / (1 - abar) is divided by the scale, before the end is moved to zero (CogVideoX, Yang et al. 2024).
    plain = parse(ScheduleConfig, {**schedule, "zero_snr": False}, where).discrete().alphas_cumprod
    shifted = plain / (given.snr_shift_scale + (1 - given.snr_shift_scale) * plain)
    return _of_table(shifted, where, given.rescale_betas_zero_snr)


def _of_table(table: np.ndarray, where: str, zero_snr: bool = False) -> ScheduleConfig:
    """The schedule of alphas_cumprod (T,), by its betas."""
    table = np.atleast_1d(table)
    betas = 1 - table / np.concatenate([[1.0], table[:-1]])
    return parse(
        ScheduleConfig,
        {"name": "betas", "timesteps": len(table), "betas": tuple(betas.tolist()), "zero_snr": zero_snr},
        where,
    )


def _check_table(path: DiscreteVP, table: np.ndarray, where: str) -> None:
    """Raise ScheduleError where alphas_cumprod in memory are not those of the config, up to float32.

    diffusers writes 2^-24 for the 0 of zero terminal SNR in some classes.
    """
    meant = np.append(path.alphas_cumprod, [0.0] * path.zero_terminal_snr)
    if meant.shape != table.shape:
        raise ScheduleError(
            f"{where}: it has {table.size} alphas_cumprod, and its config means {len(meant)}; give the betas that the"
            " model was trained with as trained_betas"
        )
    wrong = ~np.isclose(table, meant, rtol=1e-3, atol=1e-6)
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ScheduleError(
            f"{where}: alphas_cumprod[{n}]={table[n]:.6g}, where its config means {meant[n]:.6g}, so that one of them"
            " is not the model's; give the betas that it was trained with as trained_betas"
        )


def ignored_in(values: Mapping[str, Any]) -> list[str]:
    """The settings in a scheduler's config that act on samples and are no part of an ODE."""
    values = with_defaults(values)
    return [key for key in ("clip_sample", "thresholding") if values.get(key)]


def write_schedule(schedule: ScheduleConfig, predicts: str) -> dict[str, Any]:
    """`scheduler_config.json` of a `DDIMScheduler`.

    Raises:
        CheckpointError: it has no such schedule, or no name for what the network predicts.
    """
    if schedule.name == "flow":
        raise CheckpointError("a flow has no betas, which diffusers' DDIMScheduler needs; it can be used here only")
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
        ).model_dump(mode="json", exclude={"snr_shift_scale"}),  # which DDIMScheduler has not
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing" if schedule.zero_snr else "leading",
    }
