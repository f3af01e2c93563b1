"""Models on disk. Ours are folders with `config.yaml` (see `models.config.ModelConfig`) and `model.safetensors`.

`load` also reads what others have written: see `diffusers_folder` and `states`. Weights are computed in float32. No
pickle is ever executed.
"""

import os
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.checkpoints.building import build, provenance_in
from ddim_ode.checkpoints.diffusers_folder import is_diffusers, load_diffusers
from ddim_ode.checkpoints.files import (
    CheckpointError,
    CheckpointWarning,
    is_pickle,
    load_safetensors,
    load_torch,
    read_metadata,
    read_weights,
    sha256,
)
from ddim_ode.checkpoints.hub import fetch, is_hub_id
from ddim_ode.checkpoints.states import WEIGHTS as STATES
from ddim_ode.checkpoints.states import configs, find, load_state
from ddim_ode.data import ASSETS
from ddim_ode.errors import one_line
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.plausibility import PredictionWarning, probe
from ddim_ode.support.checks import flag, of_kind, shown
from ddim_ode.support.files import reported
from ddim_ode.support.reading import KINDS, read_text
from ddim_ode.support.tensors import write_tensors
from ddim_ode.support.validation import read_yaml, sealed_yaml, write_yaml

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "PredictionWarning",
    "build",
    "bundled",
    "is_local",
    "load",
    "load_safetensors",
    "load_torch",
    "save",
    "sha256",
]

OURS = "model.safetensors"
CASCADE = "cascade.yaml"  # in the folder of several models


def bundled() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(file.parent.name for file in ASSETS.glob("*/config.yaml"))


def is_local(what: str | os.PathLike[str]) -> bool:
    """Whether `load` finds it without asking the hub: it is bundled, or there is such a file or folder."""
    return str(what) in bundled() or os.path.lexists(what)


def load(
    what: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    ema: bool = True,
    check: bool = True,
    *,
    offline: bool = False,
) -> Denoiser:
    """A model by the name of a bundled one ("fashion") or by where it is, on the CPU in float32.

    Args:
        what: the name of a bundled model; or a folder of ours; or a folder of diffusers, of a pipeline around a
            `UNet2DModel` or of such a model, or the id of one on the hub ("google/ddpm-cifar10-32"), where
            `huggingface_hub` is installed; or a checkpoint of the DDIM or DDPM code, `ckpt.pth` or
            `diffusion_*_model.ckpt`, or of guided-diffusion, or the folder of one; or a safetensors file of the
            weights in such a checkpoint.
        config: describes the network of such a checkpoint: a YAML file in the form of the DDIM code, or of the flags
            of guided-diffusion (default: the one YAML file beside it).
        ema: take the averaged weights of a checkpoint that holds both; False takes the last ones.
        check: `probe` a model that is not of ours, which costs about 8 passes of its network, and give a
            `PredictionWarning` if it does not seem to predict what its files say.
        offline: do not ask the hub: of its models, take what is in the cache. Otherwise a `CheckpointWarning` says
            that it is asked.

    Returns:
        A `Denoiser`, whose `provenance` says where it came from.

    Raises:
        CheckpointError: no such model, or files that are damaged, do not belong together or mean a network that
            cannot be had here.
        ConfigError: `config.yaml` is not valid.
        ArgumentError: an argument is of another kind.
    """
    check_path("what", what)
    if config is not None:
        check_path("config", config)
    for name, value in {"ema": ema, "check": check, "offline": offline}.items():
        flag(name, value)
    model = _load(what, config, ema, offline)
    assert model.provenance  # of everything that comes from files
    if model.provenance.kind in ("ddim_ode", "diffusers"):
        if config is not None:
            raise CheckpointError(
                f"{what} says itself what it is; leave config={shown(str(config), 200)} (--config) out"
            )
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


def check_path(name: str, path: object) -> None:
    """Raise ArgumentError or CheckpointError for what no path can be."""
    give = "a name or a path, as a str or a Path"
    of_kind(name, path, (str, os.PathLike), give)
    assert isinstance(path, str | os.PathLike)
    text = os.fspath(path)
    of_kind(name, text, str, give)
    if not text or "\0" in text:
        raise CheckpointError(f"{name}={shown(text)} is no path; it must have a letter, and no zero byte")


