"""What a scheduler of diffusers must know of a tuned method: its file, its budgets, the scale of its first state."""

import os
from typing import Any

import torch

from ddim_ode.checkpoints.frames import Frame
from ddim_ode.integrations.handed import SchedulerError
from ddim_ode.integrations.runs import PipelineRun
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.budget import priced
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.tuned_files import load_tuned
from ddim_ode.solvers import TUNED, Method, get_method
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number

ROUNDED = 1e-12  # by which a scale may miss 1 and still be that


def method_for(method: str, tuned: str | os.PathLike[str] | None, grid: Any = None, final: Any = "denoise") -> Method:
    """The method of a name, or for "tuned" the one in the file, if it can have that grid and that end.

    Raises:
        SchedulerError: the name "tuned" without a file, or a file with another name.
        MethodError: a name that is unknown.
        TunedError: the file is missing or damaged.
        SampleError, GridError: a grid or an end that the tuned method cannot have.
    """
    if method != TUNED:
        if tuned is not None:
            raise SchedulerError(f"tuned={shown(tuned)} does nothing with method={shown(method)}; use method={TUNED!r}")
        return get_method(method)
    if tuned is None:
        raise SchedulerError(f"method={TUNED!r} needs its file; give tuned=FILE, as save_tuned has written it")
    found = load_tuned(tuned)
    return SolveOptions(method=found, grid=grid, final=final).row


def check_steps(model: Denoiser, options: SolveOptions) -> None:
    """Raise SchedulerError for a number of predictions that a tuned method has no grid for, unless a grid is given."""
    if not options.row.grids or options.grid is not None or options.nfe is None:
        return
    counts = [cost for cost, _ in priced(model, options)]
    if options.nfe not in counts:
        raise SchedulerError(
            f"num_inference_steps={options.nfe} is none that this method was tuned for; use one of"
            f" {', '.join(map(str, counts))}"
        )


def check_scaled(scale: float, scaled: bool) -> None:
    """Raise SchedulerError where a table has a scale, and the pipeline has not asked what to give its network."""
    if scale != 1 and not scaled:
        raise SchedulerError(
            "this pipeline does not ask scale_model_input what to give its network, where tables have a scale"
            "; use another method, such as 'dpmpp_2m'"
        )


def first_scale(frame: Frame, method: Method, sigmas: torch.Tensor) -> float:
    """What noise is multiplied by for the network's first question: 1, but of a table its own scale."""
    if not method.own_grids:
        return 1.0
    run = PipelineRun(frame, method, sigmas, torch.ones(1, 1, 1, 1, dtype=torch.float64))
    found = number(run.given.reshape(()))
    return 1.0 if abs(found - 1) < ROUNDED else found
