"""The SDE of `stochastic`, solved by torchsde (Li et al. 2020)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torchsde
from torch import Tensor

from ddim_ode.ode import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.solvers.base import Step, Stochastic
from ddim_ode.solvers.eta import DDPM, Eta, noise_of


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
        ends = -ode.path.sigma(torch.stack([u0, u1])).log()
        flat = y.flatten(1)
        sde = _Interval(ode, self.eta, y.shape, self.ito)
        bm = _Motion(ode, ends, flat)
        # In s = t - t0: torchsde casts its times to the dtype of y.
        unit = torch.stack([torch.zeros(()), torch.ones(())]).to(flat)
        sde.begin, sde.length = ends[0], ends[1] - ends[0]
        with torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):  # sdeint draws to see a shape
            found = torchsde.sdeint(sde, flat, unit, bm=bm, method=self.name, dt=1.0)[-1]
        return Step(found.reshape(y.shape), None)


class _Interval:
    """The SDE over one interval as torchsde sees it, in s in [0, 1]."""

    noise_type = "additive"

    def __init__(self, ode: ProbabilityFlow, eta: Eta, shape: torch.Size, ito: bool):
        self.ode, self.eta, self.shape = ode, eta, shape
        self.sde_type = "ito" if ito else "stratonovich"
        self.begin, self.length = f64(0.0), f64(0.0)
        self.last: tuple[float, Tensor, Tensor] | None = None

    def sigma(self, s: Tensor) -> Tensor:
        return (-(self.begin + float(s) * self.length)).exp()

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        # torchsde asks twice for the same: to see its shape, and again in its Runge-Kutta method.
        if self.last and self.last[0] == float(s) and self.last[1] is y:
            return self.last[2]
        sigma = self.sigma(s)
        u = self.ode.path.u(sigma)
        _, b = self.ode.path.coefficients(u)
        da, db = self.ode.path.slopes(u)
        data, noise, _ = self.ode.predict(self.ode.leave(y.reshape(self.shape), sigma), sigma)
        du = _slope_of_u(self.ode, u, sigma)  # du/dt
        square = self.eta(float(sigma)) ** 2
        slope = float(self.length * du * da) * data + float(self.length * (du * db - square * b)) * noise
        self.last = float(s), y, slope.flatten(1)
        return self.last[2]

    def g_prod(self, s: Tensor, y: Tensor, v: Tensor) -> Tensor:
        sigma = self.sigma(s)
        _, b = self.ode.path.coefficients(self.ode.path.u(sigma))
        return float(self.eta(float(sigma)) * math.sqrt(2) * b * self.length.sqrt()) * v


def _slope_of_u(ode: ProbabilityFlow, u: Tensor, sigma: Tensor) -> Tensor:
    """du/dt of t = -log sigma: dsigma/du = (b' a - b a') / a^2."""
    a, b = ode.path.coefficients(u)
    da, db = ode.path.slopes(u)
    return -sigma * a**2 / (db * a - b * da)


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
