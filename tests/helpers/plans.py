"""Plans along sigmas that no command would ask for: upwards, or anywhere on a model's path."""

from typing import Any

import torch
from torch import Tensor

from ddim_ode import METHODS
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.plan import AdaptivePlan, GridPlan
from ddim_ode.solvers import Control, Outcome


def plan_of(model: Model, name: str, sigmas: Tensor, control: Control) -> GridPlan | AdaptivePlan:
    """Of a method that draws no noise, for samples without labels; the control is of an adaptive one."""
    common: dict[str, Any] = {"model": model, "method": METHODS[name], "sigmas": sigmas, "labels": None}
    common |= {"batch_size": 1, "seeds": (), "dtype": torch.float64}
    return AdaptivePlan(**common, control=control) if METHODS[name].adaptive else GridPlan(**common)


def carry(model: Model, name: str, sigmas: Tensor, control: Control, xbar: Tensor) -> Outcome:
    """What becomes of xbar (B, *shape) on the way from the first sigma to the last."""
    plan = plan_of(model, name, sigmas, control)
    return plan.run(plan.flow(), xbar)
