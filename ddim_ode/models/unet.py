"""The one shared network: the UNet of DDPM (Ho et al. 2020, App. B) on images (B, C, H, W).

    emb  = MLP(sinusoid(t)) + class_embedding(label)
    down = conv_in -> [ResBlock (+ attention)] * blocks -> stride-2 conv, level by level
    mid  = ResBlock, attention, ResBlock
    up   = the mirror image with blocks + 1 ResBlocks a level, each concatenated with one skip
    out  = GroupNorm, SiLU, conv

The topology is that of the original DDPM network and of diffusers' `UNet2DModel`; the few choices in
which those two differ are fields of `UNetConfig`.
"""

import math
from collections.abc import Iterable
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ddim_ode.models.bounds import (
    MOST_CLASSES,
    MOST_LEVELS,
    MOST_NUMBERS,
    MOST_PARAMETERS,
    Blocks,
    Width,
    parameters,
)

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Direction = Literal["down", "up"]


class UNetConfig(BaseModel):
    """Shape and choices of a `UNet`. Unknown keys are errors.

    The defaults are those of the original DDPM code (as ported to PyTorch); a diffusers `UNet2DModel` with its own
    defaults has `time_order="cos_sin"`, `time_shift=0`, `downsample_padding="symmetric"`, `norm_eps=1e-5`,
    `head_channels=8`. The last two fields are those of Dhariwal & Nichol 2021, Sec. 3.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[Width, Width, Width] = Field(description="(C, H, W) of an image")
    channels: tuple[Width, ...] = Field(
        min_length=1, max_length=MOST_LEVELS, description="channels of each level, finest first"
    )
    blocks: Blocks = Field(2, description="ResBlocks a level on the way down")
    attention: tuple[int, ...] = Field(
        (), max_length=MOST_LEVELS, description="levels (0 = finest) with self-attention"
    )
    num_classes: int = Field(0, ge=0, le=MOST_CLASSES, description="labels 0..num_classes-1; 0 = unconditional")
    null_class: bool = Field(True, description="whether label num_classes means no condition")
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    patch: Width = Field(1, description="pixel-unshuffle factor on the way in, shuffle on the way out")
    groups: Width = Field(32, description="groups of every GroupNorm")
    norm_eps: float = Field(1e-6, gt=0.0, lt=1.0)
    mid_attention: bool = Field(True, description="self-attention in the middle")
    heads: Width = Field(1, description="of attention, at every level")
    head_channels: Width | None = Field(None, description="channels of a head, which then says how many there are")
    time_order: Literal["sin_cos", "cos_sin"] = "sin_cos"
    time_shift: float = Field(1.0, allow_inf_nan=False, description="frequencies 10000^(-k / (half - time_shift))")
    time_scale: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="times are multiplied by it: 1000 where they run from 0 to 1"
    )
    downsample_padding: Literal["asymmetric", "symmetric"] = "asymmetric"
    scale_shift: bool = Field(False, description="the embedding scales and shifts a norm, where it is added otherwise")
    resample: Literal["conv", "block"] = Field(
        "conv", description="what halves and doubles: a convolution or a ResBlock"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "UNetConfig":
        _, height, width = self.shape
        if math.prod(self.shape) > MOST_NUMBERS:
            raise ValueError(f"shape={self.shape}: an image has at most {MOST_NUMBERS} numbers here")
        factor = self.patch * 2 ** (len(self.channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"shape={self.shape} is not divisible by {factor} (patch={self.patch}, {len(self.channels)} levels)"
                f"; use fewer levels, another patch, or resize the images"
            )
        if self.channels[0] % 2 or self.channels[0] <= 2 * self.time_shift:
            raise ValueError(f"channels={self.channels}: the first must be even, and at least 4, for sines and cosines")
        if self.heads > 1 and self.head_channels:
            raise ValueError(f"heads={self.heads} and head_channels={self.head_channels}: give one of the two")
        for c in self.channels:
            if c % self.groups:
                raise ValueError(f"channels={self.channels}: {c} is not a multiple of groups={self.groups}")
        if any(not 0 <= level < len(self.channels) for level in self.attention):
            raise ValueError(f"attention={self.attention} names levels outside 0..{len(self.channels) - 1}")
        last = (len(self.channels) - 1,) if self.mid_attention else ()
        for c in (self.channels[level] for level in sorted({*self.attention, *last})):
            if self.head_channels and c % self.head_channels:
                raise ValueError(f"channels={self.channels}: {c} is not a multiple of head_channels")
            if c % self.heads:
                raise ValueError(f"channels={self.channels}: {c} is not a multiple of heads={self.heads}")
        if (count := parameters(self)) > MOST_PARAMETERS:
            raise ValueError(
                f"channels={self.channels} with blocks={self.blocks}, patch={self.patch} and"
                f" num_classes={self.num_classes} mean {count:.1e} parameters; here are at most"
                f" {MOST_PARAMETERS:.0e}"
            )
        return self


class UNet(nn.Module):
    """forward(x, t, labels): x (B, C, H, W), t (B,) timesteps (fractions allowed), labels (B,) int64.

    Label `num_classes` is the null class (no condition), where there is one; `labels=None` means it for all.
    Returns (B, C, H, W). Weights and computation share one dtype, the parameters'.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = c = config
        width, width_emb = c.channels[0], 4 * c.channels[0]
        data_channels = c.shape[0] * c.patch**2

        self.time_mlp = nn.Sequential(nn.Linear(width, width_emb), nn.SiLU(), nn.Linear(width_emb, width_emb))
        labels = c.num_classes + c.null_class
        self.class_embedding = nn.Embedding(labels, width_emb) if c.num_classes else None
        self.conv_in = nn.Conv2d(data_channels, width, 3, padding=1)

        last = len(c.channels) - 1
        skips, current = [width], width
        self.down = nn.ModuleList()
        for level, out in enumerate(c.channels):
            blocks = nn.ModuleList()
            for _ in range(c.blocks):
                blocks.append(Block(current, out, width_emb, c, attend=level in c.attention))
                skips.append(current := out)
            if level < last:
                skips.append(out)
            self.down.append(Level(blocks, resampler("down", out, width_emb, c) if level < last else None))

        self.mid = nn.ModuleList(Block(current, current, width_emb, c, attend) for attend in (c.mid_attention, False))

        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(c.channels))):
            blocks = nn.ModuleList()
            for _ in range(c.blocks + 1):
                blocks.append(Block(current + skips.pop(), out, width_emb, c, attend=level in c.attention))
                current = out
            self.up.append(Level(blocks, resampler("up", out, width_emb, c) if level else None))

        self.norm_out = nn.GroupNorm(c.groups, width, c.norm_eps)
        self.conv_out = zero_(nn.Conv2d(width, data_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        c = self.config
        emb = self.time_mlp(sinusoid(t.double() * c.time_scale, c.channels[0], c.time_order, c.time_shift, x.dtype))
        if self.class_embedding is not None:
            if labels is None:
                labels = torch.full((len(x),), c.num_classes, device=x.device)
            emb = emb + self.class_embedding(labels)
        emb = F.silu(emb)

        h = self.conv_in(F.pixel_unshuffle(x, c.patch) if c.patch > 1 else x)
        skips = [h]
        for level in cast(Iterable[Level], self.down):
            for block in level.blocks:
                skips.append(h := block(h, emb))
            if level.resample is not None:
                skips.append(h := level.resample(h, emb))
        for block in self.mid:
            h = block(h, emb)
        for level in cast(Iterable[Level], self.up):
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if level.resample is not None:
                h = level.resample(h, emb)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, c.patch) if c.patch > 1 else h


class Level(nn.Module):
    """The blocks of one resolution and the one that leaves it (None at the last)."""

    def __init__(self, blocks: nn.ModuleList, resample: nn.Module | None):
        super().__init__()
        self.blocks, self.resample = blocks, resample


class Block(nn.Module):
    """Residual block with the embedding between its convolutions, then optional self-attention.

    One that resamples does it before its first convolution, by a 2 x 2 mean or by repeating each pixel.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        c_emb: int,
        config: UNetConfig,
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

    def __init__(self, channels: int, config: UNetConfig):
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


def resampler(direction: Direction, channels: int, c_emb: int, config: UNetConfig) -> nn.Module:
    """What leaves a level, called with the state and the embedding."""
    if config.resample == "block":
        return Block(channels, channels, c_emb, config, direction=direction)
    return Downsample(channels, config.downsample_padding) if direction == "down" else Upsample(channels)


def resize(x: Tensor, direction: Direction) -> Tensor:
    """The mean of 2 x 2 pixels, or each pixel four times."""
    return F.avg_pool2d(x, 2) if direction == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")


def sinusoid(t: Tensor, width: int, order: str, shift: float, dtype: torch.dtype) -> Tensor:
    """(B,) timesteps -> (B, width): sines and cosines of t * 10000^(-k / (width/2 - shift))."""
    half = width // 2
    # float64: at t near 1000 a float32 product is off by 6e-5 radian, which no exactness test forgives.
    k = torch.arange(half, device=t.device, dtype=torch.float64)
    angles = t.to(torch.float64)[:, None] * torch.exp(-math.log(10_000) / (half - shift) * k)
    parts = (angles.sin(), angles.cos()) if order == "sin_cos" else (angles.cos(), angles.sin())
    return torch.cat(parts, dim=1).to(dtype)


def zero_(module: AnyModule) -> AnyModule:
    """Zero the weights, so that every residual branch starts as the identity."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module
