"""Checkpoints of the original programs: a torch.save file of weights and a YAML file that says what they mean.

The DDIM code saves a list [model, optimizer, epoch, step, EMA of the weights], the others a plain dict. See `original`
and `guided` for the YAML file and the names.
"""

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ddim_ode.checkpoints import guided, original
from ddim_ode.checkpoints.building import build, provenance_in
from ddim_ode.checkpoints.files import CheckpointError, check_finite, is_state, kind_of, load_torch
from ddim_ode.checkpoints.fitting import fit
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.support.validation import ConfigError

WEIGHTS = (".pth", ".ckpt", ".pt")
CONFIGS = (".yml", ".yaml")


def load_state(file: Path, config_file: str | os.PathLike[str] | None = None, ema: bool = True) -> Denoiser:
    """The model of a checkpoint and its configuration, on the CPU in float32.

    config_file: None is the one YAML file beside the checkpoint. ema: take the averaged weights, where there are any.

    Raises:
        CheckpointError: the checkpoint is damaged, a pickle that would run code, or not of such a network.
        ConfigError: the configuration is not valid, or of a network or data that cannot be had here.
    """
    found = load_torch(file)
    yaml_file = config_beside(file) if config_file is None else Path(config_file)
    values = _read_yaml(yaml_file)
    ignored = []
    if guided.is_guided(values):
        kind = "guided-diffusion code"
        config, flags = guided.read_flags(values, yaml_file)
        state, averaged = _pick(found, file, ema)
        if flags.learn_sigma:
            ignored.append("learned variance")
            state = guided.without_variance(state)
        weights = fit(state, guided.names(config.network), config.network, file)
        if not flags.use_new_attention_order:
            weights = guided.heads_inside(weights, config.network)
    else:
        kind = "DDIM code"
        config = original.read_config(values, yaml_file)
        state, averaged = _pick(found, file, ema)
        weights = fit(state, original.names(config.network), config.network, file)
    facts: dict[str, Any] = {"schedule": config.schedule, "ema": averaged, "ignored": tuple(ignored), "config": config}
    return build(config, weights, provenance_in(kind, file.parent, file, weights, **facts))


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
        f"{file} needs its configuration, a YAML file of the code that made it, and {beside}"
        "; put one there, or name it: load(file, config=...), or --config of info and convert"
    )


def _pick(found: Any, file: Path, ema: bool) -> tuple[Mapping[str, Tensor], str]:
    """The weights to use, and whether they are averages: "yes", "no" or "not stated"."""
    if isinstance(found, list) and found and is_state(found[0]):
        averages = found[4] if len(found) > 4 and is_state(found[4]) else None
        state, averaged = (averages, "yes") if ema and averages is not None else (found[0], "no")
    elif is_state(found):
        state, averaged = found, "yes" if file.name.startswith("ema_") else "not stated"  # as those programs name them
    else:
        raise CheckpointError(
            f"{file} holds {kind_of(found)}; a dict of tensors, or a list that begins with one, was expected"
        )
    prefix = "module." if all(name.startswith("module.") for name in state) else ""  # of DataParallel
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    check_finite(state, file)
    return state, averaged


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
