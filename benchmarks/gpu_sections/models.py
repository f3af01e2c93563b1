"""The models that are measured."""

import dataclasses
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

import ddim_ode
from benchmarks.gpu_sections.base import Setting
from ddim_ode.models.fast import COMPILED, GIVEN, Fast
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.paths import DiscreteVP

LARGE = UNetConfig(shape=(3, 32, 32), channels=(128, 256, 256, 256), attention=(1,))  # as google/ddpm-cifar10-32 is
TINY = UNetConfig(shape=(3, 8, 8), channels=(8,), blocks=1, groups=4, mid_attention=False)


@lru_cache(maxsize=1)
def fashion(setting: Setting) -> ddim_ode.Denoiser:
    """The bundled model, 1.2 million weights, 28 x 28, 10 classes."""
    return ddim_ode.load("fashion").to(setting.device)


@lru_cache(maxsize=1)
def large(setting: Setting) -> ddim_ode.Denoiser:
    """A network of 35.7 million random weights, none of them zero (small: a few thousand)."""
    net, generator = UNet(setting.pick(LARGE, TINY)).eval().requires_grad_(False), torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * (0.5 / math.sqrt(max(p[0].numel(), 1))))
    return ddim_ode.Denoiser(net, DiscreteVP.linear(), "noise", net.config.shape).to(setting.device)


class Pointwise(nn.Module):
    """A network that compiles in seconds: a product of each pixel, times the time."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.mix(x) * (t / 1000).view(-1, 1, 1, 1)
        return out


def pointwise(setting: Setting) -> ddim_ode.Denoiser:
    return ddim_ode.Denoiser(Pointwise(3), DiscreteVP.linear(), "noise", (3, 8, 8)).to(setting.device)


def null(shape: tuple[int, ...], setting: Setting) -> ddim_ode.Denoiser:
    """A network that costs nothing: it takes its input for the noise in it."""
    return ddim_ode.Denoiser(lambda x, t: x, DiscreteVP.linear(), "noise", shape, device=setting.device)


def with_net(model: ddim_ode.Denoiser, net: nn.Module) -> ddim_ode.Denoiser:
    return dataclasses.replace(model, net=net)


class NotCompiledError(Exception):
    """What was to be measured is not what was run."""


def need_compiled(net: nn.Module) -> None:
    """Raise NotCompiledError where a fast network has answered any kind of call by anything but what is compiled."""
    if isinstance(net, Fast):
        ways = sorted({verdict.way for verdict in net.verdicts.values()} - {COMPILED})
        if ways or not net.verdicts:
            raise NotCompiledError(f"the network was run {' and '.join(ways) or GIVEN}, where it was to be {COMPILED}")


def labels_for(model: ddim_ode.Denoiser, batch: int) -> Tensor | None:
    """All classes in turn."""
    return torch.arange(batch) % model.num_classes if model.num_classes else None


def noise_for(model: ddim_ode.Denoiser, batch: int) -> Tensor:
    """Standard normal latents (batch, *shape), where the model computes."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *model.shape, generator=generator).to(model.device)


def inputs_for(model: ddim_ode.Denoiser, batch: int) -> tuple[Tensor, ...]:
    """What the network is given in a run: x, times and, with classes, labels."""
    x = noise_for(model, batch).to(model.dtype or torch.float32)
    t = torch.full((batch,), 500.0, device=model.device)
    labels = labels_for(model, batch)
    return (x, t) if labels is None else (x, t, labels.to(model.device))


class Captured(nn.Module):
    """A network whose kernels CUDA has recorded once for each size of batch, and plays again: Python does not wait."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._captured([x.clone() for x in inputs])
        graph, held, out = self._graphs[key]
        for place, x in zip(held, inputs, strict=True):
            place.copy_(x)
        graph.replay()
        return out.clone()

    def _captured(self, held: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # what libraries choose at first is chosen before
                self.net(*held)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self.net(*held)
        return graph, held, out


class Reduced(nn.Module):
    """A network that torch compiles for the least overhead: on CUDA, with graphs."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = torch.compile(net, mode="reduce-overhead")

    def forward(self, *inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        out: Tensor = self.net(*(x.contiguous() for x in inputs))
        return out.clone()  # the next call writes into it
