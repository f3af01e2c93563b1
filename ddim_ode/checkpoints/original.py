"""Checkpoints of the DDIM code (ermongroup/ddim) and of the DDPM models that pesser converted to PyTorch.

Weights are a torch.save file: of the first, a list [model, optimizer, epoch, step, EMA of the weights]; of the second,
the weights alone. What they mean is said by a YAML file with the sections `data`, `model` and `diffusion`.
"""

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from ddim_ode.checkpoints.building import build, dtypes
from ddim_ode.checkpoints.files import CheckpointError, check_finite, is_state, kind_of, load_torch, sha256
from ddim_ode.checkpoints.fitting import Names, Scheme, fit
from ddim_ode.config import ConfigError, ModelConfig, parse
from ddim_ode.denoiser import Denoiser
from ddim_ode.unet import UNetConfig

WEIGHTS = (".pth", ".ckpt", ".pt")
CONFIGS = (".yml", ".yaml")
SCHEDULES: Mapping[str, str] = {"linear": "linear", "quad": "scaled_linear"}

PARTS = Scheme(
    block={k: k for k in ("norm1", "conv1", "norm2", "conv2")} | {"emb": "temb_proj", "skip": "nin_shortcut"},
    attention={"norm": "norm", "qkv": ("q", "k", "v"), "out": "proj_out"},
)


class Data(BaseModel):
    """Of the images that the network was trained on."""

    image_size: PositiveInt
    channels: PositiveInt
    rescaled: bool = True
    logit_transform: bool = False


class Network(BaseModel):
    """Of the network; keys that do not change what it computes are left out."""

    ch: PositiveInt
    ch_mult: tuple[PositiveInt, ...] = Field(min_length=1)
    num_res_blocks: PositiveInt
    attn_resolutions: tuple[int, ...]
    dropout: float = 0.0
    in_channels: PositiveInt
    out_ch: PositiveInt
    resamp_with_conv: bool = True


class Diffusion(BaseModel):
    """Of the schedule."""

    beta_schedule: str
    beta_start: float
    beta_end: float
    num_diffusion_timesteps: int


class OriginalConfig(BaseModel):
    """A YAML file of the DDIM code."""

    data: Data
    model: Network
    diffusion: Diffusion


def load_original(file: Path, config_file: str | os.PathLike[str] | None = None, ema: bool = True) -> Denoiser:
    """The model of a checkpoint and its configuration, on the CPU in float32.

    config_file: None is the one YAML file beside the checkpoint. ema: take the averaged weights, where there are any.

    Raises:
        CheckpointError: the checkpoint is damaged, a pickle that would run code, or not of such a network.
        ConfigError: the configuration is not valid, or of a network or data that cannot be had here.
    """
    found = load_torch(file)
    config = read_config(config_beside(file) if config_file is None else Path(config_file))
    state, averaged = _pick(found, file, ema)
    check_finite(state, file)
    weights = fit(state, names(config.network), config.network, file)
    info = {
        "kind": "DDIM code",
        "folder": str(file.parent),
        "file": str(file),
        "sha256": sha256(file),
        "ema": averaged,
        "dtype": dtypes(weights),
        "schedule": config.schedule,
        "ignored": [],
    }
    return build(config, weights, info)


def find(folder: Path) -> Path | None:
    """The checkpoint in a folder or None; of several it is `ckpt.pth`, which the DDIM code keeps up to date.

    Raises:
        CheckpointError: there are several others.
    """
    found = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)
    if not found:
        return None
    latest = [file for file in found if file.name == "ckpt.pth"] or found
    if len(latest) > 1:
        some = ", ".join(file.name for file in latest[:3])
        raise CheckpointError(f"{folder} has {len(latest)} checkpoints ({some}, ...); give the file of one")
    return latest[0]


def config_beside(file: Path) -> Path:
    """The one YAML file in the folder of a checkpoint. Raises CheckpointError when there is none, or several."""
    found = sorted(other for other in file.parent.iterdir() if other.suffix in CONFIGS)
    if len(found) == 1:
        return found[0]
    beside = f"{len(found)} YAML files are beside it" if found else "none is beside it"
    raise CheckpointError(
        f"{file} needs its configuration, a YAML file of the DDIM code, and {beside}"
        "; put one there, or load(file, config=...)"
    )


def read_config(file: Path) -> ModelConfig:
    """What a YAML file of the DDIM code says, in our words.

    Raises:
        ConfigError: it is not valid, or of a network or data that cannot be had here.
    """
    given = parse(OriginalConfig, _read_yaml(file), str(file))
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


def _pick(found: Any, file: Path, ema: bool) -> tuple[Mapping[str, Tensor], str]:
    """The weights to use, and whether they are averages: "yes", "no" or "not stated"."""
    if isinstance(found, list) and found and is_state(found[0]):
        averages = found[4] if len(found) > 4 and is_state(found[4]) else None
        state, averaged = (averages, "yes") if ema and averages is not None else (found[0], "no")
    elif is_state(found):
        state, averaged = found, "not stated"
    else:
        raise CheckpointError(
            f"{file} holds {kind_of(found)}; a dict of tensors, or a list that begins with one, was expected"
        )
    prefix = "module." if all(name.startswith("module.") for name in state) else ""  # of DataParallel
    return {name.removeprefix(prefix): value for name, value in state.items()}, averaged


class _Loader(yaml.SafeLoader):
    """Reads the argparse.Namespace as which the DDIM code writes its own configuration as a plain mapping."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:python/object:argparse.Namespace", _mapping)


def _read_yaml(file: Path) -> Any:
    try:
        return _Loader(file.read_text()).get_single_data()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; give an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
