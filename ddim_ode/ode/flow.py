"""The probability-flow ODE of a denoiser on a path,

    dy/du = a'(u) xhat0(y / a, sigma) + b'(u) ehat(y / a, sigma),        y = a(u) xbar

(Song et al. 2021, "Score-Based ...", Eq. 13, written for any Gaussian path). It counts what it spends.
"""

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.ode.brownian import NoiseSource
from ddim_ode.paths import Path, f64
from ddim_ode.support.remembering import remembering
from ddim_ode.support.waiting import sent


class DomainError(DDIMError):
    """A solver asked for the ODE outside the interval it was given."""


class ProbabilityFlow:
    """f(u, y) on `path`, for one batch of samples.

    Args:
        model: the denoiser.
        path: the solver's coordinates, not necessarily the model's schedule.
        domain: (smallest, largest) sigma at which the model may be evaluated.
        labels: (B,) int64, or None for the null class; or `Conditions`.
        differentiable: keep the graph of every prediction, for gradients; otherwise none is recorded.

    `nfe` counts the network passes that each sample of the batch has cost so far: an int, or (B,) int64 where they
    differ, as under guidance at sigmas of their own.
    """

    def __init__(
        self,
        model: Model,
        path: Path,
        domain: tuple[float, float],
        labels: Told = None,
        differentiable: bool = False,
    ):
        self.model, self.path, self.domain, self.labels = model, path, domain, labels
        self.differentiable = differentiable
        self.brownian: NoiseSource | None = None  # what stochastic solvers draw from
        self.nfe: int | Tensor = 0

    def __call__(self, u: Tensor, y: Tensor) -> Tensor:
        """dy/du at time u (a scalar or (B,), float64) and state y (B, *shape)."""
        sigma = self.path.sigma(u)
        data_slope, noise_slope = (along(slope, y) for slope in self.path.slopes(u))
        prediction = self.predict(self.leave(y, sigma), sigma)
        return data_slope * prediction.data + noise_slope * prediction.noise

    def part(self, rows: Tensor) -> "ProbabilityFlow":
        """The flow of the samples `rows` (indices) alone; it counts for itself, from 0."""
        labels = None if self.labels is None else self.labels[sent(rows, self.labels.device)]
        return ProbabilityFlow(self.model, self.path, self.domain, labels, self.differentiable)

    def predict(self, xbar: Tensor, sigma: Tensor) -> Prediction:
        """The denoiser's answer at (xbar, sigma), counted; sigma is a scalar or (B,).

        Raises:
            DomainError: sigma outside the domain by more than rounding.
            NonFiniteError: from the network.
        """
        low, high = self.domain
        for found in sigma.reshape(-1).tolist():
            if not low * (1 - 1e-9) <= found <= high * (1 + 1e-9):
                raise DomainError(f"the solver left its interval: sigma={found:.6g} is not in [{low:.6g}, {high:.6g}]")
        with torch.set_grad_enabled(self.differentiable):
            prediction = self.model(xbar, sigma, self.labels)
        self.nfe = self.nfe + prediction.evaluations
        return prediction

    def enter(self, xbar: Tensor, sigma: Tensor | float) -> Tensor:
        """The state y on this path of xbar at sigma."""
        return xbar * self._scale(sigma, xbar)

    def leave(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """xbar of the state y at sigma."""
        return y / self._scale(sigma, y)

    def _scale(self, sigma: Tensor | float, like: Tensor) -> Tensor | float:
        """What xbar at sigma is multiplied by on the path."""
        if isinstance(sigma, Tensor) and sigma.ndim:
            return along(self.path.scale(f64(sigma)), like)
        return scale_at(self.path, float(sigma))


@remembering(4096)
def scale_at(path: Path, sigma: float) -> float:
    """The path's scale at one sigma, which a run asks for with every batch."""
    return float(path.scale(f64(sigma)))


def along(c: Tensor, y: Tensor) -> Tensor:
    """A coefficient, () or (B,), so that it multiplies the samples of y (B, *shape)."""
    return sent(c, y.device, y.dtype).reshape(-1, *[1] * (y.ndim - 1)) if c.ndim else c
