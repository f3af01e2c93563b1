"""A model that is known in closed form: an isotropic Gaussian mixture under noise.

With x0 ~ sum_k w_k N(m_k, s_k^2 I), the noisy xbar = x0 + sigma eps has the density

    p(xbar; sigma) = sum_k w_k N(xbar; m_k, (s_k^2 + sigma^2) I)

and E[x0 | xbar], the perfect denoiser, is a mean over components weighted by their responsibilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.arguments import class_labels
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.equations import PREDICTS
from ddim_ode.paths import Path, f64
from ddim_ode.support.checks import ArgumentError, described, of_kind, whole
from ddim_ode.support.resources import check_memory
from ddim_ode.support.seeds import generator
from ddim_ode.support.tables import is_readable

MOST = 10**6  # numbers of a range


class GaussianMixture:
    """A mixture of K isotropic Gaussians on arrays of any shape, computed in float64.

    Args:
        means: (K, *shape).
        stds: K standard deviations > 0, or one for all.
        weights: K weights > 0, normalised to 1 (default: equal).
        labels: K class labels 0..C-1, one a component; then label c means its components only, and C is
            the null class, all of them.

    Raises:
        DDIMError: counts that differ, weights or standard deviations that are not positive, means that are not finite.
        ArgumentError: what no numbers can be made of.
    """

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | Sequence[float] | float,
        weights: Tensor | Sequence[float] | None = None,
        labels: Tensor | Sequence[int] | None = None,
    ):
        self.means = numbers("means", means, "(K, *shape), such as torch.zeros(2, 1, 8, 8)")
        if self.means.ndim < 2 or not self.means.numel():
            raise DDIMError(
                f"means has shape {tuple(self.means.shape)}; give K means of one shape, (K, *shape), such as (2, 1)"
            )
        if not torch.isfinite(self.means).all():
            raise DDIMError("means holds NaN or infinity; give finite numbers")
        k = len(self.means)
        self.stds = numbers("stds", stds, "K standard deviations, or one for all")
        self.stds = self.stds.expand(k) if self.stds.ndim == 0 else self.stds
        ones = torch.ones(k, dtype=torch.float64)
        self.weights = ones if weights is None else numbers("weights", weights, "K weights")
        self.labels = None if labels is None else _classes(labels)
        for name, value in [("stds", self.stds), ("weights", self.weights), ("labels", self.labels)]:
            if value is not None and value.ndim != 1:
                raise DDIMError(f"{name} has shape {tuple(value.shape)}; give one for each of the {k} means")
            if value is not None and len(value) != k:
                raise DDIMError(f"{name} has {len(value)} entries for {k} means")
        for value in (self.stds, self.weights):
            if not ((value > 0) & (value < math.inf)).all():
                raise DDIMError("stds and weights must be positive, and finite")
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

        xbar (B, *shape); sigma a scalar or (B,), >= 0; labels (B,) or None. Raises DDIMError for others.
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
        n, seed = whole("n", n, DDIMError), whole("seed", seed, DDIMError, least=None)
        check_memory(24 * n * self.means[0].numel(), f"{n:,} samples", "ask for fewer at a time", DDIMError)
        _levels(sigma, n)
        g = generator(seed)
        k = torch.multinomial(self.weights, n, replacement=True, generator=g)
        eps = torch.randn(n, *self.shape, dtype=torch.float64, generator=g)
        std = torch.sqrt(self.stds[k] ** 2 + f64(sigma) ** 2).reshape(-1, *[1] * len(self.shape))
        return self.means[k] + std * eps

    def denoiser(self, path: Path, predicts: str = "noise") -> Denoiser:
        """The mixture as a network on `path` would say it: a `Denoiser` that is right everywhere."""

        return Denoiser(
            MixtureNet(self, path, predicts), path, predicts, self.shape, self.num_classes, dtype=torch.float64
        )

    def _components(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """xbar - m_k (B, K, D), variances (B, K) and log w_k N(xbar; m_k, .) (B, K)."""
        of_kind("xbar", xbar, Tensor, f"a tensor (B, *{self.shape})")
        if not is_readable(xbar):
            raise DDIMError("xbar is a tensor whose numbers cannot be read; give a dense one")
        if xbar.ndim < 2 or xbar[:0].flatten(1).shape[1] != self.means[0].numel() or xbar.is_complex():
            found = f"{xbar.dtype}" if xbar.is_complex() else f"shape {tuple(xbar.shape)}"
            raise DDIMError(f"xbar has {found}; this mixture needs floats (B, {', '.join(map(str, self.shape))})")
        _levels(sigma, len(xbar))
        if labels is not None:
            labels = class_labels(labels, len(xbar), self.num_classes, DDIMError)
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


class Known(Protocol):
    """Data whose perfect denoiser is known."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def denoise(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, eq=False)
class MixtureNet:
    """Data that are known as a network: net(x, t) or net(x, t, labels), computed in float64."""

    mixture: Known
    path: Path
    predicts: str

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        u = t.double()
        a, b = self.path.coefficients(u)
        column = (-1, *[1] * len(self.mixture.shape))
        data, noise = self.mixture.denoise(x.double() / a.reshape(column), self.path.sigma(u), labels)
        p, q = PREDICTS[self.predicts](a, b)
        return (p.reshape(column) * data + q.reshape(column) * noise).to(x.dtype)


def numbers(name: str, value: Any, give: str) -> Tensor:
    """A real array in float64. Raises ArgumentError for what is none."""
    try:
        if isinstance(value, range) and len(value) > MOST:  # which torch would go through, one by one
            raise ValueError
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"{name} is {described(value)}; give {give}") from None
    if not is_readable(found):
        raise ArgumentError(f"{name} is a tensor whose numbers cannot be read; give {give}")
    if found.is_complex() or found.dtype == torch.bool:
        raise ArgumentError(f"{name} is {found.dtype}; give {give}")
    return f64(value)


def _classes(labels: Any) -> Tensor:
    """Labels as int64. Raises ArgumentError for what are none."""
    found = numbers("labels", labels, "whole numbers 0, 1, 2, ..., one for each mean")
    if not torch.equal(found, found.round()) or (isinstance(labels, Tensor) and labels.is_floating_point()):
        raise ArgumentError(f"labels={described(labels)} are not whole; give 0, 1, 2, ..., one for each mean")
    return found.long()


def _levels(sigma: Any, count: int) -> None:
    """Raise DDIMError unless sigma is a finite number >= 0, or `count` of them."""
    levels = sigma if isinstance(sigma, Tensor) else numbers("sigma", sigma, "a number >= 0, or one for each sample")
    if levels.is_complex() or levels.numel() not in (1, count):
        found = "complex" if levels.is_complex() else f"{levels.numel()} numbers"
        raise DDIMError(f"sigma is {found}; give one, or one for each sample ({count})")
    if levels.numel() and not ((levels >= 0) & (levels < math.inf)).all():
        raise DDIMError("sigma must be a finite number >= 0")
