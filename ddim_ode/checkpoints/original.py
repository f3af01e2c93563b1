"""Checkpoints of the DDIM code (ermongroup/ddim) and of the DDPM models that pesser converted to PyTorch.

What the weights mean is said by a YAML file with the sections `data`, `model` and `diffusion`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ddim_ode.checkpoints.fitting import Names, Scheme
from ddim_ode.models.bounds import MOST_LEVELS, Blocks, Timesteps, Width
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.unet import UNetConfig
from ddim_ode.support.validation import ConfigError, parse

SCHEDULES: Mapping[str, str] = {"linear": "linear", "quad": "scaled_linear"}

PARTS = Scheme(
    block={k: k for k in ("norm1", "conv1", "norm2", "conv2")} | {"emb": "temb_proj", "skip": "nin_shortcut"},
    attention={"norm": "norm", "qkv": ("q", "k", "v"), "out": "proj_out"},
)


class DataSection(BaseModel):
    """The section `data`: the images that the network was trained on."""

    image_size: Width
    channels: Width
    rescaled: bool = True
    logit_transform: bool = False


class ModelSection(BaseModel):
    """The section `model`: the network; keys that do not change what it computes are left out."""

    ch: Width
    ch_mult: tuple[Width, ...] = Field(min_length=1, max_length=MOST_LEVELS)
    num_res_blocks: Blocks
    attn_resolutions: tuple[int, ...] = Field(max_length=MOST_LEVELS)
    dropout: float = 0.0
    in_channels: Width
    out_ch: Width
    resamp_with_conv: bool = True


class DiffusionSection(BaseModel):
    """The section `diffusion`: the schedule."""

    beta_schedule: str
    beta_start: float
    beta_end: float
    num_diffusion_timesteps: Timesteps


class OriginalConfig(BaseModel):
    """A YAML file of the DDIM code."""

    data: DataSection
    model: ModelSection
    diffusion: DiffusionSection


def read_config(values: Any, file: Path) -> ModelConfig:
    """What a YAML file of the DDIM code says, in our words.

    Raises:
        ConfigError: it is not valid, or of a network or data that cannot be had here.
    """
    given = parse(OriginalConfig, values, str(file))
    data, model, diffusion = given.data, given.model, given.diffusion
    limits = {
        "data.rescaled: false": (data.rescaled, "images must be in [-1, 1]"),
        "data.logit_transform: true": (not data.logit_transform, "images must be in [-1, 1]"),
        "model.resamp_with_conv: false": (model.resamp_with_conv, "our UNet resamples with convolutions"),
        f"model.out_ch: {model.out_ch}": (model.out_ch == data.channels, f"images have {data.channels} channels"),
        f"model.in_channels: {model.in_channels}": (
            model.in_channels == data.channels,
            f"images have {data.channels} channels",
        ),
        f"model.ch_mult: {list(model.ch_mult)}": (model.ch_mult[0] == 1, "it must begin with 1"),
        f"diffusion.beta_schedule: {diffusion.beta_schedule}": (
            diffusion.beta_schedule in SCHEDULES,
            f"it must be {' or '.join(SCHEDULES)}",
        ),
    }
    for what, (holds, rule) in limits.items():
        if not holds:
            raise ConfigError(f"{file}: {what} cannot be had here; {rule}")
    levels = range(len(model.ch_mult))
    network = {
        "shape": (data.channels, data.image_size, data.image_size),
        "channels": tuple(model.ch * m for m in model.ch_mult),
        "blocks": model.num_res_blocks,
        "attention": tuple(level for level in levels if data.image_size // 2**level in model.attn_resolutions),
        "dropout": model.dropout,
    }
    schedule = {
        "name": SCHEDULES[diffusion.beta_schedule],
        "timesteps": diffusion.num_diffusion_timesteps,
        "beta_start": diffusion.beta_start,
        "beta_end": diffusion.beta_end,
    }
    return parse(ModelConfig, {"network": network, "schedule": schedule, "predicts": "noise"}, str(file))


def names(c: UNetConfig) -> Names:
    """What the modules of our UNet are called there; levels on the way up count from the finest."""
    last = len(c.channels) - 1
    table: dict[str, str | tuple[str, str, str]] = {
        "time_mlp.0": "temb.dense.0",
        "time_mlp.2": "temb.dense.1",
        "conv_in": "conv_in",
        "norm_out": "norm_out",
        "conv_out": "conv_out",
    }
    for n in range(2):
        table |= PARTS.names(f"mid.{n}", f"mid.block_{n + 1}", f"mid.attn_{n + 1}")
    for n in range(last + 1):
        for part, level, resample, count in (
            ("down", n, "downsample", c.blocks),
            ("up", last - n, "upsample", c.blocks + 1),
        ):
            for k in range(count):
                table |= PARTS.names(f"{part}.{n}.blocks.{k}", f"{part}.{level}.block.{k}", f"{part}.{level}.attn.{k}")
            table[f"{part}.{n}.resample.conv"] = f"{part}.{level}.{resample}.conv"
    return table
