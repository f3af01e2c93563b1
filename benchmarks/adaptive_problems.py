"""What adaptive.py samples: a model and mixtures known in closed form, each with where its latents should arrive."""

from collections.abc import Iterable
from copy import copy
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import ddim_ode
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.paths import DiscreteVP
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.solvers import Method, adams

PROBLEMS = ("model", "digits-0.1", "digits-0.03", "classes")


class Problem:
    """A model, its latents and labels, and where they should arrive."""

    def __init__(self, name: str, model: ddim_ode.Denoiser, count: int, network: bool = False):
        self.name, self.model, self.network = name, model, network
        self.noise = seeded_noise(range(count), model.shape)
        self.labels = torch.arange(count) % model.num_classes if model.num_classes else None
        self.truth = torch.empty(0)

    def sample(self, method: str | Method, **choices: Any) -> ddim_ode.Solution:
        return ddim_ode.sample(self.model, method, noise=self.noise, labels=self.labels, **choices)

    def refer(self) -> list[float]:
        """Find the truth; return how far the second reference is from it, of each sample."""
        self.truth = self.sample("rk4", nfe=1201, grid="log_snr", dtype=torch.float64, batch_size=32).x
        return self.errors(self.second())

    def second(self) -> Tensor:
        return self.sample(adams(4, "data", "log_snr"), nfe=900, grid="angle", dtype=torch.float64, batch_size=32).x

    def first(self, count: int) -> "Problem":
        part = copy(self)
        part.noise, part.truth = self.noise[:count], self.truth[:count]
        part.labels = None if self.labels is None else self.labels[:count]
        return part

    def errors(self, x: Tensor) -> list[float]:
        found: list[float] = (x - self.truth).flatten(1).square().mean(1).sqrt().tolist()
        return found


def mixtures(count: int) -> Iterable[Problem]:
    images = torch.as_tensor(load_digits().data[:400] / 8 - 1).reshape(-1, 1, 8, 8)
    for std in (0.1, 0.03):
        yield Problem(f"digits-{std}", GaussianMixture(images, std).denoiser(DiscreteVP.linear()), count)
    k = torch.arange(5, dtype=torch.float64)
    means = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labelled = GaussianMixture(means, 0.1 + 0.05 * k, 1 + k, torch.arange(5) % 3)
    yield Problem("classes", labelled.denoiser(DiscreteVP.cosine()), count)
