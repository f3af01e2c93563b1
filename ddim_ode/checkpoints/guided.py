"""Weights of openai's improved-diffusion and guided-diffusion (Nichol & Dhariwal 2021, Dhariwal & Nichol 2021).

Those programs keep a network's shape in the flags they are called with: write them in a YAML file. A flag that is left
out has the default of guided-diffusion.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ddim_ode.checkpoints.fitting import Names, Scheme
from ddim_ode.models.bounds import MOST_WIDTH, Blocks, Classes, Timesteps, Width
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.unet import UNetConfig
from ddim_ode.support.validation import ConfigError, parse

PARTS = Scheme(
    block={"norm1": "in_layers.0", "conv1": "in_layers.2", "emb": "emb_layers.1"}
    | {"norm2": "out_layers.0", "conv2": "out_layers.3", "skip": "skip_connection"},
    attention={"norm": "norm", "qkv": "qkv", "out": "proj_out"},
)
CLASSES = 1000  # of ImageNet, where neither the flags nor the weights say another number
EMBEDDING = "label_emb.weight"
MULTIPLES = {
    32: "1,2,2,2",
    64: "1,2,3,4",
    128: "1,1,2,3,4",
    256: "1,1,2,2,4,4",
    512: "0.5,1,1,2,2,4,4",
}  # by image_size

Numbers = Annotated[str, Field(max_length=200)]  # with commas


class Flags(BaseModel):
    """What the programs are called with. Those that do not change what a network says are allowed and ignored."""

    model_config = ConfigDict(extra="forbid")

    image_size: Width
    num_channels: Width
    num_res_blocks: Blocks
    attention_resolutions: Numbers | int = "16,8"
    channel_mult: Numbers = ""
    num_heads: Width = 4
    num_head_channels: int = Field(-1, le=MOST_WIDTH)
    num_heads_upsample: int = Field(-1, le=MOST_WIDTH)
    dropout: float = 0.0
    class_cond: bool = False
    num_classes: Classes | None = None  # a constant of the program, NUM_CLASSES, which people change
    NUM_CLASSES: Classes | None = None
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    diffusion_steps: Timesteps = 1000
    noise_schedule: str = "linear"
    predict_xstart: bool = False
    rescale_timesteps: bool | None = None
    use_fp16: bool = False
    use_checkpoint: bool = False
    use_kl: bool = False
    sigma_small: bool = False
    rescale_learned_sigmas: bool = False
    timestep_respacing: str | int = ""


def is_guided(values: Any) -> bool:
    """Whether a YAML file holds such flags."""
    return isinstance(values, dict) and "num_channels" in values


def rows(theirs: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights are of; None where they have none."""
    found = theirs.get(EMBEDDING)
    return len(found) if found is not None and found.ndim == 2 else None


