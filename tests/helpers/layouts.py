"""Small networks of five layouts, and what each is asked: for tests of what is compiled."""

from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.models.winograd import LEAST
from tests.helpers.networks import tiny_unet
from tests.helpers.tensors import normal


class Convolutions(nn.Module):
    """net(x, t), of an odd number of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, LEAST, 3, padding=1), nn.Conv2d(LEAST, LEAST, 3, padding="same")
        self.last = nn.Conv2d(LEAST, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = torch.tanh(self.first(x) + t.to(x.dtype)[:, None, None, None] / 1000)
        out: Tensor = self.last(h + torch.tanh(self.second(h)))
        return out


class Tokens(nn.Module):
    """net(x (B, L, D), t, context=(B, M, D)): attention to itself and to what it is told."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.own, self.other = (nn.MultiheadAttention(width, 2, batch_first=True) for _ in range(2))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor, t: Tensor, *, context: Tensor) -> Tensor:
        h = self.norm(x + t.to(x.dtype)[:, None, None] / 1000)
        h = h + self.own(h, h, h, need_weights=False)[0]
        h = h + self.other(h, context, context, need_weights=False)[0]
        out: Tensor = self.last(self.norm(h))
        return out


def network(layout: str) -> tuple[nn.Module, tuple[int, ...], dict[str, tuple[int, ...]]]:
    """A small network, the shape of a sample, and the shapes of what it is told."""
    torch.manual_seed(0)
    if layout == "convolutions":
        return Convolutions().eval(), (3, 7, 7), {}
    if layout == "tokens":
        return Tokens().eval(), (5, 16), {"context": (3, 16)}
    return tiny_unet(**UNETS[layout]), (1, 8, 8), {}


UNETS: dict[str, dict[str, Any]] = {
    "classes": {},
    "diffusers": {
        "channels": (32, 64),
        "num_classes": 0,
        "time_order": "cos_sin",
        "time_shift": 0.0,
        "downsample_padding": "symmetric",
        "head_channels": 8,
        "norm_eps": 1e-5,
    },
    "guided": {"scale_shift": True, "resample": "block", "heads": 2, "blocks": 2},
}
LAYOUTS = (*UNETS, "convolutions", "tokens")


def inputs_of(layout: str, count: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    net, shape, told = network(layout)
    values = [normal(count, *shape, seed=count, dtype=torch.float32), torch.linspace(0, 999, count)]
    if getattr(getattr(net, "config", None), "num_classes", 0):
        values.append(torch.arange(count) % 3)
    return values, {name: normal(count, *size, seed=9, dtype=torch.float32) for name, size in told.items()}
