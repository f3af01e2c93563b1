"""What several test files share: tables and networks made without the library's schedules and loaders."""

import math
from functools import cache

import torch
from torch import Tensor

from ddim_ode import paths
from ddim_ode.analytic import GaussianMixture
from ddim_ode.checkpoints import bundled, load
from ddim_ode.denoiser import Denoiser
from ddim_ode.unet import UNet, UNetConfig

PATHS = {
    "noise": paths.noise,
    "data": paths.data,
    "angle": paths.angle,
    "flow": paths.flow,
    "linear": paths.DiscreteVP.linear(),
    "cosine": paths.DiscreteVP.cosine(),
    "seven": paths.DiscreteVP([0.99, 0.9, 0.7, 0.5, 0.2, 0.1, 0.004]),
}


def linear_table(timesteps: int = 1000) -> list[float]:
    """DDPM's alphas_cumprod by a plain loop over its betas."""
    table, product = [], 1.0
    for t in range(timesteps):
        beta = 1e-4 + (0.02 - 1e-4) * t / (timesteps - 1)
        product *= 1 - beta
        table.append(product)
    return table


def cosine_table(timesteps: int = 1000) -> list[float]:
    """Nichol & Dhariwal's alphas_cumprod by a plain loop."""

    def f(t: int) -> float:
        return math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2

    table, product = [], 1.0
    for t in range(timesteps):
        product *= 1 - min(1 - f(t + 1) / f(t), 0.999)
        table.append(product)
    return table


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def two_modes() -> GaussianMixture:
    """In one dimension, lopsided, so that nothing cancels by symmetry."""
    return GaussianMixture(f64([[-1.0], [0.6]]), [0.2, 0.3], [0.4, 0.6])


def labelled(shape: tuple[int, ...] = (2, 3), components: int = 5, classes: int = 3, seed: int = 0) -> GaussianMixture:
    """A mixture of unequal components spread over some classes."""
    means = normal(components, *shape, seed=seed)
    k = torch.arange(components, dtype=torch.float64)
    return GaussianMixture(means, 0.1 + 0.05 * k, 1 + k, torch.arange(components) % classes)


def f64(x: object) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def randomise(net: UNet, seed: int) -> UNet:
    """Weights that leave nothing at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 / math.sqrt(max(p[0].numel(), 1))))
    return net.eval().requires_grad_(False)


def tiny_unet(**choices: object) -> UNet:
    config = {"shape": (1, 8, 8), "channels": (8, 16), "groups": 4, "blocks": 1, "attention": (1,), "num_classes": 3}
    return randomise(UNet(UNetConfig(**(config | choices))), seed=1)


@cache
def network() -> Denoiser:
    """The network that ships, or a small random one where there is none."""
    if "fashion" in bundled():
        return load("fashion")
    return random_network()


def random_network() -> Denoiser:
    """Small, with weights that mean nothing."""
    net = tiny_unet()
    return Denoiser(net, paths.DiscreteVP(linear_table()), "noise", net.config.shape, net.config.num_classes)


class Counting:
    """A net that counts the rows it has seen: with B samples, rows / B is the passes each of them cost."""

    def __init__(self, net):
        self.net, self.rows = net, 0

    def __call__(self, x, t, *condition):
        self.rows += len(x)
        return self.net(x, t, *condition)


class Recording:
    """A net that returns zeros and keeps its inputs."""

    def __init__(self):
        self.calls: list[tuple[Tensor, ...]] = []

    def __call__(self, *inputs):
        self.calls.append(inputs)
        return torch.zeros_like(inputs[0])
