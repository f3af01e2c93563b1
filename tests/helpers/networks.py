"""Small networks with weights that leave nothing at zero, the one that ships, and nets that keep account."""

import math
from functools import cache

import torch
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.checkpoints import bundled, load
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.unet import UNet, UNetConfig
from tests.helpers.tables import linear_table


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


class Around(nn.Module):
    """net(x, t) of a layer."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x)
