"""The SDE of `stochastic`, solved by torchsde (Li et al. 2020), on a grid or in steps of its own choice."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torchsde
from torch import Tensor
from torchsde._core.methods import select

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.brownian import LEAST
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import Path, f64
from ddim_ode.solvers.adaptive import SpentError, worst
from ddim_ode.solvers.base import Adaptive, Control, DivergedError, Outcome, Step, Stochastic, Watch
from ddim_ode.solvers.eta import DDPM, Eta, noise_of
from ddim_ode.support.remembering import remembering
from ddim_ode.support.waiting import fetched

SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0  # of a step that an error calls for; the least and the most it may change
FIXED: dict[str, Any] = {"dt": 1.0, "adaptive": False, "rtol": 0.0, "atol": 0.0, "dt_min": 0.0}  # steps of torchsde
FIRST = 0.5  # of sqrt(tol): the first step, in log sigma


@dataclass(frozen=True)
class TorchSDE(Stochastic):
    """One step of torchsde's `name` (Li et al. 2020) in t = -log sigma, where the noise is additive.

    On a path y = a xbar:  dy = (f du/dt - eta^2 a sigma ehat) dt + eta sqrt(2) a sigma dW.
    """

    name: str
    eta: Eta = DDPM
    ito: bool = True

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> "_Interval":
        return _Interval(_Drift(ode, self.eta, y.shape), y.reshape(len(y), -1), self.name, self.ito)

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: "_Interval") -> Step:
        state.drift.known = []  # a step that is made again evaluates again
        flat = state.across(-ode.path.sigma(torch.stack([u0, u1])).log(), y.reshape(len(y), -1))
        return Step(flat.reshape(y.shape), state)


@dataclass(frozen=True)
class AdaptiveSDE(TorchSDE, Adaptive):
    """torchsde's steps, each compared with two of half its size on the same Brownian path; a batch shares them.

    The tolerance is that of a step, RMS in data units of the sample where it is largest; what the steps add up to is
    not controlled. `order` is the strong order of the method.
    """

    order: float = 1.5

    per_sample = False

    def solve(
        self, ode: ProbabilityFlow, sigmas: Tensor, xbar: Tensor, control: Control, watch: Watch | None = None
    ) -> Outcome:
        (t, end), y = (-sigmas[:2].log()).tolist(), ode.enter(xbar, sigmas[0]).reshape(len(xbar), -1)
        begin, visited, rejected, converged = t, [float(sigmas[0])], 0, True
        interval = _Interval(_Drift(ode, self.eta, xbar.shape, control.max_nfe), y, self.name, self.ito)
        h = max(control.first_step or FIRST * math.sqrt(control.tol), 4 * LEAST)
        while converged and t < end:
            # Not a last step too small for a Brownian path, nor one that leaves such a rest.
            h = end - t if h > end - t - 2 * LEAST else h
            try:
                whole, *halves = f64([t, t + h]), f64([t, t + h / 2]), f64([t + h / 2, t + h])
                once, twice = interval.across(whole, y), y
                for half in halves:
                    twice = interval.across(half, twice)
            except SpentError:
                converged = False
                break
            except NonFiniteError as error:
                error.step = len(visited)
                raise
            if not (gap := float(fetched(worst(once - twice)))) < math.inf:
                raise DivergedError(f"{self.name} diverged: the state is not finite; use a smaller tol")
            if gap <= control.tol:
                t, y = t + h if t + h < end else end, twice
                visited.append(math.exp(-t) if t < end else float(sigmas[1]))
                if watch:
                    reached = ode.leave(y.reshape(xbar.shape), visited[-1])
                    watch(len(visited) - 1, (t - begin) / (end - begin), visited[-1], reached)
            else:
                rejected += 1
            factor = SAFETY * (control.tol / max(gap, 1e-300)) ** (1 / (self.order + 0.5))
            h *= min(GROW, max(SHRINK, factor))
            converged = t == end or h >= 2 * LEAST
        xbar = ode.leave(y.reshape(xbar.shape), visited[-1])
        if len(sigmas) > 2 or not converged:
            prediction = ode.predict(xbar, f64(visited[-1]))
            xbar = prediction.data + sigmas[-1] * prediction.noise
            visited.append(float(sigmas[-1]))
        count = torch.ones(len(xbar), dtype=torch.int64)
        return Outcome(
            x=xbar,
            nfe=int(ode.nfe) * count,
            steps=(len(visited) - 1) * count,
            rejected=rejected * count,
            sigmas=f64(visited).expand(len(xbar), -1),
            converged=torch.full((len(xbar),), converged),
        )


class _Drift:
    """dy/dt without the noise. torchsde asks twice for the same, and so does who halves a step."""

    def __init__(self, ode: ProbabilityFlow, eta: Eta, shape: torch.Size, most: int | None = None):
        self.ode, self.eta, self.shape, self.most = ode, eta, shape, most
        self.known: list[tuple[float, Tensor, Tensor]] = []

    def __call__(self, sigma: Tensor, y: Tensor) -> Tensor:
        """The slope dy/dt at sigma of the states y (B, D), flat."""
        level = float(sigma)
        for at, state, slope in self.known:
            if at == level and state is y:
                return slope
        cost = self.ode.model.evaluations(level)
        if self.most is not None and int(self.ode.nfe) + 2 * cost > self.most:  # one is left to end with
            raise SpentError
        data, noise, _ = self.ode.predict(self.ode.leave(y.reshape(self.shape), sigma), sigma)
        of_data, of_noise = slopes_at(self.ode.path, level, self.eta(level))
        slope = (of_data * data + of_noise * noise).reshape(len(data), -1)
        self.known = [*self.known[-1:], (level, y, slope)]
        return slope


@remembering(4096)
def slopes_at(path: Path, sigma: float, eta: float) -> tuple[float, float]:
    """What the predicted image and noise are multiplied by in dy/dt."""
    u = path.u(f64(sigma))
    a, b = path.coefficients(u)
    da, db = path.slopes(u)
    du = -sigma * a**2 / (db * a - b * da)  # du/dt, as dsigma/du = (b' a - b a') / a^2
    return float(du * da), float(du * db - eta**2 * b)


@remembering(4096)
def noise_at(path: Path, sigma: float) -> float:
    """b = a sigma, which the noise is multiplied by."""
    return float(path.coefficients(path.u(f64(sigma)))[1])


class _Interval(torchsde.BaseBrownian):  # type: ignore[misc]  # torchsde is not typed
    """The SDE and the samples' paths over one interval after another, as torchsde sees both, in s in [0, 1].

    `torchsde.sdeint` itself would check them, draw random numbers and evaluate, for the shapes' sake, at every step.

    like: a state (B, D). ends: of the interval, two times t.
    """

    noise_type = "additive"
    levy_area_approximation = "space-time"

    def __init__(self, drift: _Drift, like: Tensor, name: str, ito: bool):
        super().__init__()
        self.drift, self.like, self.name = drift, like, name
        self.sde_type = "ito" if ito else "stratonovich"
        self.ends = f64([0.0, 1.0])

    def across(self, ends: Tensor, y: Tensor) -> Tensor:
        """The state at ends[1] of y (B, D) at ends[0]."""
        self.ends = ends
        solver = select(self.name, self.sde_type)(sde=self, bm=self, options={}, **FIXED)
        begin, end = torch.tensor([0.0, 1.0], dtype=y.dtype)  # on the CPU, where nobody waits for them
        at: Tensor = solver.step(begin, end, y, solver.init_extra_solver_state(begin, y))[0]
        return at

    @property
    def length(self) -> Tensor:
        return self.ends[1] - self.ends[0]

    def sigma(self, s: Tensor) -> Tensor:
        return (-(self.ends[0] + float(s) * self.length)).exp()

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        return float(self.length) * self.drift(self.sigma(s), y)

    def g_prod(self, s: Tensor, y: Tensor, v: Tensor) -> Tensor:
        sigma = float(self.sigma(s))
        scale = self.drift.eta(sigma) * math.sqrt(2) * noise_at(self.drift.ode.path, sigma)
        return scale * float(self.length.sqrt()) * v

    def f_and_g_prod(self, s: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(s, y), self.g_prod(s, y, v)

    def g_prod_and_gdg_prod(self, s: Tensor, y: Tensor, v: Tensor, _: Tensor) -> tuple[Tensor, float]:
        return self.g_prod(s, y, v), 0.0

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        """The samples' paths over the interval, with their area."""
        assert (float(ta), float(tb)) == (0.0, 1.0)
        drawn = noise_of(self.drift.ode).increment(*(-self.ends).exp())
        z, u = (x.reshape(self.shape).to(self.like) for x in drawn)
        return (z, u) if return_U else z

    @property
    def dtype(self) -> torch.dtype:
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        return self.like.device

    @property
    def shape(self) -> torch.Size:
        return self.like.shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)})"
