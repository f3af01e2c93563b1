"""A scheduler of diffusers as the maker of grids: what it steps on, in our sigmas, and how its samples begin and end.

It is asked, and not read: it shifts, bends and ends its sigmas as its config and the pipeline's arguments tell it.
"""

import copy
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from ddim_ode.checkpoints.frames import Frame, frame_of, told_before_shift
from ddim_ode.checkpoints.scheduler_config import OTHERS, ScheduleError
from ddim_ode.errors import one_line
from ddim_ode.integrations.handed import SchedulerError
from ddim_ode.paths import f64
from ddim_ode.support.checks import described, of_kind, shown

ALIKE = 1e-3  # by which the scale of a sample may miss that of its sigma, and still be that
ENDS = 1e-4  # by which the first sigma may exceed the largest, and still be that


class OwnGrid(NamedTuple):
    """What a scheduler steps on.

    sigmas: (N + 1,) ours, float64, decreasing. labels: (N,), what it tells its network there, perhaps in whole
    timesteps. frame: whose labels these are. begin: its `init_noise_sigma`. exploding: whether its samples are xbar,
    which `scale_model_input` scales for the network.
    """

    sigmas: Tensor
    labels: Tensor
    frame: Frame
    begin: float
    exploding: bool


_GIVEN: WeakValueDictionary[str, type] = WeakValueDictionary()  # classes that diffusers has not


def class_name(kind: type) -> str:
    """The name by which `scheduler_class` finds a class again: in diffusers, or for as long as the process has it."""
    if getattr(importlib.import_module("diffusers"), kind.__name__, None) is kind:
        return kind.__name__
    name = f"{kind.__module__}.{kind.__qualname__}"
    _GIVEN[name] = kind
    return name


def scheduler_class(name: Any) -> Any:
    """A class of scheduler by its name. Raises SchedulerError for what diffusers has not, and nobody has given."""
    of_kind("scheduler", name, str, "the name of a scheduler's class in diffusers")
    found = _GIVEN.get(name) or getattr(importlib.import_module("diffusers"), name, None)
    if not (isinstance(found, type) and hasattr(found, "set_timesteps")):
        raise SchedulerError(
            f"scheduler={shown(name)} is no scheduler of diffusers; give the object to ODEScheduler.from_scheduler"
        )
    return found


def original_of(config: Mapping[str, Any]) -> Any:
    """The scheduler of diffusers that a config names as `scheduler`, or is of; None where it is one of ours, of betas.

    Raises:
        SchedulerError: diffusers has no such scheduler.
        ScheduleError: it is of a kind that is unknown here.
    """
    name, own = config.get("scheduler"), str(config.get("_class_name", ""))
    if name is None:
        other = bool(config.get("use_flow_sigmas")) or config.get("timestep_type", "discrete") != "discrete"
        has_betas = bool(own) or not config or bool({"beta_schedule", "trained_betas", "beta_start"} & set(config))
        if own == "ODEScheduler" or (has_betas and not (other or own.startswith(OTHERS))):
            return None
        if not own:  # as in memory, where a config does not say its class
            raise ScheduleError(
                "this config has no beta_schedule, and does not say whose it is"
                "; use ODEScheduler.from_scheduler(pipe.scheduler)"
            )
        name = own
    kind = scheduler_class(name)
    names = inspect.signature(kind.__init__).parameters
    ours = {"method", "grid", "final", "quantize", "tuned", "tol", "scheduler"}
    stray = {key for key in stated(config) if key not in names and (key in ours or config[key] is None)}
    try:
        made = kind.from_config({key: value for key, value in stated(config).items() if key not in stray})
    except Exception as error:  # whatever a class of theirs says of values that it cannot have
        raise ScheduleError(f"{name}: diffusers cannot make it of this config: {one_line(str(error), 200)}") from error
    frame_of(made)
    return made


def stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that a config says, its defaults included, which diffusers would leave out of a config for another class."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def check_scheduler(scheduler: Any) -> None:
    """Raise unless it is a scheduler in memory whose network can be asked by any sigma."""
    if isinstance(scheduler, type) or not all(callable(getattr(scheduler, n, None)) for n in ("set_timesteps", "step")):
        raise SchedulerError(f"scheduler is {described(scheduler)}; give that of a pipeline, such as pipe.scheduler")
    frame_of(scheduler)


def check_taken(scheduler: Any, given: Mapping[str, Any]) -> None:
    """Raise SchedulerError for an argument, other than None, that a scheduler's `set_timesteps` does not take."""
    names = inspect.signature(scheduler.set_timesteps).parameters
    for name, value in given.items():
        if value is not None and name not in names:
            raise SchedulerError(f"{type(scheduler).__name__} takes no {name}; leave {name} out")


