"""IDX files that promise more than they hold, or hold more than they promise: neither costs memory or time."""

import gzip
import os
import tracemalloc
import zlib
from pathlib import Path

import pytest
import torch

from ddim_ode.data import DataError
from ddim_ode.support.idx import read_idx
from tests.helpers.assertions import one_line

MAGIC = b"\0\0\x08\x03"


def header(count: int, side: int = 2) -> bytes:
    return MAGIC + b"".join(length.to_bytes(4, "big") for length in (count, side, side))


def written(folder: Path, content: bytes, packed: bool) -> Path:
    file = folder / f"a-idx3-ubyte{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(content) if packed else content)
    return file


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_items_are_read(tmp_path, packed, count):
    found = read_idx(written(tmp_path, header(count) + bytes(range(4 * count)), packed), (2, 2), DataError)
    assert torch.equal(found, torch.arange(4 * count, dtype=torch.uint8).reshape(count, 2, 2))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(2**32 - 1) + bytes(8), "a count of 4,294,967,295 items, which are more than 1,024 MB"),
        (header(2**28) + bytes(8), "expected 1073741840"),
        (header(2) + bytes(7), "found 23 bytes, expected 24"),
        (header(0), "at least one item"),
        (header(1, side=3) + bytes(9), r"shape (3, 3), expected (2, 2)"),
        (MAGIC, "a header of 16"),
        (b"", "magic number 0x, expected"),
    ],
)
def test_a_header_is_held_to(tmp_path, packed, content, words):
    tracemalloc.start()
    try:
        assert words in one_line(DataError, read_idx, written(tmp_path, content, packed), (2, 2), DataError)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_bomb_is_not_unpacked(tmp_path):
    pack = zlib.compressobj(1, wbits=31)
    block = bytes(2**22)
    bomb = pack.compress(header(2)) + b"".join(pack.compress(block) for _ in range(8)) + pack.flush()
    (tmp_path / "a.gz").write_bytes(bomb)
    tracemalloc.start()
    try:
        assert "found at least 25 bytes, expected 24" in one_line(
            DataError, read_idx, tmp_path / "a.gz", (2, 2), DataError
        )
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a", "a.gz"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: os.symlink("/dev/zero", file)])
def test_what_is_no_file_is_refused_without_a_wait(tmp_path, name, make):
    make(tmp_path / name)
    assert str(tmp_path / name) in one_line(DataError, read_idx, tmp_path / name, (2, 2), DataError)
