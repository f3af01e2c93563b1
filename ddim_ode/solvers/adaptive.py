"""The adaptive solvers of torchdiffeq (Chen et al. 2018), guarded.

They integrate from 0 to 1 in s = (u - u0) / (u1 - u0), the share of the way in the path's time. Their first step is
given and none goes beyond 1, because left alone they probe outside of the interval. Their error is taken of each
sample, RMS in data units, and the worst one decides: a batch shares its steps.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.solvers.base import Adaptive, Control, DivergedError, Outcome, Watch
from ddim_ode.support.waiting import finite

FIRST = 0.3  # of sqrt(tol): the first step, in the path's time


@dataclass(frozen=True)
class TorchDiffEq(Adaptive):
    """torchdiffeq's `name` ("dopri5", "bosh3", ...); of "scipy_solver" the method of scipy.integrate.solve_ivp.

    scipy's take no first step, tell nothing of their steps, and begin anew with one DDIM step where max_nfe stops them.
    """

    name: str
    scipy: str = ""

    per_sample = False
    slopes_only = True

    @property
    def recorded(self) -> bool:
        """scipy computes in numpy."""
        return not self.scipy

    @property
    def tells_steps(self) -> bool:
        """scipy does not."""
        return not self.scipy

    def solve(
        self, ode: ProbabilityFlow, sigmas: Tensor, xbar: Tensor, control: Control, watch: Watch | None = None
    ) -> Outcome:
        y = ode.enter(xbar, sigmas[0])
        watched = WatchedSlope(ode, sigmas, y, control.max_nfe, watch)
        first = control.first_step or FIRST * math.sqrt(control.tol)
        guards = {"first_step": min(1.0, first / abs(float(watched.length))), "step_t": torch.ones(1), "norm": worst}
        # scipy's have no callbacks, no first step to give and a norm over the batch; they keep to the interval.
        slope, options = (watched.from_cpu, {"solver": self.scipy}) if self.scipy else (watched, guards)
        begin = y.cpu() if self.scipy else y  # where they compute, and where torchdiffeq has the times then
        converged = True
        try:
            with warnings.catch_warnings():
                # torchdiffeq passes a `min_step` on that scipy's explicit solvers do not have.
                warnings.filterwarnings("ignore", message=".*min_step.*", category=UserWarning)
                unit = torch.linspace(0, 1, 2, dtype=y.dtype, device=begin.device)
                found = odeint(slope, begin, unit, rtol=1e-12, atol=control.tol, method=self.name, options=options)
            if len(found) < 2:  # how scipy says so
                raise DivergedError(f"{self.name} cannot go on: the step is too small; use a larger tol")
            y, watched.share = found[-1].to(y.device), 1.0
        except SpentError:
            converged, y = False, watched.y
        except NonFiniteError as error:
            error.step = len(watched.visited)
            raise
        except AssertionError as error:  # how torchdiffeq says that a step is too small for its precision
            why = str(error).partition(":")[0]
            raise DivergedError(
                f"{self.name} cannot go on at sigma={watched.sigma():.6g}: {why}; use a larger tol"
            ) from None
        at = watched.sigma()
        xbar = ode.leave(y, at)
        if len(sigmas) > 2 or not converged:
            prediction = ode.predict(xbar, f64(at))
            xbar = prediction.data + sigmas[-1] * prediction.noise
        if not finite(xbar):
            raise DivergedError(f"{self.name} diverged: the state is not finite; use a smaller tol or another method")
        return watched.outcome(xbar, float(sigmas[-1]), converged)


class SpentError(Exception):
    """The next evaluation would be one too many."""


class WatchedSlope:
    """The slope that torchdiffeq sees, and what its callbacks say of the steps."""

    def __init__(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor, max_nfe: int, watch: Watch | None):
        self.ode, self.max_nfe, self.watch = ode, max_nfe, watch
        self.begin, end = ode.path.u(sigmas[:2])
        self.length = end - self.begin
        self.last, self.share = float(sigmas[1]), 0.0
        self.dearest = 0  # an accepted sigma was evaluated, so the prediction that ends the run costs no more
        self.y = y
        self.visited = [float(sigmas[0])]
        self.rejected = 0

    def sigma(self) -> float:
        """Where the last accepted step has led."""
        return self.last if self.share == 1 else float(self.ode.path.sigma(self.begin + self.share * self.length))

    def __call__(self, s: Tensor, y: Tensor) -> Tensor:
        u = self.begin + float(s) * self.length
        cost = self.ode.model.evaluations(float(self.ode.path.sigma(u)))
        self.dearest = max(self.dearest, cost)
        if int(self.ode.nfe) + cost + self.dearest > self.max_nfe:
            raise SpentError
        return self.length * self.ode(u, y)

    def from_cpu(self, s: Tensor, y: Tensor) -> Tensor:
        """The slope of a state on the CPU, there."""
        return self(s, y.to(self.y.device)).cpu()

    def callback_step(self, s: Tensor, y: Tensor, step: Tensor) -> None:
        """A trial begins at s with y, so the step to there was accepted."""
        if (share := float(s)) > self.share:
            self.share, self.y = share, y
            self.visited.append(self.sigma())
            if self.watch:
                self.watch(len(self.visited) - 1, self.share, self.sigma(), self.ode.leave(y, self.sigma()))

    def callback_reject_step(self, s: Tensor, y: Tensor, step: Tensor) -> None:
        self.rejected += 1

    def outcome(self, x: Tensor, last: float, converged: bool) -> Outcome:
        for sigma in (self.sigma(), last):
            if sigma != self.visited[-1]:
                self.visited.append(sigma)
        count = len(x)

        def each(value: int) -> Tensor:
            return torch.full((count,), value, dtype=torch.int64)

        return Outcome(
            x=x,
            nfe=each(int(self.ode.nfe)),
            steps=each(len(self.visited) - 1),
            rejected=each(self.rejected),
            sigmas=f64(self.visited).expand(count, -1),
            converged=torch.full((count,), converged),
        )


def worst(y: Tensor) -> Tensor:
    """The largest RMS of a sample."""
    return y.reshape(len(y), -1).square().mean(1).sqrt().max()
