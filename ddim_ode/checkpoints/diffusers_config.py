"""What `config.json` of a `UNet2DModel` and `scheduler_config.json` say, in our words and back.

Keys that a file lacks have the defaults of diffusers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddim_ode.checkpoints.files import CheckpointError
from ddim_ode.config import ConfigError, ScheduleConfig, parse
from ddim_ode.unet import UNetConfig

VERSION = "0.29.0"  # of diffusers, the oldest whose configurations are like ours

#: of `UNet2DModel`, where a file does not say
DEFAULTS: Mapping[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}

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

PREDICTION: Mapping[str, str] = {"epsilon": "noise", "sample": "data", "v_prediction": "velocity"}
SCHEDULES: Mapping[str, str] = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


class UnsupportedError(CheckpointError):
    """A `UNet2DModel` that is not one of our UNet's shapes."""


def read_shape(values: Mapping[str, Any], file: Path) -> tuple[int, int, int]:
    """(C, H, W) of the images. Raises CheckpointError where the file does not say."""
    size, channels = values.get("sample_size"), values.get("in_channels", DEFAULTS["in_channels"])
    if size is None:
        raise CheckpointError(f"{file} has no sample_size; write the height and width of an image there")
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def read_network(given: Mapping[str, Any], file: Path) -> UNetConfig:
    """The configuration of our UNet that computes what this `UNet2DModel` does.

    Raises:
        UnsupportedError: there is none; the message names the block type or the key.
        CheckpointError: the file does not say how large images are.
    """
    values = {**DEFAULTS, **{k: v for k, v in given.items() if not k.startswith("_")}}
    if unknown := values.keys() - DEFAULTS.keys():
        raise UnsupportedError(f"{file}: {min(unknown)} is not a key that is known here")
    down, up, channels = values["down_block_types"], values["up_block_types"], values["block_out_channels"]
    for block in (*down, *up):
        if block not in BLOCKS:
            raise UnsupportedError(f"{file}: our UNet has no {block}")
    for key, known in FIXED.items():
        if values[key] not in known:
            raise UnsupportedError(f"{file}: our UNet has no {key}={values[key]!r}")
    attention = tuple(level for level, block in enumerate(down) if BLOCKS[block][0])
    if not len(down) == len(up) == len(channels):
        raise UnsupportedError(f"{file}: {len(down)} blocks down, {len(up)} up and {len(channels)} numbers of channels")
    if attention != tuple(level for level, block in enumerate(reversed(up)) if BLOCKS[block][0]):
        raise UnsupportedError(f"{file}: our UNet attends at the same levels on the way down and up")
    if values["time_embedding_dim"] not in (None, 4 * channels[0]):
        raise UnsupportedError(f"{file}: our UNet has no time_embedding_dim={values['time_embedding_dim']}")
    groups, shift = values["norm_num_groups"], values["resnet_time_scale_shift"] == "scale_shift"
    mid_groups = values["attn_norm_num_groups"] or (None if shift else groups)
    if values["add_attention"] and mid_groups != groups:
        raise UnsupportedError(f"{file}: our UNet has no attn_norm_num_groups={mid_groups} with groups of {groups}")
    shape = read_shape(values, file)
    if values["out_channels"] not in (shape[0], 2 * shape[0]):
        raise UnsupportedError(f"{file}: our UNet has no out_channels={values['out_channels']} for {shape[0]} in")
    network = {
        "shape": shape,
        "channels": channels,
        "blocks": values["layers_per_block"],
        "attention": attention,
        "mid_attention": values["add_attention"],
        "num_classes": values["num_class_embeds"] or 0,
        "null_class": not values["num_class_embeds"],
        "dropout": values["dropout"],
        "groups": groups,
        "norm_eps": values["norm_eps"],
        "head_channels": values["attention_head_dim"],
        "time_order": "cos_sin" if values["flip_sin_to_cos"] else "sin_cos",
        "time_shift": values["freq_shift"],
        "downsample_padding": "symmetric" if values["downsample_padding"] else "asymmetric",
        "scale_shift": shift,
        "resample": _resample(values, file),
    }
    try:
        return parse(UNetConfig, network, str(file))
    except ConfigError as error:
        raise UnsupportedError(str(error)) from None


