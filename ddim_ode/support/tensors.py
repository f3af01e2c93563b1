"""Tensors in safetensors files that say a digest of themselves, written in one piece or row by row.

The digest is the SHA-256 of the file's bytes, with zeros in its own place, which is at the start of the header. So any
reader of safetensors takes such a file, and `read_tensors` takes any other, unless it must be sealed.
"""

import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.files import OutputError, replacing
from ddim_ode.support.reading import open_regular
from ddim_ode.support.resources import allocating

KINDS: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SEAL = "ddim_ode_sha256"  # the name of the digest in the metadata
BEGIN = b'{"__metadata__":{"%b":"' % SEAL.encode()  # of the header of a sealed file
ZEROS = "0" * 64
PLACE = 8 + len(BEGIN)
BLOCK = 2**20
LARGE = 2**26  # bytes, from which on the disk is asked whether it has them


class TensorFile:
    """A file of tensors to fill: whole ones, or one whose rows come in turn.

    room: bytes for the header, which is written last.
    """

    def __init__(self, file: BinaryIO, target: Path, metadata: Mapping[str, str], room: int):
        self.target = target
        self.file, self.begin, self.end, self.left = file, 8 + room, 0, 0
        self.header: dict[str, Any] = {"__metadata__": {SEAL: ZEROS, **metadata}}

    def reserve(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        """Make room for a tensor. Raises OutputError where the disk has too little."""
        size = math.prod(shape) * dtype.itemsize
        if size > LARGE and size > (free := shutil.disk_usage(Path(self.file.name).parent).free):
            need = f"{size / 1e9:,.1f} GB are needed on the disk, and {free / 1e9:,.1f} GB are free"
            raise OutputError(f"{self.target} cannot be written: {need}")
        place = [self.end, self.end + size]
        self.header[name] = {"dtype": KINDS[dtype], "shape": list(shape), "data_offsets": place}
        self.end += size
        self.left += size

    def put(self, name: str, values: Tensor, row: int = 0) -> None:
        """Write rows of a tensor that has its room, the first of them at a place."""
        begin, end = self.header[name]["data_offsets"]
        rows = self.header[name]["shape"][:1] or [1]
        assert KINDS[values.dtype] == self.header[name]["dtype"]
        self.left -= values.numel() * values.dtype.itemsize
        values = values.detach().cpu().contiguous().reshape(-1)
        self.file.seek(self.begin + begin + row * ((end - begin) // max(rows[0], 1)))
        self.file.write(values.view(torch.uint8).numpy().data)

    def add(self, name: str, values: Tensor) -> None:
        """Write a whole tensor."""
        self.reserve(name, values.dtype, values.shape)
        self.put(name, values)

    def close(self) -> None:
        """Write the header, and the digest of it all."""
        text = _text(self.header)
        assert len(text) <= self.begin - 8
        assert not self.left  # every byte was written once
        self.file.truncate(self.begin + self.end)
        self.file.seek(0)
        self.file.write(struct.pack("<Q", self.begin - 8) + text.ljust(self.begin - 8))
        self.file.flush()
        with open(self.file.name, "rb") as written:
            digest = _digest(written)
        self.file.seek(PLACE)
        self.file.write(digest.encode())


@contextmanager
def writing(file: Path, metadata: Mapping[str, str] | None = None, room: int = 4096) -> Iterator[TensorFile]:
    """A sealed file to fill, whole or not at all. Raises OutputError."""
    with replacing(file) as new:
        tensors = TensorFile(new, file, metadata or {}, room)
        yield tensors
        tensors.close()


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a sealed file, whole or not at all. Raises OutputError."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so that each is aligned
    longest = {"dtype": "BOOL", "data_offsets": [10**15, 10**15]}
    header = {name: {**longest, "shape": list(tensors[name].shape)} for name in names}
    text = _text({"__metadata__": {SEAL: ZEROS, **(metadata or {})}, **header})
    with writing(file, metadata, len(text) + -len(text) % 8) as new:
        for name in names:
            new.add(name, tensors[name])


def read_tensors(
    file: Path, error: type[DDIMError], remedy: str, sealed: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; `SEAL` is in it if it has a digest, which is right then.

    The tensors are mapped, not copied, where the library can: the digest is that of the moment of reading.

    Raises `error`: the file is missing, cut short or no such file, or not as it was written; or, if it must be sealed,
    it has no digest.
    """
    need = os.path.getsize(file) if os.path.exists(file) else 0
    has_digest = _has_digest(file, error, remedy)
    if sealed and not has_digest:
        raise error(f"{file} is damaged or no file of ours: it has no digest of itself; {remedy}")
    try:
        with allocating(need, f"{file}", remedy, error), _named(file) as name, safe_open(name, "pt") as stored:
            metadata = stored.metadata() or {}
            if SEAL in metadata and not has_digest:  # it was at its place when we wrote it
                raise error(f"{file} was changed after it was written; {remedy}, or leave {SEAL} out of its metadata")
            # The handle of safetensors has keys(), but cannot be iterated over.
            return {name: stored.get_tensor(name) for name in stored.keys()}, metadata  # noqa: SIM118
    except error:
        raise
    except SafetensorError as fault:
        raise error(f"{file} is damaged or no safetensors file ({fault}); {remedy}") from None
    except Exception as fault:  # the library makes tensors of whatever the header says, which can fail in any way
        raise error(f"{file} is damaged ({fault}); {remedy}") from None


def metadata_of(file: Path, error: type[DDIMError], remedy: str) -> dict[str, str]:
    """What the header of a safetensors file says besides its tensors. Raises `error` for a file that is none."""
    with opened_tensors(file, error, remedy) as stored:
        return stored.metadata() or {}


@contextmanager
def opened_tensors(file: Path, error: type[DDIMError], remedy: str, checked: bool = False) -> Iterator[Any]:
    """The library's handle of a safetensors file, of which a part may be read, as by `get_slice(name)[rows]`.

    Raises `error`: the file is no such file or, with `checked`, has a digest that is not right, for which it is read.
    """
    if checked:
        _has_digest(file, error, remedy)
    try:
        with _named(file) as name, safe_open(name, "pt") as stored:
            yield stored
    except (SafetensorError, OSError) as fault:
        raise error(f"{file} is damaged or no safetensors file ({fault}); {remedy}") from None


@contextmanager
def _named(file: Path) -> Iterator[str]:
    """The name of a file or, of a name that is not UTF-8, which safetensors cannot open, a link's."""
    name = os.fspath(file)
    try:
        name.encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            os.symlink(os.path.abspath(name), f"{folder}/link")
            yield f"{folder}/link"
        return
    yield name


def _has_digest(file: Path, error: type[DDIMError], remedy: str) -> bool:
    """Whether a file begins as a sealed one does. Raises `error` if its digest is another then."""
    with open_regular(file, error, remedy) as opened:
        head = opened.read(PLACE + len(ZEROS))
        if head[8:PLACE] != BEGIN:
            return False
        opened.seek(0)
        if head[PLACE:].decode("ascii", "replace") != _digest(opened):
            raise error(f"{file} is damaged: its digest is another; {remedy}")
    return True


def _text(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def _digest(file: BinaryIO) -> str:
    """The digest of a sealed file, from its start."""
    head = file.read(PLACE)
    file.read(len(ZEROS))
    found = hashlib.sha256(head + ZEROS.encode())
    while block := file.read(BLOCK):
        found.update(block)
    return found.hexdigest()