def _load(what: str | os.PathLike[str], config: str | os.PathLike[str] | None, ema: bool, offline: bool) -> Denoiser:
    where = ASSETS / what if str(what) in bundled() else Path(what)
    mode = _mode(where)
    if ((where if mode else ASSETS / what) / CASCADE).is_file():
        raise CheckpointError(f"{what} is a cascade of models; `ddim-ode sample`, `upscale` and Cascade.load take it")
    if mode is None:
        if not is_hub_id(str(what)):
            raise CheckpointError(
                f"there is no model {shown(str(what), 200)}; give the folder of a model, or one of:"
                f" {', '.join(bundled())}"
            )
        where = fetch(str(what), offline)
    elif stat.S_ISREG(mode):
        if not _is_state(where, config):
            raise CheckpointError(
                f"{where} is a file; give the folder of a model, which holds config.yaml and model.safetensors"
            )
        return load_state(where, config, ema)
    elif not stat.S_ISDIR(mode):
        kind = next((words for test, words in KINDS.items() if test(mode)), "something else")
        raise CheckpointError(f"{where} is {kind}, and no model; give the folder or the file of one")
    if is_diffusers(where):
        return load_diffusers(where)
    if not _exists(where / "config.yaml") and _exists(where / "model/config.yaml"):
        raise CheckpointError(f"{where} is the folder of a training run; its model is {where / 'model'}")
    if not _exists(where / OURS) or not _exists(where / "config.yaml"):
        found = find(where)
        if found and (found.name != OURS or config is not None or configs(where)):
            return load_state(found, config, ema)
    return _load_ours(where)


def _mode(where: Path) -> int | None:
    """What the system says that a path is; None where there is nothing."""
    try:
        return os.stat(where).st_mode
    except (FileNotFoundError, NotADirectoryError, UnicodeEncodeError):
        return None
    except OSError as error:
        raise CheckpointError(f"{one_line(str(where), 200)} cannot be read: {error.strerror}; give another") from None


def _is_state(file: Path, config: str | os.PathLike[str] | None) -> bool:
    """Whether a file is to be read with a YAML file, and is not a part of the folder of a model."""
    if file.suffix != ".safetensors":
        return file.suffix in STATES or is_pickle(file)
    parts = {OURS: "config.yaml", "diffusion_pytorch_model.safetensors": "config.json"}
    return config is not None or not (file.name in parts and _exists(file.with_name(parts[file.name])))


def _exists(file: Path) -> bool:
    return os.path.lexists(file)


def _load_ours(folder: Path) -> Denoiser:
    config = read_yaml(ModelConfig, folder / "config.yaml")
    file = folder / OURS
    weights, told, line = read_weights(file), read_metadata(file).get("config"), _first_line(folder / "config.yaml")
    if told and line.startswith("# sha256") and told != line:  # a line that was deleted says that a change is meant
        raise CheckpointError(f"{file} was written with another config.yaml; put that one back, or write both again")
    origin = provenance_in("ddim_ode", folder, file, weights, schedule=config.schedule, config=config)
    try:
        return build(config, weights, origin)
    except RuntimeError as error:  # load_state_dict lists what does not fit, over many lines
        reason = " ".join(str(error).partition("\n\t")[2].split())
        raise CheckpointError(f"{file} does not fit {folder / 'config.yaml'}: {reason:.200}") from None


def _first_line(config: Path) -> str:
    """Which is a digest of the rest."""
    return read_text(config, CheckpointError).partition("\n")[0].strip()


def save(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model's folder, each file atomically and with a digest of itself; weights are rounded to `dtype`.

    Raises:
        CheckpointError: a weight is NaN, infinite, or too large for `dtype`.
        OutputError: the folder cannot be written, or the disk is full.
    """
    folder = Path(folder)
    stored = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    for name, value in stored.items():
        if not torch.isfinite(value).all():
            kind = str(dtype).removeprefix("torch.")
            raise CheckpointError(
                f"the weights of {name} are NaN, infinite, or too large for {kind}; nothing was written"
            )
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    told = config.model_dump(mode="json")
    write_tensors(folder / OURS, stored, {"format": "pt", "config": sealed_yaml(told).partition("\n")[0]})
    write_yaml(folder / "config.yaml", told)
