"""Images in the .npz files that the field exchanges: arr_0 are bytes (N, H, W, C), arr_1 labels (N,), if there is one.

Of a file that is not compressed the rows are read where they lie. A compressed one is unpacked from its start on, once
for rows that are asked for in their order. Before the first rows are read, all are, for the checksum of the archive.
"""

import math
import struct
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from ddim_ode.data import DataError
from ddim_ode.image_sets.base import ImageSet, digest_of_files
from ddim_ode.support.reading import open_regular

IMAGES, LABELS = "arr_0", "arr_1"
LOCAL = struct.Struct("<26xHH")  # of the header before a member: the lengths of its name and of what follows
REMEDY = "give an .npz whose arr_0 are bytes (N, H, W, 1 or 3)"
ENCRYPTED = 1  # a flag of a member
BLOCK = 2**20
MOST_LABELS = 10**8


class NpzImages(ImageSet):
    """The images of an .npz file. Raises DataError: it is damaged, or holds none."""

    def __init__(self, file: Path):
        self.file, self.name = file, str(file)
        with open_regular(file, DataError, REMEDY) as opened, _reported(file), zipfile.ZipFile(opened) as archive:
            self.member = _member(archive, IMAGES, file)
            self.start, shape, dtype = _header(archive, self.member)
            if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
                raise DataError(f"{file}: found {IMAGES} of {dtype} {shape}; {REMEDY}")
            if self.member.file_size != self.start + math.prod(shape):
                raise DataError(f"{file} is damaged: {IMAGES} is not as long as it says; {REMEDY}")
            self.count, height, width, channels = shape
            self.shape = (channels, height, width)
            self.labels = _labels(archive, self.count, file)
        self.in_place = self.member.compress_type == zipfile.ZIP_STORED
        self.checked = False
        self.stream: IO[bytes] | None = None
        self.closing: Callable[[], object] = lambda: None

    def __len__(self) -> int:
        return self.count

    def read(self, rows: range) -> Tensor:
        size = math.prod(self.shape)
        with _reported(self.file):
            if not self.checked:
                self._check()
            raw = (self._lying if self.in_place else self._unpacked)(self.start + rows.start * size, len(rows) * size)
        channels, height, width = self.shape
        return torch.frombuffer(raw, dtype=torch.uint8).reshape(len(rows), height, width, channels).movedim(-1, 1)

    def identity(self) -> str:
        return digest_of_files([self.file], self.file.parent)

    def _check(self) -> None:
        """Read all once: the archive compares its checksum at the end."""
        with zipfile.ZipFile(self.file) as archive, archive.open(self.member) as stream:
            while stream.read(BLOCK):
                continue
        self.checked = True

    def _lying(self, at: int, size: int) -> bytearray:
        with open_regular(self.file, DataError, REMEDY) as opened:
            opened.seek(self.member.header_offset)
            lengths = LOCAL.unpack(opened.read(LOCAL.size))
            opened.seek(sum(lengths) + at, 1)
            return _exactly(opened, size)

    def _unpacked(self, at: int, size: int) -> bytearray:
        if self.stream is None or self.stream.tell() > at:
            self._unpack_again()
        assert self.stream is not None
        while (rest := at - self.stream.tell()) > 0:
            _exactly(self.stream, min(rest, BLOCK))
        return _exactly(self.stream, size)

    def _unpack_again(self) -> None:
        """Begin at the start of the member; what is open is closed with this set at the latest."""
        self.closing()
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.file))
            self.stream = stack.enter_context(archive.open(self.member))
            self.closing = weakref.finalize(self, stack.pop_all().close)


def members(file: Path) -> list[str]:
    """The names of the arrays of an .npz. Raises DataError for what is none."""
    with open_regular(file, DataError, REMEDY) as opened, _reported(file), zipfile.ZipFile(opened) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _member(archive: zipfile.ZipFile, name: str, file: Path) -> zipfile.ZipInfo:
    with suppress(KeyError):
        member = archive.getinfo(f"{name}.npy")
        if member.flag_bits & ENCRYPTED:
            raise DataError(f"{file} is encrypted; {REMEDY}")
        return member
    found = ", ".join(entry.removesuffix(".npy") for entry in archive.namelist()[:5]) or "nothing"
    raise DataError(f"{file} has no {name}, but {found}; {REMEDY}")


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, tuple[int, ...], np.dtype[np.generic]]:
    """Where the numbers of an array begin, its shape and its dtype."""
    with archive.open(member) as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(opened)
        if fortran and len(shape) > 1:
            raise ValueError("its rows do not lie one after the other")
        return opened.tell(), shape, dtype


def _labels(archive: zipfile.ZipFile, count: int, file: Path) -> Tensor | None:
    if f"{LABELS}.npy" not in archive.namelist():
        return None
    member = archive.getinfo(f"{LABELS}.npy")
    start, shape, dtype = _header(archive, member)
    if shape != (count,) or dtype.kind not in "iu" or member.file_size > MOST_LABELS:
        raise DataError(f"{file}: found {LABELS} of {dtype} {shape}, expected a label an image, ({count},)")
    with archive.open(member) as opened:
        _exactly(opened, start)
        values = np.frombuffer(_exactly(opened, count * dtype.itemsize), dtype=dtype)
    return torch.from_numpy(values.astype(np.int64))


def _exactly(opened: IO[bytes], size: int) -> bytearray:
    found = bytearray()
    while len(found) < size:
        if not (block := opened.read(size - len(found))):
            raise EOFError("it ends too early")
        found += block
    return found


@contextmanager
def _reported(file: Path) -> Iterator[None]:
    """What is wrong with an archive as a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, struct.error, NotImplementedError) as fault:
        raise DataError(f"{file} is damaged or no .npz file ({fault}); {REMEDY}") from None
