"""The stochastic family around the probability flow: with noise of scale eta, towards the image,

    dxbar = (1 + eta^2) ehat dsigma + eta sqrt(2 sigma) dW,        sigma falling

which has the same marginals whatever eta. At eta = 1 it is the reverse SDE of Song et al. 2021 ("Score-Based ...",
Eq. 6). DDIM's kernel (Song et al. 2021, Eq. 12 and 16) is a discretisation of it: of the noise at sigma1, the variance

    v = eta^2 sigma1^2 (sigma0^2 - sigma1^2) / sigma0^2

is fresh, and the rest, to sqrt(sigma1^2 - v), is a deterministic step. Noise comes from `ode.brownian`, a path for each
sample, so that solvers and numbers of steps can be compared on the same one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torchsde
from torch import Tensor

from ddim_ode.arguments import number
from ddim_ode.brownian import Noise
from ddim_ode.denoiser import Prediction
from ddim_ode.errors import DDIMError
from ddim_ode.ode import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.solvers.base import Adaptive, Method, Solver, Step, Stochastic
from ddim_ode.solvers.exponential import Adams, SingleStep
from ddim_ode.solvers.runge_kutta import RungeKutta


class EtaError(DDIMError):
    """Noise of a scale that cannot be, or with a solver that cannot have it."""


@dataclass(frozen=True)
class Eta:
    """The scale of the noise as a function of sigma: `value`, a number or a function, in a range of sigma; else 0."""

    value: float | Callable[[float], float] = 1.0
    low: float = 0.0
    high: float = math.inf

    def __call__(self, sigma: float) -> float:
        if not self.low <= sigma <= self.high:
            return 0.0
        given = self.value(sigma) if callable(self.value) else self.value
        if not 0 <= (eta := number(given)) < math.inf:
            raise EtaError(f"eta={given!r} at sigma={sigma:.6g} must be a finite number >= 0")
        return eta


def one_step(solver: object) -> bool:
    """Whether each of its steps stands alone, so that noise may be added in between."""
    return isinstance(solver, RungeKutta | SingleStep) or (
        isinstance(solver, Adams) and solver.order == 1 and not solver.corrector
    )


@dataclass(frozen=True)
class Ancestral(Stochastic):
    """DDIM(eta) around a one-step method: its step goes lower than sigma1, and fresh noise comes up to there.

    With `ddim` inside it is the paper's kernel; eta = 1 has the posterior variance of DDPM. large: DDPM's other choice,
    sigma-hat, the variance of a variance-preserving step forward, with the same mean (DDIM, Table 1). Other methods
    evaluate between sigma0 and where they step to, which on the last interval is below the model's smallest sigma.
    """

    solver: Solver
    eta: Eta = Eta()
    large: bool = False

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: None) -> Step:
        path = ode.path
        sigma0, sigma1 = path.sigma(u0), path.sigma(u1)
        eta = self.eta(float(sigma0))
        if eta > 1:
            raise EtaError(
                f"eta={eta:g} at sigma={float(sigma0):.6g}: DDIM's kernel takes eta <= 1; use method='sde_euler'"
            )
        ratio = sigma1 / sigma0
        fresh = (eta * sigma1) ** 2 * (1 - ratio**2)
        if fresh == 0:
            nodes = torch.stack([sigma0, sigma1])
            return Step(self.solver.step(ode, u0, u1, y, self.solver.init(ode, nodes, y)).y, None)
        down = sigma1 * (1 - eta**2 + (eta * ratio) ** 2).sqrt()  # not sigma1^2 - fresh, which cancels
        nodes = torch.stack([sigma0, down])
        y = self.solver.step(ode, u0, path.u(down), y, self.solver.init(ode, nodes, y)).y
        if self.large:
            fresh = (sigma0**2 - sigma1**2) * (1 + sigma1**2) / (1 + sigma0**2)
        z, _ = noise_of(ode).increment(sigma0, sigma1)
        return Step(ode.enter(ode.leave(y, down) + float(fresh.sqrt()) * z, sigma1), None)


@dataclass(frozen=True)
class Churn(Stochastic):
    """EDM's sampler (Karras et al. 2022, Alg. 2) around a one-step method: noise up to sigma-hat, and from there down.

    churn, low, high, noise: S_churn, S_tmin, S_tmax, S_noise. EDM's 40 is for 256 steps; with fewer than 97 every step
    in range has the largest gamma, 0.41. The evaluation that ends at sigma = 0 has none.
    """

    solver: Solver
    churn: float = 40.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> int:
        return len(sigmas) - 1

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: int) -> Step:
        path = ode.path
        sigma0, sigma1 = path.sigma(u0), path.sigma(u1)
        gamma = min(self.churn / state, math.sqrt(2) - 1) if self.low <= sigma0 <= self.high else 0.0
        higher = min(float(sigma0) * (1 + gamma), ode.domain[1])  # a model says nothing beyond its range
        if higher > sigma0:
            z, _ = noise_of(ode).increment(sigma0, sigma1)
            added = self.noise * math.sqrt(higher**2 - float(sigma0) ** 2) * z
            y = ode.enter(ode.leave(y, sigma0) + added, higher)
            sigma0 = f64(higher)
        nodes = torch.stack([sigma0, sigma1])
        return Step(self.solver.step(ode, path.u(sigma0), u1, y, self.solver.init(ode, nodes, y)).y, state)


class Past(NamedTuple):
    prediction: Prediction
    log_step: float  # that of the step it began


@dataclass(frozen=True)
class SDEDPMpp2M(Stochastic):
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b): exact for a constant prediction, of order 2 without noise."""

    eta: Eta = Eta()

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Past | None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Past | None) -> Step:
        sigma0, sigma1 = ode.path.sigma(u0), ode.path.sigma(u1)
        h = math.log(float(sigma0 / sigma1))
        square = self.eta(float(sigma0)) ** 2
        now = ode.predict(ode.leave(y, sigma0), sigma0)
        kept = math.exp(-square * h)  # of the noise that was there
        data = now.data
        if state:
            data = data + h / (2 * state.log_step) * (data - state.prediction.data)
        # xbar = D + (sigma1 / sigma0) e^(-eta^2 h) (xbar - D), with xbar - xhat0 = sigma0 ehat
        xbar = now.data + float(sigma1) * kept * now.noise + (1 - float(sigma1 / sigma0) * kept) * (data - now.data)
        if square:
            z, _ = noise_of(ode).increment(sigma0, sigma1)
            xbar = xbar + float(sigma1) * math.sqrt(-math.expm1(-2 * square * h)) * z
        return Step(ode.enter(xbar, sigma1), Past(now, h))