def own_grid(scheduler: Any, intervals: int, given: Mapping[str, Any]) -> OwnGrid:
    """Where a scheduler steps with so many intervals.

    Args:
        given: what a pipeline has passed to `set_timesteps`: sigmas, timesteps, mu, or None for each; of sequences of
            another length so many are taken, in proportion.

    Raises:
        SchedulerError: it takes no such argument, or steps on nothing that decreases.
    """
    frame = frame_of(scheduler)
    asked = {name: value for name, value in given.items() if value is not None}
    lists = {name: asked[name] for name in ("sigmas", "timesteps") if name in asked}
    check_taken(scheduler, asked)
    for name, values in lists.items():
        asked[name] = _as_many(name, values, intervals)
    count = {} if lists else {"num_inference_steps": intervals}
    try:
        scheduler.set_timesteps(**count, **asked)
    except ValueError as error:  # in its own words
        raise SchedulerError(f"{type(scheduler).__name__}: {' '.join(str(error).split())}") from error
    labels = scheduler.timesteps
    sigmas = getattr(scheduler, "sigmas", None)
    if isinstance(sigmas, np.ndarray | Tensor) and len(sigmas) in (len(labels), len(labels) + 1):
        values = frame.ratios(torch.as_tensor(sigmas))
        if not frame.path.num_timesteps:
            frame = told_before_shift(frame, values[: len(labels)], labels, type(scheduler).__name__)
        if len(values) == len(labels):
            values = torch.cat([values, f64([0.0])])
    else:
        values = torch.cat([frame.path.sigma(labels.detach().double().cpu()), _last(scheduler)])
    top = frame.path.sigma_max
    values = torch.where((values > top) & (values <= top * (1 + ENDS)), f64(top), values)
    falls = torch.cat([torch.ones(1, dtype=torch.bool), values[1:] < values[:-1].cummin(0).values])
    told = labels.detach().double().cpu()[falls[: len(labels)]]
    values = values[falls]
    if len(values) < 2:
        raise SchedulerError(f"{type(scheduler).__name__} steps on no sigmas that decrease; use another scheduler")
    return OwnGrid(
        sigmas=values,
        labels=told,
        frame=frame,
        begin=float(getattr(scheduler, "init_noise_sigma", 1.0)),
        exploding=_explodes(scheduler, frame, values[0]),
    )


def most_steps(scheduler: Any, wanted: int) -> int:
    """As many steps as wanted, or as a scheduler of a distilled model takes."""
    return min(wanted, scheduler.config.get("original_inference_steps") or wanted)


def explodes(scheduler: Any) -> bool:
    """Whether a scheduler's samples are xbar, whatever it is set to."""
    if not hasattr(scheduler, "scale_model_input"):
        return False
    return own_grid(copy.deepcopy(scheduler), 2, {}).exploding


def _last(scheduler: Any) -> Tensor:
    """The sigma at which a scheduler without a list of them ends, (1,)."""
    last = getattr(scheduler, "final_alpha_cumprod", None)
    alpha = f64(1.0 if last is None else last).reshape(1)
    return torch.sqrt((1 - alpha) / alpha)


def _explodes(scheduler: Any, frame: Frame, sigma: Tensor) -> bool:
    """Whether a scheduler's samples are xbar, by what it makes of its first one for the network.

    Raises SchedulerError where they are neither that nor what the network sees.
    """
    scale = getattr(scheduler, "scale_model_input", None)
    if scale is None:
        return False
    factor = float(scale(torch.ones(1, 1, 1, 1, dtype=torch.float64), scheduler.timesteps[0]).flatten()[0])
    if factor == 1:
        return False
    if abs(factor / float(frame.path.scale(sigma)) - 1) > ALIKE:
        raise SchedulerError(
            f"{type(scheduler).__name__} scales its samples by {factor:g} for the network, by an unknown rule"
        )
    return True


def _as_many(name: str, values: Any, count: int) -> list[float]:
    """A sequence of numbers, or so many of it in proportion."""
    if not isinstance(values, Sequence | np.ndarray | Tensor) or isinstance(values, str):
        raise SchedulerError(f"{name} is {described(values)}; give a sequence of numbers")
    try:
        found = torch.as_tensor(values, dtype=torch.float64).cpu().numpy()
    except (TypeError, ValueError, RuntimeError):
        raise SchedulerError(f"{name}={shown(values)} is no sequence of numbers") from None
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise SchedulerError(f"{name}={shown(values)} is no sequence of numbers")
    if len(found) == count:
        return [float(value) for value in found]
    return [float(v) for v in np.interp(np.linspace(0, len(found) - 1, count), np.arange(len(found)), found)]
