"""Models on disk: a folder with `config.yaml` (see `config.ModelConfig`) and `model.safetensors`.

Weights are stored in half precision and computed in float32. No pickle is ever executed.
"""

import hashlib
import os
import pickle
import warnings
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
from ddim_ode.errors import DDIMError
from ddim_ode.files import replacing
from ddim_ode.unet import UNet


class CheckpointError(DDIMError):
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
    if folder.is_file():
        if _is_pickle(folder):
            load_torch(folder)  # a pickle that would run code is refused as such
        raise CheckpointError(
            f"{folder} is a file; give the folder of a model, which holds config.yaml and model.safetensors"
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no model {str(what)!r}; give the folder of a model, or one of: {', '.join(bundled())}"
        )
    if not (folder / "config.yaml").exists() and (folder / "model/config.yaml").exists():
        raise CheckpointError(f"{folder} is the folder of a training run; its model is {folder / 'model'}")
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
        reason = " ".join(str(error).partition("\n\t")[2].split())
        raise CheckpointError(f"{file} does not fit {folder / 'config.yaml'}: {reason:.200}") from None


def build(config: ModelConfig, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> Denoiser:
    """A denoiser from a configuration and the weights of its UNet; a copy, in float32 and ready to evaluate."""
    with torch.device("meta"):  # no random start: it would move the global generator, and takes its time
        net = UNet(config.network)
    net.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in weights.items()}, assign=True)
    return Denoiser(
        net=net.eval().requires_grad_(False),
        path=config.schedule.path(),
        predicts=config.predicts,
        shape=config.network.shape,
        num_classes=config.network.num_classes,
        info={"config": config, **(info or {})},
    )


def save(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a model's folder, each file atomically; weights are rounded to half precision.

    Raises:
        CheckpointError: a weight is NaN, or too large for half precision.
    """
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in weights.items()}
    for name, value in half.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"the weights of {name} do not fit half precision (NaN, or above 65504)")
    folder.mkdir(parents=True, exist_ok=True)
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
        if file.is_file() and _is_pickle(file):
            raise CheckpointError(
                f"{file} is a pickle, which could run code when loaded, so it was refused; save it as safetensors"
            ) from None
        raise CheckpointError(f"{file} is damaged ({error}); copy or download it again") from None


def _is_pickle(file: Path) -> bool:
    """By its first bytes: a zip archive, as torch.save writes, or the opcode PROTO and a protocol number."""
    with open(file, "rb") as f:
        start = f.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def load_torch(file: Path) -> Any:
    """A torch.save file, tensors and plain containers only.

    Raises:
        CheckpointError: it is cut, or it is a pickle that would run code.
    """
    try:
        with warnings.catch_warnings():  # about pickle protocols: it loads, or it is refused below
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle can fail in any way
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(file):
            raise CheckpointError(
                f"{file} is a pickle that would run code when loaded, so it was refused"
                "; save its tensors as safetensors"
            ) from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{file} is damaged ({reason}); use another checkpoint") from None


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(file, "rb") as f:
        while block := f.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def describe(model: Denoiser) -> dict[str, Any]:
    """What `ddim-ode info` shows."""
    config, file = model.info["config"], Path(model.info["file"])
    network = config.network
    assert isinstance(model.net, torch.nn.Module)  # `load` gives no other
    return {
        "shape": list(model.shape),
        "classes": model.num_classes,
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "description": f"UNet of {', '.join(map(str, network.channels))} channels, {config.schedule.name} schedule",
        "predicts": model.predicts,
        "schedule": config.schedule.name,
        "timesteps": config.schedule.timesteps,
        "sigma_range": [model.sigma_min, model.sigma_max],
        "weights": str(file),
        "bytes": file.stat().st_size,
        "sha256": model.info["sha256"],
    }
