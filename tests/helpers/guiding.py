"""A mixture, its perfect classifier, and nets that count what runs through them, forward and back."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.paths import Path


def posterior(mixture: GaussianMixture, path: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """The classifier that Bayes' rule gives: logits log p(y) p(x | y) at x = a x0 + b eps, up to a constant."""
    classes = range(mixture.num_classes)
    weights = torch.stack([mixture.weights[mixture.labels == c].sum() for c in classes])

    def logits(x: Tensor, t: Tensor) -> Tensor:
        u = t.double()
        a = path.coefficients(u)[0].reshape(-1, *[1] * len(mixture.shape))
        found = [mixture.log_density(x / a, path.sigma(u), torch.full((len(x),), c)) for c in classes]
        return torch.stack(found, dim=1) + weights.log()

    return logits


class Tallied:
    """A net, or a classifier, that counts the rows that went forward, and those whose gradient came back."""

    def __init__(self, net: Callable[..., Tensor]):
        self.net, self.forward, self.backward = net, 0, 0

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        self.forward += len(x)
        return self.net(_Marked.apply(self, x), *rest)


class _Marked(torch.autograd.Function):
    """x itself, whose gradient is counted on its way back."""

    @staticmethod
    def forward(ctx: Any, tally: Tallied, x: Tensor) -> Tensor:
        ctx.tally = tally
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        ctx.tally.backward += len(grad)
        return None, grad
