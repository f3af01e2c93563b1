"""What `config.json` of a `UNet2DModel` says, in our words and back.

Keys that a file lacks have the defaults of diffusers.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from ddim_ode.checkpoints.files import CheckpointError
from ddim_ode.models.bounds import (
    MOST_BLOCKS,
    MOST_CLASSES,
    MOST_LEVELS,
    MOST_NUMBERS,
    MOST_PARAMETERS,
    MOST_TIMESTEPS,
    MOST_WIDTH,
    parameters,
)
from ddim_ode.models.unet import UNetConfig
from ddim_ode.support.validation import ConfigError, parse

VERSION = "0.29.0"  # of diffusers, the oldest whose configurations are like ours


class UNet2D(BaseModel):
    """The arguments of a `UNet2DModel` with its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[PositiveInt, ...] = Field((224, 448, 672, 896), min_length=1)
    layers_per_block: PositiveInt = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: PositiveInt | None = 8
    norm_num_groups: PositiveInt = 32
    attn_norm_num_groups: PositiveInt | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: PositiveInt | None = None
    num_train_timesteps: PositiveInt | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        height, width = self.sample_size if isinstance(self.sample_size, tuple) else (self.sample_size or 0,) * 2
        return self.out_channels if self.condition_beside else self.in_channels, height, width

    @property
    def condition_beside(self) -> bool:
        """Whether half of the channels in are an image that it is told, as that of `LDMSuperResolutionPipeline` is."""
        return self.in_channels == 2 * self.out_channels

    @property
    def learned_variance(self) -> bool:
        """Whether the second half of the outputs is one."""
        return self.out_channels == 2 * self.in_channels


#: the only values that our UNet knows
FIXED: Mapping[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}

#: block -> whether it attends, how it resamples ("": as `downsample_type` and `upsample_type` say)
BLOCKS: Mapping[str, tuple[bool, str]] = {
    "DownBlock2D": (False, "conv"),
    "AttnDownBlock2D": (True, ""),
    "ResnetDownsampleBlock2D": (False, "block"),
    "UpBlock2D": (False, "conv"),
    "AttnUpBlock2D": (True, ""),
    "ResnetUpsampleBlock2D": (False, "block"),
}
RESAMPLE: Mapping[str, str] = {"conv": "conv", "resnet": "block"}
RESNET = {ours: theirs for theirs, ours in RESAMPLE.items()}


class UnsupportedError(CheckpointError):
    """A `UNet2DModel` that is not one of our UNet's shapes."""


def read_unet(values: Mapping[str, Any], file: Path) -> UNet2D:
    """`config.json`; keys that begin with an underscore are notes.

    Raises:
        CheckpointError: a key is unknown, or the file does not say how large images are, or says a size that no network
            has.
        ConfigError: a value is not of its kind.
    """
    given = {key: value for key, value in values.items() if not key.startswith("_")}
    if given.get("sample_size") is None:
        raise CheckpointError(f"{file} has no sample_size; write the height and width of an image there")
    unet = parse(UNet2D, given, str(file))
    _check_size(unet, file)
    return unet


def _check_size(u: UNet2D, file: Path) -> None:
    """Raise CheckpointError for a network that is larger than any, before anybody builds it."""
    blocks = {"down_block_types": u.down_block_types, "up_block_types": u.up_block_types}
    counts = {f"the length of {key}": (len(value), MOST_LEVELS) for key, value in blocks.items()}
    counts |= {
        "sample_size": (max(u.shape[1:]), MOST_WIDTH),
        "in_channels": (u.in_channels, MOST_WIDTH),
        "out_channels": (u.out_channels, MOST_WIDTH),
        "block_out_channels": (max(u.block_out_channels), MOST_WIDTH),
        "the length of block_out_channels": (len(u.block_out_channels), MOST_LEVELS),
        "layers_per_block": (u.layers_per_block, MOST_BLOCKS),
        "time_embedding_dim": (u.time_embedding_dim or 0, 4 * MOST_WIDTH),
        "num_class_embeds": (u.num_class_embeds or 0, MOST_CLASSES),
        "num_train_timesteps": (u.num_train_timesteps or 0, MOST_TIMESTEPS),
        "sample_size: numbers in an image": (math.prod(u.shape), MOST_NUMBERS),
    }
    for what, (count, most) in counts.items():
        if count > most:
            raise CheckpointError(f"{file}: {what}: {count:,} is more than any network here has, {most:,}")
    plainest: dict[str, Any] = {
        "shape": u.shape,
        "channels": u.block_out_channels,
        "blocks": u.layers_per_block,
        "num_classes": u.num_class_embeds or 0,
    }
    if (count := parameters(UNetConfig.model_construct(**plainest))) > MOST_PARAMETERS:
        raise CheckpointError(
            f"{file}: block_out_channels={u.block_out_channels} with layers_per_block={u.layers_per_block} mean"
            f" {count:.1e} parameters, more than any network here has, {MOST_PARAMETERS:.0e}"
        )


