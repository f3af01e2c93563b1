"""Models on disk: a folder with `config.yaml` (see `config.ModelConfig`) and `model.safetensors`.

Weights are stored in half precision and computed in float32. No pickle is ever executed.
"""

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddim_ode.config import ModelConfig, read_yaml
from ddim_ode.data import ASSETS
from ddim_ode.denoiser import Denoiser
from ddim_ode.files import replacing
from ddim_ode.unet import UNet


class CheckpointError(ValueError):
    """A model that cannot be loaded; the message names the file and what is wrong with it."""


def bundled() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(file.parent.name for file in ASSETS.glob("*/config.yaml"))


def load(what: str | os.PathLike[str]) -> Denoiser:
    """A model by the name of a bundled one ("fashion") or by its folder, on the CPU in float32.

    Raises:
        CheckpointError: no such model, or files that are damaged or do not belong together.
        ConfigError: `config.yaml` is not valid.
    """
    folder = ASSETS / what if str(what) in bundled() else Path(what)
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no model {str(what)!r}; give the folder of a model, or one of: {', '.join(bundled())}"
        )
    config = read_yaml(ModelConfig, folder / "config.yaml")
    file = folder / "model.safetensors"
    weights = load_safetensors(file)
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{file}: the weights of {name} hold NaN or infinity; use another checkpoint")
    info = {"folder": str(folder), "file": str(file), "sha256": sha256(file)}
    try:
        return build(config, weights, info)
    except RuntimeError as error:  # load_state_dict lists what does not fit, over many lines
        lines = str(error).split("\n\t")[1:3]
        raise CheckpointError(f"{file} does not fit {folder / 'config.yaml'}: {'; '.join(lines)}") from None


def build(config: ModelConfig, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> Denoiser:
    """A denoiser from a configuration and the weights of its UNet; a copy, in float32 and ready to evaluate."""
    net = UNet(config.network)
    net.load_state_dict({name: value.float() for name, value in weights.items()})
    return Denoiser(
        net=net.eval().requires_grad_(False),
        path=config.schedule.path(),
        predicts=config.predicts,
        shape=config.network.shape,
        num_classes=config.network.num_classes,
        info={"config": config, **(info or {})},
    )


def save(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a model's folder, each file atomically; weights are rounded to half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in weights.items()}
    with replacing(folder / "model.safetensors") as tmp:
        save_file(half, tmp, metadata={"format": "pt"})
    with replacing(folder / "config.yaml") as tmp:
        tmp.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError when it is missing, cut or not such a file."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing; a model's folder holds config.yaml and model.safetensors") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); copy or download it again") from None


def load_torch(file: Path) -> Any:
    """A torch.save file, tensors and plain containers only.

    Raises:
        CheckpointError: it is cut, or it is a pickle that would run code.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{file} is a pickle that would run code when loaded, so it was refused; save its tensors as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{file} is damaged ({str(error).splitlines()[0]}); use another checkpoint") from None


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
