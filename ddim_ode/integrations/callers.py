"""Which pipeline of diffusers is calling its scheduler, and what it does that the scheduler is not told.

A pipeline says to `set_timesteps` neither what kind of model it has nor that it will stop on the way, and goes on with
any scheduler that is put into it. What it was written for stands in the annotation of its `scheduler`, and how far it
goes in an attribute; for both the pipeline itself is needed, which is the `self` of a `__call__` that is running.
"""

import inspect
import re
from collections.abc import Generator
from contextlib import closing
from inspect import getattr_static
from typing import Any

import numpy as np
from torch import Tensor

from ddim_ode.checkpoints.scheduler_config import OTHERS
from ddim_ode.integrations.handed import SchedulerError
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number

DEPTH = 8  # calls between set_timesteps and a pipeline's __call__: a helper or two, and decorators


def calling_pipeline(scheduler: Any) -> Any:
    """The pipeline whose scheduler it is and that is running now, or None.

    Nothing else tells a scheduler that was made by hand, and put into a pipeline of flows, what it is in. Other
    people's calls are left as they are: the variables of a function are asked for only if it is a method `__call__`,
    since to ask keeps them alive until it ends; of its object nothing is looked at but what is stored as `scheduler`,
    so that no property runs; and no frame is kept.
    """
    with closing(_calls("self")) as calls:
        for found in calls:
            if getattr_static(found, "scheduler", None) is scheduler:
                return found
    return None


def shorten_bar() -> None:
    """Let the progress bar of the pipeline that is running end with the step under way.

    It was made for the largest number of calls, before anybody knew how many an adaptive method would take.
    """
    with closing(_calls("progress_bar")) as calls:
        bar: Any = next(calls, None)
    if all(hasattr(bar, name) for name in ("n", "total", "refresh")):
        bar.total = bar.n + 1
        bar.refresh()


def _calls(name: str) -> Generator[Any, None, None]:
    """What a variable of that name holds in each method `__call__` that is running, from the innermost outwards."""
    frame = inspect.currentframe()
    try:
        for _ in range(DEPTH + 2):  # itself, and who asks
            frame = frame.f_back if frame else None
            if frame is None:
                break
            names = frame.f_code.co_varnames
            if frame.f_code.co_name == "__call__" and names[:1] == ("self",) and name in names:
                yield frame.f_locals.get(name)
    finally:
        del frame


def written_for(pipe: Any) -> str:
    """The schedulers without betas, of flows for instance, that a pipeline was written for; "" for any other."""
    try:
        annotation = inspect.signature(type(pipe).__init__).parameters["scheduler"].annotation
    except (KeyError, TypeError, ValueError, NameError):  # it has no such argument, or none that can be read
        return ""
    names = re.findall(r"\b\w*Schedulers?\b", str(annotation))
    return " or ".join(names) if all(name.startswith(OTHERS) for name in names) else ""


def refuse_flows(pipe: Any, sigmas: Any, mu: Any) -> None:
    """Raise SchedulerError for a pipeline (or None) of models without betas, and for what such pipelines give.

    By hand, sigmas from 1 to 1 / n are a grid as any other.
    """
    if mu is not None:
        raise SchedulerError(f"mu={shown(mu)} is of flow models, and ODEScheduler has betas; keep their own scheduler")
    if pipe is not None and (theirs := written_for(pipe)):
        raise SchedulerError(
            f"{type(pipe).__name__} was written for a {theirs}, and ODEScheduler is for models with betas; keep its own"
            " scheduler"
        )
    if pipe is None or not isinstance(sigmas, list | tuple | np.ndarray | Tensor) or getattr(sigmas, "ndim", 1) != 1:
        return
    if (n := len(sigmas)) < 2:
        return
    if all(abs(number(sigma) - (1 - k / n)) < 1e-6 for k, sigma in enumerate(sigmas)):  # linspace(1, 1 / n, n)
        raise SchedulerError(
            f"sigmas from 1 to 1/{n} are shares of noise, as pipelines of flow models give them, and ODEScheduler is"
            " for models with betas; keep their own scheduler"
        )


def last_timestep(pipe: Any, timesteps: int) -> int | None:
    """The timestep below which a pipeline stops by its `denoising_end`, or None where it goes to the end."""
    ends = (getattr_static(pipe, name, None) for name in ("denoising_end", "_denoising_end"))  # the first, a property
    end = next((end for end in ends if isinstance(end, float)), None)
    if end is None or not 0 < end < 1:
        return None
    return round(timesteps - end * timesteps)


def refuse_stop(pipe: Any, plan: Any, times: Tensor, timesteps: int, method: str) -> None:
    """Raise SchedulerError where a pipeline is told to stop between two evaluations of a step, or of an adaptive run.

    plan: a `PipelinePlan`. times: its timesteps. timesteps: how many the model was trained with.
    """
    least = last_timestep(pipe, timesteps)
    if least is None:
        return
    if plan.control:
        raise SchedulerError(
            f"denoising_end stops the pipeline on its way, where {method!r} chooses its steps; use a method on a grid"
            ", such as 'dpmpp_2m'"
        )
    stop = int((times >= least).sum())
    if 0 < stop < len(times) and plan.rest(stop) is None:
        raise SchedulerError(
            f"denoising_end stops the pipeline at timesteps[{stop}], in the midst of a step of {method!r}; use a method"
            " of one evaluation a step, such as 'dpmpp_2m'"
        )
