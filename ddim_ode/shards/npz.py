"""All shards in the one file that `np.load` and the field's evaluators take: bytes (N, H, W, C) as arr_0, labels arr_1.

It is not compressed, so that the rows of a shard are at a known place of it, from which they can be had back.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from ddim_ode.support.files import replacing
from ddim_ode.support.shards import ARRAYS

BLOCK = 2**20  # bytes that are copied at once
EPOCH = (1980, 1, 1, 0, 0, 0)  # when every member was made, so that the same samples give the same bytes


def join(
    folder: Path,
    shape: Sequence[int],
    counts: Sequence[int],
    places: Sequence[tuple[Path, int]],
    labels: Sequence[int] | None,
) -> None:
    """Write samples.npz.

    counts: how many rows each shard has; places: the file that has them, and where in it they begin.

    Raises OutputError.
    """
    with replacing(folder / ARRAYS) as new, ZipFile(new, "w", ZIP_STORED) as archive:
        with _images(archive, shape, sum(counts)) as array:
            for count, (file, begin) in zip(counts, places, strict=True):
                with open(file, "rb") as source:
                    source.seek(begin)
                    for block in blocks_of(source, count * math.prod(shape)):
                        array.write(block)
        if labels is not None:
            with _array(archive, "arr_1", "<i8", (len(labels),)) as array:
                array.write(np.asarray(labels, "<i8").tobytes())


def begin_of_rows(shape: Sequence[int], total: int) -> int:
    """The place of the first row in such a file."""
    head = BytesIO()
    with ZipFile(head, "w", ZIP_STORED) as archive, _images(archive, shape, total):
        return head.tell()


def blocks_of(source: IO[bytes], size: float = math.inf) -> Iterator[bytes]:
    """The next bytes of a file, so many, or as many as there are."""
    while size and (block := source.read(int(min(BLOCK, size)))):
        yield block
        size -= len(block)


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