@dataclass(frozen=True)
class TorchSDE(Stochastic):
    """One step of torchsde's `name` (Li et al. 2020) in t = -log sigma, where the noise is additive.

    On a path y = a xbar:  dy = (f du/dt - eta^2 a sigma ehat) dt + eta sqrt(2) a sigma dW.
    """

    name: str
    eta: Eta = Eta()
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


def noise_of(ode: ProbabilityFlow) -> Noise:
    if ode.brownian is None:
        raise EtaError("eta > 0 draws noise, and there are no seeds to draw it from; sample with seeds")
    return ode.brownian


#: what `sample` takes as eta
EtaLike = float | Callable[[float], float] | Literal["ddpm_large"] | None


def with_noise(method: Method, name: str, eta: EtaLike, eta_range: tuple[float, float] | None) -> Method:
    """The method with noise of that scale; itself without.

    Raises:
        EtaError: no such scale or range, or a method whose steps lean on one another.
    """
    solver = method.solver
    if eta is None and eta_range is None:
        return method
    low, high = _range(eta_range)
    if isinstance(solver, Churn):
        if eta is not None:
            raise EtaError(f"{name} has its S_churn instead of eta; leave eta={eta!r} out")
        return replace(method, solver=replace(solver, low=low, high=high))
    if eta is None:
        if not isinstance(solver, TorchSDE | SDEDPMpp2M):
            raise EtaError(f"eta_range={eta_range} does nothing without eta; give eta, such as 1")
        return replace(method, solver=replace(solver, eta=replace(solver.eta, low=low, high=high)))
    large = isinstance(eta, str)
    if eta != "ddpm_large" and not callable(eta) and not 0 <= number(eta) < math.inf:
        raise EtaError(f"eta={eta!r} must be a number >= 0, a function of sigma, or 'ddpm_large'")
    scale = Eta(1.0 if isinstance(eta, str) else eta if callable(eta) else number(eta), low, high)
    if isinstance(solver, TorchSDE | SDEDPMpp2M) and not large:
        return replace(method, solver=replace(solver, eta=scale))
    if scale.value == 0:
        return method
    if isinstance(solver, Adaptive) or not one_step(solver):
        others = "ddim" if large else "ddim, heun_angle, rk4, sde_euler, sde_dpmpp_2m"
        raise EtaError(f"{name} cannot have noise with eta={eta!r} between its steps; use one of {others}")
    return replace(method, solver=Ancestral(solver, scale, large), order=1)


def _range(given: tuple[float, float] | None) -> tuple[float, float]:
    try:
        low, high = (None, None) if given is None else given
    except (TypeError, ValueError):
        raise EtaError(f"eta_range={given!r} is no range; give (low, high) in sigma") from None
    low, high = number(0.0 if low is None else low), number(math.inf if high is None else high)
    if not 0 <= low < high:
        raise EtaError(f"eta_range={low:g}:{high:g} is empty; give 0 <= low < high")
    return low, high
