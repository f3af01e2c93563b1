"""A model that is known in closed form: an isotropic Gaussian mixture under noise.

With x0 ~ sum_k w_k N(m_k, s_k^2 I), the noisy xbar = x0 + sigma eps has the density

    p(xbar; sigma) = sum_k w_k N(xbar; m_k, (s_k^2 + sigma^2) I)

and E[x0 | xbar], the perfect denoiser, is a mean over components weighted by their responsibilities.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import PREDICTS, Denoiser
from ddim_ode.paths import Path, f64


class GaussianMixture:
    """A mixture of K isotropic Gaussians on arrays of any shape, computed in float64.

    Args:
        means: (K, *shape).
        stds: K standard deviations > 0, or one for all.
        weights: K weights > 0, normalised to 1 (default: equal).
        labels: K class labels 0..C-1, one a component; then label c means its components only, and C is
            the null class, all of them.

    Raises:
        DDIMError: counts that differ, or weights or standard deviations that are not positive.
    """

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | Sequence[float] | float,
        weights: Tensor | Sequence[float] | None = None,
        labels: Tensor | Sequence[int] | None = None,
    ):
        k = len(means)
        self.means = f64(means)
        self.stds = f64(stds).expand(k) if f64(stds).ndim == 0 else f64(stds)
        self.weights = torch.ones(k, dtype=torch.float64) if weights is None else f64(weights)
        self.labels = None if labels is None else torch.as_tensor(labels)
        for name, value in [("stds", self.stds), ("weights", self.weights), ("labels", self.labels)]:
            if value is not None and len(value) != k:
                raise DDIMError(f"{name} has {len(value)} entries for {k} means")
        if not (self.stds > 0).all() or not (self.weights > 0).all():
            raise DDIMError("stds and weights must be positive")
        if self.labels is not None and sorted(set(self.labels.tolist())) != list(range(self.num_classes)):
            raise DDIMError(
                f"labels={self.labels.tolist()} leave a class without a component; number them 0, 1, 2, ..."
            )
        self.weights = self.weights / self.weights.sum()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.means.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of labels, 0 without."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def denoise(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(E[x0 | xbar], E[eps | xbar]), each (B, *shape) in float64.

        xbar (B, *shape); sigma a scalar or (B,), > 0; labels (B,) or None.
        """
        offset, variance, log_joint = self._components(xbar, sigma, labels)
        share = torch.softmax(log_joint, dim=1)
        # Both as sums, neither as a difference of the other and xbar: at large sigma that would cancel.
        data = share @ self.means.flatten(1) + torch.einsum("bk,bkd->bd", share * self.stds**2 / variance, offset)
        noise = f64(sigma).reshape(-1, 1) * torch.einsum("bk,bkd->bd", share / variance, offset)
        return data.reshape(xbar.shape), noise.reshape(xbar.shape)

    def log_density(self, xbar: Tensor, sigma: Tensor | float = 0.0, labels: Tensor | None = None) -> Tensor:
        """log p(xbar; sigma) in nats, (B,) float64."""
        return torch.logsumexp(self._components(xbar, sigma, labels)[2], dim=1)

    def sample(self, n: int, seed: int, sigma: float = 0.0) -> Tensor:
        """n exact samples of xbar at sigma, (n, *shape) float64."""
        g = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.weights, n, replacement=True, generator=g)
        eps = torch.randn(n, *self.shape, dtype=torch.float64, generator=g)
        std = torch.sqrt(self.stds[k] ** 2 + sigma**2).reshape(-1, *[1] * len(self.shape))
        return self.means[k] + std * eps

    def denoiser(self, path: Path, predicts: str = "noise") -> Denoiser:
        """The mixture as a network on `path` would say it: a `Denoiser` that is right everywhere."""

        def net(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            u = t.double()
            a, b = path.coefficients(u)
            column = (-1, *[1] * len(self.shape))
            data, noise = self.denoise(x.double() / a.reshape(column), path.sigma(u), labels)
            p, q = PREDICTS[predicts](a, b)
            return (p.reshape(column) * data + q.reshape(column) * noise).to(x.dtype)

        return Denoiser(net, path, predicts, self.shape, self.num_classes)

    def _components(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """xbar - m_k (B, K, D), variances (B, K) and log w_k N(xbar; m_k, .) (B, K)."""
        flat = xbar.double().flatten(1)
        offset = flat[:, None] - self.means.flatten(1)
        variance = self.stds**2 + f64(sigma).reshape(-1, 1) ** 2
        square = offset.square().sum(2) / variance
        log_joint = self.weights.log() - 0.5 * (square + flat.shape[1] * torch.log(2 * math.pi * variance))
        if labels is not None and self.labels is not None:
            other = (labels[:, None] != self.labels) & (labels[:, None] != self.num_classes)
            share = torch.where(other, 0.0, self.weights).sum(1, keepdim=True)
            log_joint = log_joint.masked_fill(other, -math.inf) - share.log()
        return offset, variance, log_joint