def read_network(u: UNet2D, file: Path) -> UNetConfig:
    """The configuration of our UNet that computes what this `UNet2DModel` does.

    Raises:
        UnsupportedError: there is none; the message names the block type or the key.
    """
    for block in (*u.down_block_types, *u.up_block_types):
        if block not in BLOCKS:
            raise UnsupportedError(f"{file}: our UNet has no {block}")
    for key, known in FIXED.items():
        if getattr(u, key) not in known:
            raise UnsupportedError(f"{file}: our UNet has no {key}={getattr(u, key)!r}")
    counts = [len(names) for names in (u.down_block_types, u.up_block_types, u.block_out_channels)]
    if len(set(counts)) > 1:
        raise UnsupportedError(f"{file}: {counts[0]} blocks down, {counts[1]} up and {counts[2]} numbers of channels")
    attention = tuple(level for level, block in enumerate(u.down_block_types) if BLOCKS[block][0])
    if attention != tuple(level for level, block in enumerate(reversed(u.up_block_types)) if BLOCKS[block][0]):
        raise UnsupportedError(f"{file}: our UNet attends at the same levels on the way down and up")
    if u.time_embedding_dim not in (None, 4 * u.block_out_channels[0]):
        raise UnsupportedError(f"{file}: our UNet has no time_embedding_dim={u.time_embedding_dim}")
    shift = u.resnet_time_scale_shift == "scale_shift"
    mid_groups = u.attn_norm_num_groups or (None if shift else u.norm_num_groups)
    if u.add_attention and mid_groups != u.norm_num_groups:
        raise UnsupportedError(
            f"{file}: our UNet has no attn_norm_num_groups={mid_groups} with groups of {u.norm_num_groups}"
        )
    if u.out_channels != u.in_channels and not (u.learned_variance or u.condition_beside):
        raise UnsupportedError(f"{file}: our UNet has no out_channels={u.out_channels} for {u.in_channels} in")
    network = {
        "shape": u.shape,
        "channels": u.block_out_channels,
        "blocks": u.layers_per_block,
        "attention": attention,
        "mid_attention": u.add_attention,
        "num_classes": u.num_class_embeds or 0,
        "null_class": not u.num_class_embeds,
        "dropout": u.dropout,
        "groups": u.norm_num_groups,
        "norm_eps": u.norm_eps,
        "head_channels": u.attention_head_dim,
        "time_order": "cos_sin" if u.flip_sin_to_cos else "sin_cos",
        "time_shift": u.freq_shift,
        "downsample_padding": "symmetric" if u.downsample_padding else "asymmetric",
        "scale_shift": shift,
        "resample": _resample(u, file),
        "condition": {"image": u.shape} if u.condition_beside else None,
    }
    try:
        return parse(UNetConfig, network, str(file))
    except ConfigError as error:
        raise UnsupportedError(str(error)) from None


def _resample(u: UNet2D, file: Path) -> str:
    """How all levels resample but the coarsest, on the way down, and the finest, on the way up."""
    down, up = RESAMPLE.get(u.downsample_type, ""), RESAMPLE.get(u.upsample_type, "")
    kinds = {BLOCKS[block][1] or down for block in u.down_block_types[:-1]}
    kinds |= {BLOCKS[block][1] or up for block in u.up_block_types[:-1]}
    if len(kinds) > 1 or "" in kinds:
        raise UnsupportedError(f"{file}: our UNet resamples alike at all levels, by convolutions or by ResBlocks")
    return kinds.pop() if kinds else "conv"


def write_network(c: UNetConfig) -> dict[str, Any]:
    """`config.json` of the `UNet2DModel` that is our UNet.

    Raises:
        CheckpointError: there is none, since `UNet2DModel` knows no patches, no fixed number of heads, no scale of time
            and no noise in what it is told.
    """
    if c.time_scale != 1:
        raise CheckpointError(
            f"time_scale={c.time_scale:g}: a UNet2DModel of diffusers takes its times as they are"
            "; this network can be used through ddim_ode only"
        )
    if c.heads > 1:
        raise CheckpointError(
            f"heads={c.heads}: a UNet2DModel of diffusers has heads of as many channels each at every level"
            "; this network can be used through ddim_ode only"
        )
    if c.patch > 1:
        raise CheckpointError(
            f"patch={c.patch}: this network works on patches of pixels, which a UNet2DModel of diffusers cannot"
            "; it can be used through ddim_ode only"
        )
    if c.condition and (c.condition.noise or c.condition.image != c.shape):
        raise CheckpointError(
            f"condition={c.condition.image}: a UNet2DModel of diffusers is told images of its own size, without noise"
            "; this network can be used through ddim_ode only"
        )
    names = (
        ("DownBlock2D", "UpBlock2D") if c.resample == "conv" else ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    )
    attends = [level in c.attention for level in range(len(c.channels))]
    channels, height, width = c.shape
    unet = UNet2D(
        sample_size=height if height == width else (height, width),
        in_channels=2 * channels if c.condition else channels,
        out_channels=channels,
        freq_shift=c.time_shift,
        flip_sin_to_cos=c.time_order == "cos_sin",
        down_block_types=tuple("AttnDownBlock2D" if attend else names[0] for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else names[1] for attend in reversed(attends)),
        block_out_channels=c.channels,
        layers_per_block=c.blocks,
        downsample_padding=1 if c.downsample_padding == "symmetric" else 0,
        downsample_type=RESNET[c.resample],
        upsample_type=RESNET[c.resample],
        dropout=c.dropout,
        attention_head_dim=c.head_channels,
        norm_num_groups=c.groups,
        attn_norm_num_groups=c.groups,
        norm_eps=c.norm_eps,
        resnet_time_scale_shift="scale_shift" if c.scale_shift else "default",
        add_attention=c.mid_attention,
        num_class_embeds=c.num_classes + c.null_class if c.num_classes else None,
    )
    return {"_class_name": "UNet2DModel", "_diffusers_version": VERSION, **unet.model_dump(mode="json")}
