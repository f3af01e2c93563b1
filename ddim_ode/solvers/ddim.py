"""DDIM's own step (Song et al. 2021, Eq. 12 with eta = 0): xbar(sigma1) = xhat0 + sigma1 ehat.

It is the Euler step on the `noise` path, xbar + (sigma1 - sigma0) ehat, with xbar = xhat0 + sigma0 ehat put in.
The two agree but for rounding, and that matters: a cosine schedule begins at sigma = 20000, where the Euler step
subtracts two numbers of that size and keeps only three decimals of a float32 image.
"""

from dataclasses import dataclass

from torch import Tensor

from ddim_ode.ode import ProbabilityFlow
from ddim_ode.solvers.base import Step


@dataclass(frozen=True)
class DDIM:
    """One evaluation a step, order 1; on any path, since the state it computes is xbar."""

    def init(self, ode: ProbabilityFlow, u: Tensor, y: Tensor) -> None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: None) -> Step:
        sigma0, sigma1 = ode.path.sigma(u0), ode.path.sigma(u1)
        data, noise, _ = ode.predict(ode.leave(y, sigma0), sigma0)
        return Step(ode.enter(data + sigma1 * noise, sigma1), None)
