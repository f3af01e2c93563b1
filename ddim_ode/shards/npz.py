"""All shards in the one file that `np.load` and the field's evaluators take: bytes (N, H, W, C) as arr_0, labels arr_1.

It is not compressed, so that the rows of a shard are at a known place of it, from which they can be had back.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from ddim_ode.shards.jobs import ShardError
from ddim_ode.support.files import replacing
from ddim_ode.support.reading import open_regular
from ddim_ode.support.shards import ARRAYS

BLOCK = 2**20  # bytes that are copied at once
EPOCH = (1980, 1, 1, 0, 0, 0)  # when every member was made, so that the same samples give the same bytes


class Extent(NamedTuple):
    """Where some bytes are: all of a file, or a part of it."""

    file: Path
    begin: int = 0
    size: float = math.inf  # as many as there are

    def blocks(self) -> Iterator[bytes]:
        """The bytes, some at a time. Raises ShardError where they cannot be read."""
        try:
            with open_regular(self.file, ShardError) as source:
                source.seek(self.begin)
                left = self.size
                while left and (block := source.read(int(min(BLOCK, left)))):
                    yield block
                    left -= len(block)
        except OSError as error:
            raise ShardError(f"{self.file} cannot be read: {error.strerror}; run it again") from None

    def digest(self) -> str:
        """The SHA-256 of the bytes. Raises ShardError where they cannot be read."""
        found = hashlib.sha256()
        for block in self.blocks():
            found.update(block)
        return found.hexdigest()


def join(
    folder: Path,
    shape: Sequence[int],
    total: int,
    rows: Sequence[Extent],
    labels: Sequence[int] | None,
) -> None:
    """Write samples.npz.

    rows: where those of each shard are, `total` in all.

    Raises OutputError, and ShardError for rows that cannot be read, or are not as many.
    """
    with replacing(folder / ARRAYS) as new, ZipFile(new, "w", ZIP_STORED) as archive:
        with _images(archive, shape, total) as array:
            written = sum(array.write(block) for extent in rows for block in extent.blocks())
        if written != total * math.prod(shape):
            raise ShardError(
                f"{folder} has {written:,} bytes of pictures, and not {total:,} of {tuple(shape)}; run it again"
            )
        if labels is not None:
            with _array(archive, "arr_1", "<i8", (len(labels),)) as array:
                array.write(np.asarray(labels, "<i8").tobytes())


def begin_of_rows(shape: Sequence[int], total: int) -> int:
    """The place of the first row in such a file."""
    head = BytesIO()
    with ZipFile(head, "w", ZIP_STORED) as archive, _images(archive, shape, total):
        return head.tell()


@contextmanager
def _images(archive: ZipFile, shape: Sequence[int], total: int) -> Iterator[IO[bytes]]:
    channels, height, width = shape
    with _array(archive, "arr_0", "|u1", (total, height, width, channels)) as array:
        yield array


@contextmanager
def _array(archive: ZipFile, name: str, kind: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """A member to write the numbers of an array to."""
    with archive.open(ZipInfo(f"{name}.npy", EPOCH), "w", force_zip64=True) as array:
        np.lib.format.write_array_header_1_0(array, {"descr": kind, "fortran_order": False, "shape": shape})
        yield array
