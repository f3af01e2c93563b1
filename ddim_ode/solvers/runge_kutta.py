"""Fixed-grid Runge-Kutta steps, computed by torchdiffeq (Chen et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.solvers.base import Step


@dataclass(frozen=True)
class RungeKutta:
    """One step of torchdiffeq's `tableau` ("euler", "midpoint", "rk4", ...) from u0 to u1."""

    tableau: str

    to_zero = False  # it would evaluate there
    slopes_only = True
    one_step = True

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: None) -> Step:
        # In s in [0, 1] and not in u: torchdiffeq casts its time to the dtype of y, and a float32 time
        # would move the stages off the grid.
        h = u1 - u0

        def slope(s: Tensor, y: Tensor) -> Tensor:
            return h * ode(u0 + float(s) * h, y)

        unit = torch.linspace(0, 1, 2, dtype=y.dtype, device=y.device)
        return Step(odeint(slope, y, unit, method=self.tableau)[-1], None)