def _resample(values: Mapping[str, Any], file: Path) -> str:
    """How all levels resample but the coarsest, on the way down, and the finest, on the way up."""
    down, up = RESAMPLE.get(values["downsample_type"], ""), RESAMPLE.get(values["upsample_type"], "")
    kinds = {BLOCKS[block][1] or down for block in values["down_block_types"][:-1]}
    kinds |= {BLOCKS[block][1] or up for block in values["up_block_types"][:-1]}
    if len(kinds) > 1 or "" in kinds:
        raise UnsupportedError(f"{file}: our UNet resamples alike at all levels, by convolutions or by ResBlocks")
    return kinds.pop() if kinds else "conv"


def write_network(c: UNetConfig) -> dict[str, Any]:
    """`config.json` of the `UNet2DModel` that is our UNet.

    Raises:
        CheckpointError: there is none, since `UNet2DModel` knows no patches and no fixed number of heads.
    """
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
    names = (
        ("DownBlock2D", "UpBlock2D") if c.resample == "conv" else ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    )
    attends = [level in c.attention for level in range(len(c.channels))]
    channels, height, width = c.shape
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        **DEFAULTS,
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels,
        "freq_shift": int(c.time_shift) if c.time_shift == int(c.time_shift) else c.time_shift,
        "flip_sin_to_cos": c.time_order == "cos_sin",
        "down_block_types": ["AttnDownBlock2D" if attend else names[0] for attend in attends],
        "up_block_types": ["AttnUpBlock2D" if attend else names[1] for attend in reversed(attends)],
        "block_out_channels": list(c.channels),
        "layers_per_block": c.blocks,
        "downsample_padding": 1 if c.downsample_padding == "symmetric" else 0,
        "downsample_type": RESNET[c.resample],
        "upsample_type": RESNET[c.resample],
        "dropout": c.dropout,
        "attention_head_dim": c.head_channels,
        "norm_num_groups": c.groups,
        "attn_norm_num_groups": c.groups,
        "norm_eps": c.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if c.scale_shift else "default",
        "add_attention": c.mid_attention,
        "num_class_embeds": c.num_classes + c.null_class if c.num_classes else None,
    }


def read_schedule(values: Mapping[str, Any], file: Path) -> tuple[ScheduleConfig, str]:
    """The schedule that a scheduler means, and what the network predicts.

    Raises:
        CheckpointError: it has no betas as DDPM has, or names a schedule or a prediction that is unknown here.
        ConfigError: its numbers are no schedule.
    """
    if "beta_schedule" not in values:
        name = values.get("_class_name", "this scheduler")
        raise CheckpointError(f"{file}: {name} has no beta_schedule; the schedule must be DDPM's kind, of betas")
    kind, prediction = values["beta_schedule"], values.get("prediction_type", "epsilon")
    if prediction not in PREDICTION:
        raise CheckpointError(f"{file}: prediction_type={prediction!r} is unknown; known are {', '.join(PREDICTION)}")
    betas = values.get("trained_betas")
    if betas is None and kind not in SCHEDULES:
        raise CheckpointError(
            f"{file}: beta_schedule={kind!r} is unknown; known are {', '.join(SCHEDULES)}, and trained_betas"
        )
    schedule: dict[str, Any] = {"zero_snr": bool(values.get("rescale_betas_zero_snr", False))}
    if betas is not None:
        schedule |= {"name": "betas", "timesteps": len(betas), "betas": betas}
    else:
        schedule |= {"name": SCHEDULES[kind], "timesteps": values.get("num_train_timesteps", 1000)}
        schedule |= {"beta_start": values.get("beta_start", 1e-4), "beta_end": values.get("beta_end", 0.02)}
    return parse(ScheduleConfig, schedule, str(file)), PREDICTION[prediction]


def write_schedule(schedule: ScheduleConfig, predicts: str) -> dict[str, Any]:
    """`scheduler_config.json` of a `DDIMScheduler`.

    Raises:
        CheckpointError: diffusers has no name for what the network predicts.
    """
    prediction = {ours: theirs for theirs, ours in PREDICTION.items()}
    if predicts not in prediction:
        known = ", ".join(prediction)
        raise CheckpointError(f"predicts={predicts!r} has no prediction_type of diffusers' DDIMScheduler; {known} have")
    kinds = {ours: theirs for theirs, ours in SCHEDULES.items()}
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": schedule.timesteps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": kinds.get(schedule.name, "linear"),
        "trained_betas": None if schedule.betas is None else list(schedule.betas),
        "rescale_betas_zero_snr": schedule.zero_snr,
        "prediction_type": prediction[predicts],
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing" if schedule.zero_snr else "leading",
    }
