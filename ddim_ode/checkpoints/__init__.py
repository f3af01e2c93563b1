"""Models on disk. Ours are folders with `config.yaml` (see `models.config.ModelConfig`) and `model.safetensors`.

`load` also reads what others have written: see `diffusers_folder` and `states`. Weights are computed in float32. No
pickle is ever executed.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from ddim_ode.checkpoints.building import build, provenance_in
from ddim_ode.checkpoints.diffusers_folder import is_diffusers, load_diffusers
from ddim_ode.checkpoints.files import (
    CheckpointError,
    CheckpointWarning,
    check_finite,
    is_pickle,
    load_safetensors,
    load_torch,
    sha256,
)
from ddim_ode.checkpoints.hub import fetch, is_hub_id
from ddim_ode.checkpoints.states import find, load_state
from ddim_ode.data import ASSETS
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.plausibility import PredictionWarning, probe
from ddim_ode.support.files import replacing
from ddim_ode.support.validation import read_yaml

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "PredictionWarning",
    "build",
    "bundled",
    "load",
    "load_safetensors",
    "load_torch",
    "save",
    "sha256",
]


def bundled() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(file.parent.name for file in ASSETS.glob("*/config.yaml"))


def load(
    what: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    ema: bool = True,
    check: bool = True,
) -> Denoiser:
    """A model by the name of a bundled one ("fashion") or by where it is, on the CPU in float32.

    Args:
        what: the name of a bundled model; or a folder of ours; or a folder of diffusers, of a pipeline around a
            `UNet2DModel` or of such a model, or the id of one on the hub ("google/ddpm-cifar10-32"), where
            `huggingface_hub` is installed; or a checkpoint of the DDIM or DDPM code, `ckpt.pth` or
            `diffusion_*_model.ckpt`, or of guided-diffusion, or the folder of one.
        config: describes the network of such a checkpoint: a YAML file in the form of the DDIM code, or of the flags
            of guided-diffusion (default: the one YAML file beside it).
        ema: take the averaged weights of a checkpoint that holds both; False takes the last ones.
        check: `probe` a model that is not of ours, which costs about 8 passes of its network, and give a
            `PredictionWarning` if it does not seem to predict what its files say.

    Returns:
        A `Denoiser`, whose `provenance` says where it came from.

    Raises:
        CheckpointError: no such model, or files that are damaged, do not belong together or mean a network that
            cannot be had here.
        ConfigError: `config.yaml` is not valid.
    """
    model = _load(what, config, ema)
    assert model.provenance  # of everything that comes from files
    if model.provenance.kind in ("ddim_ode", "diffusers"):
        if config is not None:
            raise CheckpointError(f"{what} says itself what it is; leave config={str(config)!r} (--config) out")
        if not ema:
            raise CheckpointError(f"{what} holds one set of weights; leave ema=False (--no-ema) out")
    if check and model.provenance.kind != "ddim_ode":
        _check(model, model.provenance.file)
    return model


def _check(model: Denoiser, file: str) -> None:
    """Warn the caller of `load`, in one line."""
    try:
        found = probe(model)
        doubt = f"it {found}" if found.likely else None
    except NonFiniteError as error:
        doubt = str(error)
    if doubt:
        warnings.warn(f"{file}: {doubt}", PredictionWarning, stacklevel=3)


def _load(what: str | os.PathLike[str], config: str | os.PathLike[str] | None, ema: bool) -> Denoiser:
    where = ASSETS / what if str(what) in bundled() else Path(what)
    if where.is_file():
        if not is_pickle(where):
            raise CheckpointError(
                f"{where} is a file; give the folder of a model, which holds config.yaml and model.safetensors"
            )
        return load_state(where, config, ema)
    if not where.is_dir():
        if not is_hub_id(str(what)):
            raise CheckpointError(
                f"there is no model {str(what)!r}; give the folder of a model, or one of: {', '.join(bundled())}"
            )
        where = fetch(str(what))
    if is_diffusers(where):
        return load_diffusers(where)
    if not (where / "config.yaml").exists() and (where / "model/config.yaml").exists():
        raise CheckpointError(f"{where} is the folder of a training run; its model is {where / 'model'}")
    if not (where / "model.safetensors").exists() and (found := find(where)):
        return load_state(found, config, ema)
    return _load_ours(where)


def _load_ours(folder: Path) -> Denoiser:
    config = read_yaml(ModelConfig, folder / "config.yaml")
    file = folder / "model.safetensors"
    weights = load_safetensors(file)
    check_finite(weights, file)
    origin = provenance_in("ddim_ode", folder, file, weights, schedule=config.schedule, config=config)
    try:
        return build(config, weights, origin)
    except RuntimeError as error:  # load_state_dict lists what does not fit, over many lines
        reason = " ".join(str(error).partition("\n\t")[2].split())
        raise CheckpointError(f"{file} does not fit {folder / 'config.yaml'}: {reason:.200}") from None


def save(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> None:
    """Write a model's folder, each file atomically; weights are rounded to `dtype`.

    Raises:
        CheckpointError: a weight is NaN, infinite, or too large for `dtype`.
    """
    stored = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    for name, value in stored.items():
        if not torch.isfinite(value).all():
            kind = str(dtype).removeprefix("torch.")
            raise CheckpointError(
                f"the weights of {name} are NaN, infinite, or too large for {kind}; nothing was written"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.safetensors") as tmp:
        save_file(stored, tmp, metadata={"format": "pt"})
    with replacing(folder / "config.yaml") as tmp:
        tmp.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
