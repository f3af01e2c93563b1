"""The stochastic family around the probability flow: with noise of scale eta, towards the image,

    dxbar = (1 + eta^2) ehat dsigma + eta sqrt(2 sigma) dW,        sigma falling

which has the same marginals whatever eta. At eta = 1 it is the reverse SDE of Song et al. 2021 ("Score-Based ...",
Eq. 6). DDIM's kernel (Song et al. 2021, Eq. 12 and 16) is a discretisation of it: of the noise at sigma1, the variance

    v = eta^2 sigma1^2 (sigma0^2 - sigma1^2) / sigma0^2

is fresh, and the rest, to sqrt(sigma1^2 - v), is a deterministic step. Noise comes from `ode.brownian`, a path for each
sample, so that solvers and numbers of steps can be compared on the same one.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.models.denoiser import Prediction
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.solvers.base import Method, Solver, Step, Stochastic
from ddim_ode.solvers.eta import DDPM, MOST, Eta, EtaError, EtaLike, is_scale, noise_of
from ddim_ode.solvers.torch_sde import TorchSDE
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number
from ddim_ode.support.tables import range_of


@dataclass(frozen=True)
class Ancestral(Stochastic):
    """DDIM(eta) around a one-step method: its step goes lower than sigma1, and fresh noise comes up to there.

    With `ddim` inside it is the paper's kernel; eta = 1 has the posterior variance of DDPM. large: DDPM's other choice,
    sigma-hat, the variance of a variance-preserving step forward, with the same mean (DDIM, Table 1). Other methods
    evaluate between sigma0 and where they step to, which on the last interval is below the model's smallest sigma.
    """

    solver: Solver
    eta: Eta = DDPM
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

    eta: Eta = DDPM

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


def with_noise(method: Method, name: str, eta: EtaLike, eta_range: tuple[float, float] | None) -> Method:
    """The method with noise of that scale; itself without.

    Raises:
        EtaError: no such scale or range, or a method whose steps lean on one another.
    """
    solver = method.solver
    if eta is None and eta_range is None:
        return method
    low, high = (0.0, math.inf) if eta_range is None else range_of("eta_range=", eta_range, EtaError)
    if isinstance(solver, Churn):
        if eta is not None:
            raise EtaError(f"{name} has its S_churn instead of eta; leave eta={shown(eta)} out")
        return replace(method, solver=replace(solver, low=low, high=high))
    if eta is None:
        if not isinstance(solver, TorchSDE | SDEDPMpp2M):
            raise EtaError(f"eta_range={shown(eta_range)} does nothing without eta; give eta, such as 1")
        return replace(method, solver=replace(solver, eta=replace(solver.eta, low=low, high=high)))
    large = isinstance(eta, str)
    known = eta == "ddpm_large" if isinstance(eta, str) else is_scale(eta) or 0 <= number(eta) <= MOST
    if not known:
        rule = f"a number >= 0, a function of sigma, or 'ddpm_large'; at most {MOST:g}"
        raise EtaError(f"eta={shown(eta)} must be {rule}")
    scale = Eta(1.0 if isinstance(eta, str) else eta if callable(eta) else number(eta), low, high)
    if isinstance(solver, TorchSDE | SDEDPMpp2M) and not large:
        return replace(method, solver=replace(solver, eta=scale))
    if scale.value == 0:
        return method
    if method.adaptive or not getattr(solver, "one_step", False):
        others = "ddim" if large else "ddim, heun_angle, rk4, sde_euler, sde_dpmpp_2m"
        raise EtaError(f"{name} cannot have noise with eta={shown(eta)} between its steps; use one of {others}")
    return replace(method, solver=Ancestral(solver, scale, large), order=1)