def read_flags(values: Any, file: Path, classes: int | None = None) -> tuple[ModelConfig, Flags]:
    """What the flags mean, in our words; `classes` is how many the weights have.

    Raises:
        ConfigError: they are not valid, or of a network that cannot be had here, or of other classes than the weights.
    """
    flags = parse(Flags, values, str(file))
    stated = {"num_classes": flags.num_classes, "NUM_CLASSES": flags.NUM_CLASSES, f"the rows of {EMBEDDING}": classes}
    counts = {what: count for what, count in stated.items() if count is not None}
    if flags.class_cond and len(set(counts.values())) > 1:
        raise ConfigError(f"{file}: {', '.join(f'{what}: {n}' for what, n in counts.items())}; they must be one number")
    if not flags.channel_mult and flags.image_size not in MULTIPLES:
        raise ConfigError(f"{file}: image_size: {flags.image_size} has no usual channel_mult; give one, as in 1,2,4")
    try:
        multiples = [float(m) for m in (flags.channel_mult or MULTIPLES[flags.image_size]).split(",")]
        channels = tuple(int(flags.num_channels * m) for m in multiples)
        resolutions = [int(r) for r in str(flags.attention_resolutions).split(",")]
    except (ValueError, OverflowError):  # letters, nan, inf
        raise ConfigError(f"{file}: channel_mult and attention_resolutions must be numbers with commas") from None
    scale = 1000 / flags.diffusion_steps
    limits = {
        f"channel_mult: {multiples[0]:g}, ...": (multiples[0] == 1, "it must begin with 1"),
        f"num_heads_upsample: {flags.num_heads_upsample}": (
            flags.num_heads_upsample in (-1, flags.num_heads) or flags.num_head_channels > 0,
            "it must be num_heads",
        ),
        f"noise_schedule: {flags.noise_schedule}": (
            flags.noise_schedule in ("linear", "cosine"),
            "it must be linear or cosine",
        ),
        f"diffusion_steps: {flags.diffusion_steps}": (
            flags.diffusion_steps == 1000 or flags.rescale_timesteps is False,
            "it must be 1000, or rescale_timesteps must be false",
        ),
    }
    for what, (holds, rule) in limits.items():
        if not holds:
            raise ConfigError(f"{file}: {what} cannot be had here; {rule}")
    network = {
        "shape": (3, flags.image_size, flags.image_size),
        "channels": channels,
        "blocks": flags.num_res_blocks,
        "attention": tuple(n for n in range(len(multiples)) if flags.image_size // 2**n in resolutions),
        "num_classes": next(iter(counts.values()), CLASSES) if flags.class_cond else 0,
        "null_class": not flags.class_cond,
        "dropout": flags.dropout,
        "heads": 1 if flags.num_head_channels > 0 else flags.num_heads,
        "head_channels": flags.num_head_channels if flags.num_head_channels > 0 else None,
        "norm_eps": 1e-5,
        "time_order": "cos_sin",
        "time_shift": 0.0,
        "downsample_padding": "symmetric",
        "scale_shift": flags.use_scale_shift_norm,
        "resample": "block" if flags.resblock_updown else "conv",
    }
    schedule: dict[str, Any] = {"name": flags.noise_schedule, "timesteps": flags.diffusion_steps}
    if flags.noise_schedule == "linear":
        schedule |= {"beta_start": scale * 1e-4, "beta_end": scale * 0.02}
    model = {"network": network, "schedule": schedule, "predicts": "data" if flags.predict_xstart else "noise"}
    return parse(ModelConfig, model, str(file)), flags


def names(c: UNetConfig) -> Names:
    """What the modules of our UNet are called there: numbered in the order in which they run."""
    table: dict[str, str | tuple[str, str, str]] = {
        "time_mlp.0": "time_embed.0",
        "time_mlp.2": "time_embed.2",
        "class_embedding": "label_emb",
        "conv_in": "input_blocks.0.0",
        "norm_out": "out.0",
        "conv_out": "out.2",
    }
    last = len(c.channels) - 1

    def resample(ours: str, theirs: str, conv: str) -> None:
        table.update(PARTS.names(ours, theirs, ""))
        table[f"{ours}.conv"] = f"{theirs}.{conv}"

    n = 1
    for level in range(last + 1):
        for k in range(c.blocks):
            table |= PARTS.names(f"down.{level}.blocks.{k}", f"input_blocks.{n}.0", f"input_blocks.{n}.1")
            n += 1
        if level < last:
            resample(f"down.{level}.resample", f"input_blocks.{n}.0", "op")
            n += 1
    table |= PARTS.names("mid.0", "middle_block.0", "middle_block.1")
    table |= PARTS.names("mid.1", "middle_block.2", "")
    n = 0
    for i in range(last + 1):
        for k in range(c.blocks + 1):
            table |= PARTS.names(f"up.{i}.blocks.{k}", f"output_blocks.{n}.0", f"output_blocks.{n}.1")
            n += 1
        place = 2 if last - i in c.attention else 1
        resample(f"up.{i}.resample", f"output_blocks.{n - 1}.{place}", "conv")
    return table


def without_variance(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the mean alone: the second half of the outputs is a learned variance."""
    return {k: v.chunk(2)[0] if k in ("out.2.weight", "out.2.bias") else v for k, v in theirs.items()}


def heads_inside(ours: Mapping[str, Tensor], c: UNetConfig) -> dict[str, Tensor]:
    """Weights whose rows are ordered by query, key and value, then head, of such ordered by head first."""
    turned = {}
    for name, value in ours.items():
        if ".qkv." in name:
            width = len(value) // 3
            heads = c.heads if c.head_channels is None else width // c.head_channels
            value = value.reshape(heads, 3, width // heads, *value.shape[1:]).transpose(0, 1).reshape(value.shape)
        turned[name] = value
    return turned
