"""Files of weights: safetensors, torch.save files read as tensors and plain containers only, and either in shards.

No pickle is ever executed.
"""

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ddim_ode.errors import DDIMError


class CheckpointError(DDIMError):
    """A model that cannot be loaded; the message names the file and what is wrong with it."""


class CheckpointWarning(UserWarning):
    """Something about a model that was assumed, or that its files say and its network belies."""


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of one file, or of the shards that an index (`*.index.json`) lists.

    Raises:
        CheckpointError: a file is missing, damaged, or a pickle that would run code; or it holds no plain dict of
            tensors; or one of them is not finite.
    """
    weights: dict[str, Tensor] = {}
    for shard in shards(file):
        found = load_safetensors(shard) if shard.suffix == ".safetensors" else load_torch(shard)
        if not is_state(found):
            raise CheckpointError(f"{shard} holds {kind_of(found)}; a dict of tensors was expected")
        weights |= found
    check_finite(weights, file)
    return weights


def shards(file: Path) -> list[Path]:
    """The files that hold the weights: the file itself, or those that an index lists, in order of their names."""
    if not file.name.endswith(".index.json"):
        return [file]
    where = read_json(file).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{file} has no weight_map from weights to files; copy or download it again")
    names = sorted(set(where.values()))
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{file} names {name!r}, which is not a file beside it; it was refused")
    return [file.parent / name for name in names]


def is_state(value: object) -> bool:
    """Whether it is a dict of named tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def check_finite(weights: Mapping[str, Tensor], file: Path) -> None:
    """Raises CheckpointError for weights with NaN or infinity."""
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{file}: the weights of {name} hold NaN or infinity; use another checkpoint")


def kind_of(value: object) -> str:
    """What a value is, in words such as "a list of 3"."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict) else "")


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError when it is missing, cut or not such a file."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing; a model's folder holds config.yaml and model.safetensors") from None
    except (SafetensorError, OSError) as error:
        if file.is_file() and is_pickle(file):
            raise CheckpointError(
                f"{file} is a pickle, which could run code when loaded, so it was refused; save it as safetensors"
            ) from None
        raise CheckpointError(f"{file} is damaged ({error}); copy or download it again") from None


def read_metadata(file: Path) -> dict[str, str]:
    """What the header of a safetensors file says besides its tensors."""
    with safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def is_pickle(file: Path) -> bool:
    """Whether a file begins as a zip archive of torch.save does, or with the opcode PROTO and a protocol number."""
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
        if isinstance(error, pickle.UnpicklingError) and is_pickle(file):
            raise CheckpointError(
                f"{file} is a pickle that would run code when loaded, so it was refused"
                "; save its tensors as safetensors"
            ) from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{file} is damaged ({reason}); use another checkpoint") from None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError when the file is missing or holds something else."""
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not JSON, or not text
        raise CheckpointError(f"{file} is not valid JSON ({error}); copy or download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is not a JSON object; copy or download it again")
    return found


def sha256(*files: Path) -> str:
    """Hex digest of a file's bytes, or of several files' one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as f:
            while block := f.read(2**20):
                digest.update(block)
    return digest.hexdigest()
