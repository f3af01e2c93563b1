"""Files of weights: safetensors, torch.save files read as tensors and plain containers only, and either in shards.

No pickle is ever executed.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddim_ode.checkpoints import dialects
from ddim_ode.checkpoints.faults import CheckpointError, CheckpointWarning
from ddim_ode.checkpoints.torch_files import is_pickle, load_torch
from ddim_ode.errors import one_line
from ddim_ode.support import reading
from ddim_ode.support.resources import check_memory
from ddim_ode.support.tensors import metadata_of, read_tensors

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "is_pickle",
    "load_safetensors",
    "load_torch",
    "load_weights",
    "read_json",
    "read_metadata",
    "read_weights",
    "sha256",
    "shards",
]

AGAIN = "copy or download it again"
MOST_WEIGHTS = 100_000  # names in an index


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of one file, or of the shards that an index (`*.index.json`) lists, by the network's own names.

    Raises:
        CheckpointError: a file is missing, damaged, or a pickle that would run code; or it holds no plain dict of
            tensors; or one of them is not of finite numbers; or the shards are not those of the index.
    """
    weights: dict[str, Tensor] = {}
    where = _weight_map(file)
    for shard in shards(file):
        found, _ = dialects.pick(load_weights(shard), shard)
        for name in found:
            if where is not None and where.get(name) != shard.name:
                place = "does not list" if name not in where else f"has in {where[name]}"
                raise CheckpointError(f"{shard} holds {one_line(name, 100)}, which {file} {place}; {AGAIN}")
        weights |= found
    if where is not None and (missing := where.keys() - weights.keys()):
        name = min(missing)
        raise CheckpointError(f"{file.parent / where[name]} lacks {one_line(name, 100)}, which {file} lists; {AGAIN}")
    weights, _ = dialects.plain(weights)
    dialects.check(weights, file)
    return weights


def load_weights(file: Path) -> Any:
    """What a file of weights holds, safetensors by its name or else of torch.save."""
    return load_safetensors(file) if file.suffix == ".safetensors" else load_torch(file)


def shards(file: Path) -> list[Path]:
    """The files that hold the weights: the file itself, or those that an index lists, in order of their names."""
    where = _weight_map(file)
    return [file] if where is None else [file.parent / name for name in sorted(set(where.values()))]


def _weight_map(file: Path) -> Mapping[str, str] | None:
    """What an index says: weight -> name of a file beside it. None for a file that is no index."""
    if not re.search(r"\.index(\.\w+)?\.json$", file.name):  # with the name of a variant, such as fp16
        return None
    where = read_json(file).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{file} has no weight_map from weights to files; {AGAIN}")
    if len(where) > MOST_WEIGHTS:
        raise CheckpointError(f"{file} lists {len(where)} weights; no network here has more than {MOST_WEIGHTS}")
    for name in where.values():
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise CheckpointError(
                f"{file} names {one_line(repr(name), 100)}, which is not a file beside it; it was refused"
            )
    return where


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError when it is missing, cut or not such a file, or not as
    it was written by us: what others have written does not say.
    """
    if not os.path.lexists(file):
        raise CheckpointError(f"{file} is missing; a model's folder holds config.yaml and model.safetensors")
    with reading.open_regular(file, CheckpointError, AGAIN) as opened:
        begins = opened.read(9)[8:] == b"{"  # after the length of its header, which may look like the start of a pickle
    if not begins and is_pickle(file):
        raise CheckpointError(
            f"{file} is a pickle, which could run code when loaded, so it was refused; save it as safetensors"
        )
    check_memory(os.path.getsize(file), f"{file}", "use a smaller model", CheckpointError)
    tensors, _ = read_tensors(file, CheckpointError, AGAIN, sealed=False)
    return tensors


def read_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says besides its tensors. Raises CheckpointError for a file that is none."""
    return metadata_of(file, CheckpointError, AGAIN)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError when the file is missing or holds something else."""
    found = reading.read_json(file, CheckpointError, AGAIN)
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is not a JSON object; {AGAIN}")
    return found


def sha256(*files: Path) -> str:
    """Hex digest of a file's bytes, or of several files' one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as f:
            while block := f.read(2**20):
                digest.update(block)
    return digest.hexdigest()
