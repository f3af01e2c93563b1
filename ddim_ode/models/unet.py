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
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from ddim_ode.models.blocks import Block, resampler, zero_
from ddim_ode.models.bounds import (
    MOST_CLASSES,
    MOST_LEVELS,
    MOST_NUMBERS,
    MOST_PARAMETERS,
    Blocks,
    Width,
    parameters,
)
from ddim_ode.models.image_condition import TIMES, ConditionConfig, check_told, resized


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
    condition: ConditionConfig | None = Field(None, description="an image that the network is told")

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

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the condition where there is none, so that what is written of such a network keeps its digest."""
        told: dict[str, Any] = plain(self)
        return told if self.condition else {key: value for key, value in told.items() if key != "condition"}


class UNet(nn.Module):
    """forward(x, t, labels): x (B, C, H, W), t (B,) timesteps (fractions allowed), labels (B,) int64.

    Label `num_classes` is the null class (no condition), where there is one; `labels=None` means it for all.
    With `config.condition` it is told `image` (B, C', H', W') in [-1, 1] as well and, where that says so,
    `image_noise` (B,) in [0, 1], the standard deviation of the noise in it (default: none).
    Returns (B, C, H, W). Weights and computation share one dtype, the parameters'. Raises ConditionError.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = c = config
        self.condition = c.condition  # as a cascade asks any network
        width, width_emb = c.channels[0], 4 * c.channels[0]
        data_channels = c.shape[0] * c.patch**2
        told_channels = c.condition.image[0] * c.patch**2 if c.condition else 0

        self.time_mlp = mlp(width, width_emb)
        self.noise_mlp = mlp(width, width_emb) if c.condition and c.condition.noise else None
        labels = c.num_classes + c.null_class
        self.class_embedding = nn.Embedding(labels, width_emb) if c.num_classes else None
        self.conv_in = nn.Conv2d(data_channels + told_channels, width, 3, padding=1)

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

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        *,
        image: Tensor | None = None,
        image_noise: Tensor | None = None,
    ) -> Tensor:
        c = self.config
        check_told(c.condition, image, image_noise, len(x))
        emb = self.time_mlp(self._waves(t.double() * c.time_scale, x.dtype))
        if self.noise_mlp is not None:
            noise = x.new_zeros(len(x)) if image_noise is None else image_noise
            emb = emb + self.noise_mlp(self._waves(noise.double() * TIMES, x.dtype))
        if self.class_embedding is not None:
            if labels is None:
                labels = torch.full((len(x),), c.num_classes, device=x.device)
            emb = emb + self.class_embedding(labels)
        emb = F.silu(emb)

        if image is not None:
            x = torch.cat([x, resized(image.to(x), c.shape[1:])], dim=1)
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

    def _waves(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        c = self.config
        return sinusoid(t, c.channels[0], c.time_order, c.time_shift, dtype)


class Level(nn.Module):
    """The blocks of one resolution and the one that leaves it (None at the last)."""

    def __init__(self, blocks: nn.ModuleList, resample: nn.Module | None):
        super().__init__()
        self.blocks, self.resample = blocks, resample


def mlp(width: int, width_emb: int) -> nn.Sequential:
    """What makes an embedding of sines and cosines."""
    return nn.Sequential(nn.Linear(width, width_emb), nn.SiLU(), nn.Linear(width_emb, width_emb))


def sinusoid(t: Tensor, width: int, order: str, shift: float, dtype: torch.dtype) -> Tensor:
    """(B,) timesteps -> (B, width): sines and cosines of t * 10000^(-k / (width/2 - shift))."""
    half = width // 2
    # float64: at t near 1000 a float32 product is off by 6e-5 radian, which no exactness test forgives.
    k = torch.arange(half, device=t.device, dtype=torch.float64)
    angles = t.to(torch.float64)[:, None] * torch.exp(-math.log(10_000) / (half - shift) * k)
    parts = (angles.sin(), angles.cos()) if order == "sin_cos" else (angles.cos(), angles.sin())
    return torch.cat(parts, dim=1).to(dtype)
