"""Runs in shards of a tiny model, and what they have written."""

import hashlib
import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.shards import read_index

NOT_BYTES = (".lock", "manifest.json")  # the latter says how long it took
LABELS = [i % 10 for i in range(11)]
HOW = {"nfe": 3, "seeds": range(11), "labels": LABELS, "batch_size": 2, "shard_size": 4}  # three shards


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file whose bytes do not depend on when and by whom they were written; of a record without
    the time.
    """
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_BYTES):
        data = file.read_bytes()
        if file.parent.name == "shards":
            data = json.dumps({**json.loads(data), "seconds": 0, "sha256": ""}).encode()
        found[file.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def bytes_of(folder: Path) -> Tensor:
    """The pictures in a folder of any format, uint8 (N, H, W), in the order of the run, from files that other libraries
    read.
    """
    index = read_index(folder, DDIMError)
    names = [name for shard in index.shards for name in shard.files]
    if index.format == "safetensors":
        x = torch.cat([load_file(folder / name)["x"] for name in names])
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[:, 0]
    if index.format == "npz":
        return torch.from_numpy(np.load(folder / "samples.npz")["arr_0"])[..., 0]
    if index.format == "png":
        pictures = [Image.open(folder / name) for name in names]
    else:
        pictures = [Image.open(BytesIO(data)) for data in members(folder, ".png").values()]
    return torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures])


def members(folder: Path, suffix: str) -> dict[str, bytes]:
    """What the tar archives of a folder hold under such names."""
    found = {}
    for archive in sorted(folder.glob("*.tar")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.endswith(suffix):
                    found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


def flip(file: Path, place: int = -1) -> None:
    """Change a bit of a file."""
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 1
    file.write_bytes(data)
