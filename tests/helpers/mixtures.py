"""Mixtures of Gaussians, whose flow is known in closed form."""

import torch

from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import Path
from tests.helpers.tensors import f64, normal


def two_modes() -> GaussianMixture:
    """In one dimension, lopsided, so that nothing cancels by symmetry."""
    return GaussianMixture(f64([[-1.0], [0.6]]), [0.2, 0.3], [0.4, 0.6])


def labelled(shape: tuple[int, ...] = (2, 3), components: int = 5, classes: int = 3, seed: int = 0) -> GaussianMixture:
    """A mixture of unequal components spread over some classes."""
    means = normal(components, *shape, seed=seed)
    k = torch.arange(components, dtype=torch.float64)
    return GaussianMixture(means, 0.1 + 0.05 * k, 1 + k, torch.arange(components) % classes)


def gaussians(*means: float, path: Path, std: float = 0.3) -> Denoiser:
    """A Gaussian a class, in one dimension."""
    mixture = GaussianMixture(f64(means)[:, None], std, labels=torch.arange(len(means)))
    return mixture.denoiser(path)


MIXTURES = {
    "labelled": labelled(),
    "two modes": two_modes(),
    "tight": GaussianMixture(normal(20, 1, 4, 4, seed=3), 0.1),
}
