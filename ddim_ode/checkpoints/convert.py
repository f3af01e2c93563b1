"""A model from one kind of folder to another, its weights not rounded: in the dtype that they were stored in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ddim_ode.checkpoints import CheckpointError, load, save
from ddim_ode.checkpoints.diffusers_folder import save_diffusers
from ddim_ode.support.outputs import OutputError, new_folder

Kind = Literal["ddim_ode", "diffusers"]
FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Converted:
    """What was written, and what was left behind."""

    kind: Kind
    dtype: str
    ema: str  # of the weights: yes, no or not stated
    dropped: tuple[str, ...]  # settings and outputs that have no place there


def convert(source: str, out: Path, to: Kind | None = None, config: Path | None = None, ema: bool = True) -> Converted:
    """Write a model that `load` reads as a folder of ours or of diffusers, by default the one that it is not.

    config and ema are those of `load`. Weights stored in float16, bfloat16 or float32 keep their dtype; others, and
    mixtures, become float32.

    Raises:
        CheckpointError: a model that the other kind cannot hold; or whatever `load` raises.
        OutputError: `out` cannot be written, or is not empty.
    """
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose another folder to write")
    model = load(source, config, ema)
    origin = model.provenance
    assert origin  # as of everything that `load` returns
    assert isinstance(model.net, nn.Module)
    if (ours := origin.config) is None:
        raise CheckpointError(f"{origin.folder} is run by diffusers, not by our UNet, and cannot be converted")
    kind = to or ("diffusers" if origin.kind == "ddim_ode" else "ddim_ode")
    dtype = FLOATS.get(origin.dtype, torch.float32)
    weights = {name: value.to(dtype) for name, value in model.net.state_dict().items()}
    with new_folder(out) as folder:
        if kind == "diffusers":
            save_diffusers(folder, ours, weights)
        else:
            save(folder, ours, weights, dtype)
    return Converted(kind, str(dtype).removeprefix("torch."), origin.ema, origin.ignored)
