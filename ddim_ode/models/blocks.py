"""What a `UNet` is made of: residual blocks, attention, and what changes the resolution."""

from typing import TYPE_CHECKING, Literal, TypeVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

if TYPE_CHECKING:
    from ddim_ode.models.unet import UNetConfig

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Direction = Literal["down", "up"]


class Block(nn.Module):
    """Residual block with the embedding between its convolutions, then optional self-attention.

    One that resamples does it before its first convolution, by a 2 x 2 mean or by repeating each pixel.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        c_emb: int,
        config: "UNetConfig",
        attend: bool = False,
        direction: Direction | None = None,
    ):
        super().__init__()
        self.direction, self.scale_shift = direction, config.scale_shift
        self.norm1 = nn.GroupNorm(config.groups, c_in, config.norm_eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(c_emb, 2 * c_out if config.scale_shift else c_out)
        self.norm2 = nn.GroupNorm(config.groups, c_out, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero_(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out, config) if attend else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.direction is not None:
            h, x = resize(h, self.direction), resize(x, self.direction)
        h = self.conv1(h)
        shift = self.emb(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + shift)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.attention(self.skip(x) + h)


class Attention(nn.Module):
    """Residual self-attention over the H*W positions."""

    def __init__(self, channels: int, config: "UNetConfig"):
        super().__init__()
        self.heads = channels // config.head_channels if config.head_channels else config.heads
        self.norm = nn.GroupNorm(config.groups, channels, config.norm_eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (n k c) h w -> n b k (h w) c", n=3, k=self.heads)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(h, "b k (h w) c -> b (k c) h w", h=height))


class Downsample(nn.Module):
    """Stride-2 convolution. DDPM pads only right and below; diffusers' default pads all round."""

    def __init__(self, channels: int, padding: str):
        super().__init__()
        self.pad = (0, 1, 0, 1) if padding == "asymmetric" else (1, 1, 1, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        return self.conv(resize(x, "up"))


def resampler(direction: Direction, channels: int, c_emb: int, config: "UNetConfig") -> nn.Module:
    """What leaves a level, called with the state and the embedding."""
    if config.resample == "block":
        return Block(channels, channels, c_emb, config, direction=direction)
    return Downsample(channels, config.downsample_padding) if direction == "down" else Upsample(channels)


def resize(x: Tensor, direction: Direction) -> Tensor:
    """The mean of 2 x 2 pixels, or each pixel four times."""
    return F.avg_pool2d(x, 2) if direction == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")


def zero_(module: AnyModule) -> AnyModule:
    """Zero the weights, so that every residual branch starts as the identity."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module
