"""The log-density that a flow carries with a state, by the instantaneous change of variables,

    d log p(y) / du = -tr(df/dy),        y = a(u) xbar,        log p(xbar) = log p(y) + D log a(u)

(Chen et al. 2018, Eq. 8). The trace is exact, by D vector-Jacobian products, or the mean over probes v of v' (df/dy) v
with E[v v'] = I (Hutchinson 1990).
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import f64


class LikelihoodError(DDIMError):
    """A likelihood that cannot be had; the message gives the value, the rule and the remedy."""


@dataclass(frozen=True)
class Priced:
    """A model, and what a prediction followed by some vector-Jacobian products costs."""

    model: Model
    products: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def evaluations(self, sigma: float) -> int:
        return self.model.evaluations(sigma) * (1 + self.products)


class DensityFlow(ProbabilityFlow):
    """A flow with the log-density it carries, on states (B, D + K), for solvers that ask for slopes alone.

    The first D columns are the sample, the others log p up to a constant: of y on the path, of xbar off it. Their unit
    is sqrt(D K) nats, so that an RMS over the row weighs nats per dimension as it does data units.
    """

    def __init__(self, flow: ProbabilityFlow, probes: Tensor | None):
        self.flow, self.shape, self.exact = flow, flow.model.shape, probes is None
        self.dimensions = math.prod(self.shape)
        self.probes = torch.eye(self.dimensions, device=flow.model.device)[:, None] if probes is None else probes
        self.columns = 1 if self.exact else len(self.probes)
        self.unit = math.sqrt(self.dimensions * self.columns)
        super().__init__(cast(Model, Priced(flow.model, len(self.probes))), flow.path, flow.domain)

    def split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The sample (B, *shape) and its log-density (B, K)."""
        return state[:, : self.dimensions].reshape(-1, *self.shape), state[:, self.dimensions :]

    def __call__(self, u: Tensor, y: Tensor) -> Tensor:
        before, last = self.flow.nfe, len(self.probes) - 1
        with torch.enable_grad():
            sample = self.split(y)[0].detach().clone().requires_grad_()
            slope = self.flow(u, sample)
            # A compiled network cannot keep its graph; with a single probe it need not.
            rates = torch.stack([_rate(slope, sample, v.to(y), k < last) for k, v in enumerate(self.probes)], dim=1)
        self.nfe += (self.flow.nfe - before) * (1 + len(self.probes))
        if not torch.isfinite(rates).all():
            # Left to an adaptive solver it would show as steps that are too small.
            sigma = float(self.path.sigma(u))
            raise LikelihoodError(f"the network's derivative is not finite at sigma={sigma:.6g}; use a smooth network")
        rates = rates.sum(1, keepdim=True) if self.exact else rates
        return torch.cat([slope.detach().reshape(len(slope), -1), (-rates / self.unit).to(y)], dim=1)

    def predict(self, xbar: Tensor, sigma: Tensor) -> Prediction:
        """Only where max_nfe has stopped a solver, for one step to the end, which no density would survive."""
        raise LikelihoodError(
            f"max_nfe ended the run at sigma={float(sigma):.6g}, after {self.nfe} passes; give more, or a larger tol"
        )

    def enter(self, xbar: Tensor, sigma: Tensor | float) -> Tensor:
        return self._scaled(xbar, self.path.scale(f64(sigma)))

    def leave(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        return self._scaled(y, 1 / self.path.scale(f64(sigma)))

    def _scaled(self, state: Tensor, a: Tensor) -> Tensor:
        sample, column = self.split(state)
        scaled = column - self.dimensions / self.unit * torch.log(a)
        return torch.cat([a * sample.reshape(len(sample), -1), scaled], dim=1)


def _rate(slope: Tensor, y: Tensor, v: Tensor, keep: bool) -> Tensor:
    """v' (df/dy) v of each sample, (B,) float64; v is (B or 1, D)."""
    v = v.expand(len(y), -1)
    (product,) = torch.autograd.grad(slope, y, v.reshape(y.shape), retain_graph=keep)
    return (product.reshape(len(product), -1).double() * v).sum(1)
