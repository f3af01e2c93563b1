"""The SDE of `stochastic`, solved by torchsde (Li et al. 2020), on a grid or in steps of its own choice."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torchsde
from torch import Tensor

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.brownian import LEAST
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.solvers.adaptive import SpentError, worst
from ddim_ode.solvers.base import Adaptive, Control, DivergedError, Outcome, Step, Stochastic, Watch
from ddim_ode.solvers.eta import DDPM, Eta, noise_of

SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0  # of a step that an error calls for; the least and the most it may change
FIRST = 0.5  # of sqrt(tol): the first step, in log sigma


@dataclass(frozen=True)
class TorchSDE(Stochastic):
    """One step of torchsde's `name` (Li et al. 2020) in t = -log sigma, where the noise is additive.

    On a path y = a xbar:  dy = (f du/dt - eta^2 a sigma ehat) dt + eta sqrt(2) a sigma dW.
    """

    name: str
    eta: Eta = DDPM
    ito: bool = True

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: None) -> Step:
        drift = _Drift(ode, self.eta, y.shape)
        return Step(self.between(drift, -ode.path.sigma(torch.stack([u0, u1])).log(), y), None)

    def between(self, drift: "_Drift", ends: Tensor, y: Tensor) -> Tensor:
        """Step from y at ends[0] to ends[1], two times t."""
        flat = y.reshape(len(y), -1)
        sde = _Interval(drift, ends, self.ito)
        bm = _Motion(drift.ode, ends, flat)
        unit = torch.tensor([0.0, 1.0], dtype=y.dtype)  # torchsde casts its times so; on the CPU nobody waits for them
        with torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):  # sdeint draws to see a shape
            return torchsde.sdeint(sde, flat, unit, bm=bm, method=self.name, dt=1.0)[-1].reshape(y.shape)


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
        (t, end), y = (-sigmas[:2].log()).tolist(), ode.enter(xbar, sigmas[0])
        begin, visited, rejected, converged = t, [float(sigmas[0])], 0, True
        drift = _Drift(ode, self.eta, y.shape, control.max_nfe)
        h = max(control.first_step or FIRST * math.sqrt(control.tol), 4 * LEAST)
        while converged and t < end:
            # Not a last step too small for a Brownian path, nor one that leaves such a rest.
            h = end - t if h > end - t - 2 * LEAST else h
            try:
                whole, *halves = f64([t, t + h]), f64([t, t + h / 2]), f64([t + h / 2, t + h])
                once, twice = self.between(drift, whole, y), y
                for half in halves:
                    twice = self.between(drift, half, twice)
            except SpentError:
                converged = False
                break
            except NonFiniteError as error:
                error.step = len(visited)
                raise
            if not (gap := float(worst(once - twice))) < math.inf:
                raise DivergedError(f"{self.name} diverged: the state is not finite; use a smaller tol")
            if gap <= control.tol:
                t, y = t + h if t + h < end else end, twice
                visited.append(math.exp(-t) if t < end else float(sigmas[1]))
                if watch:
                    watch(len(visited) - 1, (t - begin) / (end - begin), visited[-1], ode.leave(y, visited[-1]))
            else:
                rejected += 1
            factor = SAFETY * (control.tol / max(gap, 1e-300)) ** (1 / (self.order + 0.5))
            h *= min(GROW, max(SHRINK, factor))
            converged = t == end or h >= 2 * LEAST
        xbar = ode.leave(y, visited[-1])
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
        for at, state, slope in self.known:
            if at == float(sigma) and state.data_ptr() == y.data_ptr():
                return slope
        cost = self.ode.model.evaluations(float(sigma))
        if self.most is not None and int(self.ode.nfe) + 2 * cost > self.most:  # one is left to end with
            raise SpentError
        u = self.ode.path.u(sigma)
        a, b = self.ode.path.coefficients(u)
        da, db = self.ode.path.slopes(u)
        data, noise, _ = self.ode.predict(self.ode.leave(y.reshape(self.shape), sigma), sigma)
        du = -sigma * a**2 / (db * a - b * da)  # du/dt, as dsigma/du = (b' a - b a') / a^2
        square = self.eta(float(sigma)) ** 2
        slope = (float(du * da) * data + float(du * db - square * b) * noise).reshape(len(data), -1)
        self.known = [*self.known[-1:], (float(sigma), y, slope)]
        return slope


class _Interval:
    """The SDE over one interval as torchsde sees it, in s in [0, 1]."""

    noise_type = "additive"

    def __init__(self, drift: _Drift, ends: Tensor, ito: bool):
        self.drift, self.begin, self.length = drift, ends[0], ends[1] - ends[0]
        self.sde_type = "ito" if ito else "stratonovich"

    def sigma(self, s: Tensor) -> Tensor:
        return (-(self.begin + float(s) * self.length)).exp()

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        return float(self.length) * self.drift(self.sigma(s), y)

    def g_prod(self, s: Tensor, y: Tensor, v: Tensor) -> Tensor:
        sigma, path = self.sigma(s), self.drift.ode.path
        _, b = path.coefficients(path.u(sigma))
        return float(self.drift.eta(float(sigma)) * math.sqrt(2) * b * self.length.sqrt()) * v


class _Motion(torchsde.BaseBrownian):
    """The samples' paths over one interval, as torchsde asks for them: all of it, with its area."""

    def __init__(self, ode: ProbabilityFlow, ends: Tensor, like: Tensor):
        super().__init__()
        self.like = like
        self.z, self.u = (x.reshape(like.shape).to(like) for x in noise_of(ode).increment(*(-ends).exp()))

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        assert (float(ta), float(tb)) == (0.0, 1.0)
        return (self.z, self.u) if return_U else self.z

    @property
    def dtype(self) -> torch.dtype:
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        return self.like.device

    @property
    def shape(self) -> torch.Size:
        return self.like.shape

    @property
    def levy_area_approximation(self) -> str:
        return "space-time"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)})"
