"""A model from one kind of folder to another, its weights not rounded: in the dtype that they were stored in."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from ddim_ode.checkpoints import CheckpointError, check_path, load, save
from ddim_ode.checkpoints.diffusers_folder import save_diffusers
from ddim_ode.support.checks import choice
from ddim_ode.support.files import reported
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


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: Kind | None = None,
    config: str | os.PathLike[str] | None = None,
    ema: bool = True,
    *,
    offline: bool = False,
) -> Converted:
    """Write a model that `load` reads as a folder of ours or of diffusers, by default the one that it is not.

    config, ema and offline are those of `load`. Weights stored in float16, bfloat16 or float32 keep their dtype;
    others, and mixtures, become float32.

    Raises:
        CheckpointError: a model that the other kind cannot hold; or whatever `load` raises.
        OutputError: `out` cannot be written, or is not empty; that is found out before the model is loaded.
        ArgumentError: an argument is of another kind.
    """
    check_path("source", source)
    check_path("out", out)
    if to is not None:
        choice("to", to, get_args(Kind), CheckpointError)
    out = Path(out)
    with reported(out):
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(f"{out} is not empty; choose another folder to write")
    with new_folder(out) as folder:
        model = load(source, config, ema, offline=offline)
        origin = model.provenance
        assert origin  # as of everything that `load` returns
        assert isinstance(model.net, nn.Module)
        if (ours := origin.config) is None:
            raise CheckpointError(f"{origin.folder} is run by diffusers, not by our UNet, and cannot be converted")
        kind: Kind = to or ("diffusers" if origin.kind == "ddim_ode" else "ddim_ode")
        dtype = FLOATS.get(origin.dtype, torch.float32)
        weights = {name: value.to(dtype) for name, value in model.net.state_dict().items()}
        if kind == "diffusers":
            save_diffusers(folder, ours, weights)
        else:
            save(folder, ours, weights, dtype)
    return Converted(kind, str(dtype).removeprefix("torch."), origin.ema, origin.ignored)
