"""Checkpoints of the original programs: a file of weights and a YAML file that says what they mean.

The weights are a torch.save file, or a safetensors file that was made of one. The DDIM code saves a list [model,
optimizer, epoch, step, EMA of the weights], the others a plain dict. See `original` and `guided` for the YAML file and
the names, `dialects` for what else may be around the weights.
"""

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ddim_ode.checkpoints import dialects, guided, original
from ddim_ode.checkpoints.building import build, provenance_in
from ddim_ode.checkpoints.faults import CheckpointError
from ddim_ode.checkpoints.files import load_weights
from ddim_ode.checkpoints.fitting import fit
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.support.reading import read_yaml_values
from ddim_ode.support.validation import ConfigError

WEIGHTS = (".pth", ".ckpt", ".pt", ".safetensors")
LATEST = ("ckpt.pth", "ckpt.safetensors")
CONFIGS = (".yml", ".yaml")


def load_state(file: Path, config_file: str | os.PathLike[str] | None = None, ema: bool = True) -> Denoiser:
    """The model of a checkpoint and its configuration, on the CPU in float32.

    config_file: None is the one YAML file beside the checkpoint. ema: take the averaged weights, where there are any.

    Raises:
        CheckpointError: the checkpoint is damaged, a pickle that would run code, or not of such a network.
        ConfigError: the configuration is not valid, or of a network or data that cannot be had here.
    """
    found = load_weights(file)
    yaml_file = config_beside(file) if config_file is None else Path(config_file)
    values = read_yaml_values(yaml_file, ConfigError, tags={NAMESPACE: _mapping})
    picked, averaged = dialects.pick(found, file, ema)
    state, said = dialects.plain(picked)
    averaged = "yes" if said and averaged == "not stated" else averaged
    if averaged == "yes" and not ema:
        raise CheckpointError(f"{file} holds averaged weights only; leave ema=False (--no-ema) out")
    ignored = []
    if guided.is_guided(values):
        kind = "guided-diffusion code"
        config, flags = guided.read_flags(values, yaml_file, guided.rows(state))
        dialects.check(state, file)
        if flags.learn_sigma:
            ignored.append("learned variance")
            state = guided.without_variance(state)
        weights = fit(state, guided.names(config.network), config.network, file)
        if not flags.use_new_attention_order:
            weights = guided.heads_inside(weights, config.network)
    else:
        kind = "DDIM code"
        config = original.read_config(values, yaml_file)
        dialects.check(state, file)
        weights = fit(state, original.names(config.network), config.network, file)
    facts: dict[str, Any] = {"schedule": config.schedule, "ema": averaged, "ignored": tuple(ignored), "config": config}
    return build(config, weights, provenance_in(kind, file.parent, file, weights, **facts))


def find(folder: Path) -> Path | None:
    """The checkpoint in a folder or None; of several it is `ckpt.pth`, which the DDIM code keeps up to date.

    Raises:
        CheckpointError: there are several others.
    """
    found = _with_suffix(folder, WEIGHTS)
    if not found:
        return None
    latest = [file for name in LATEST for file in found if file.name == name][:1] or found
    if len(latest) > 1:
        some = ", ".join(file.name for file in latest[:3])
        raise CheckpointError(f"{folder} has {len(latest)} checkpoints ({some}, ...); give the file of one")
    return latest[0]


def config_beside(file: Path) -> Path:
    """The one YAML file in the folder of a checkpoint. Raises CheckpointError when there is none, or several."""
    found = configs(file.parent)
    if len(found) == 1:
        return found[0]
    beside = f"{len(found)} YAML files are beside it" if found else "none is beside it"
    raise CheckpointError(
        f"{file} needs its configuration, a YAML file of the code that made it, and {beside}"
        "; put one there, or name it: load(file, config=...), or --config of info and convert"
    )


def configs(folder: Path) -> list[Path]:
    """The YAML files in a folder. Raises CheckpointError when it cannot be read."""
    return _with_suffix(folder, CONFIGS)


def _with_suffix(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in suffixes)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}; give another folder") from None


#: the argparse.Namespace as which the DDIM code writes its own configuration
NAMESPACE = "tag:yaml.org,2002:python/object:argparse.Namespace"


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    return loader.construct_mapping(node, deep=True)
