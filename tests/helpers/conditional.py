"""A model that is told the mean of each sample, and perhaps its width, as conditions: its flow is known."""

import torch

from ddim_ode import Denoiser, paths

SHAPE = (3,)
WIDTH = 0.3


def towards(x, t, labels=None, *, mean, width=None):
    """The predicted data of N(mean, 0.3^2) in sigma's own chart, where t is sigma, or of another width."""
    sigma = t[:, None].to(x)
    variance = WIDTH**2 if width is None else width[:, None].to(x) ** 2
    shift = 0 if labels is None else labels[:, None].to(x)
    return mean + shift + variance / (variance + sigma**2) * (x - mean - shift)


def model(num_classes=0, sigma_max=50.0):
    return Denoiser(towards, paths.Noise(0.01, sigma_max), "data", SHAPE, num_classes)


def means(count, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
