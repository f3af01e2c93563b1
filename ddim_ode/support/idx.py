"""The IDX format of MNIST: magic (0, 0, 8 = ubyte, rank), `rank` big-endian uint32 lengths, then the bytes."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.reading import MB, open_regular

MOST = 1024 * MB  # of items, unpacked
BLOCK = 4 * MB


def read_idx(file: Path, item: tuple[int, ...], error: type[DDIMError]) -> Tensor:
    """The items of a file, gzipped if it ends in .gz, as uint8 (N, *item). No more is unpacked than the header says.

    Raises `error`: the file cannot be read or is no regular file, is truncated, corrupt or larger than `MOST`, or holds
    other items or another number of them than it says, or none.
    """
    with open_regular(file, error, "fetch it again") as opened:
        try:
            if file.suffix == ".gz":
                with gzip.GzipFile(fileobj=opened) as unpacked:
                    return _read(unpacked, file, item, error)  # type: ignore[arg-type]  # it reads as a file does
            return _read(opened, file, item, error)
        except EOFError:
            raise error(f"{file}: found a truncated gzip file, expected a complete one; fetch it again") from None
        except (OSError, zlib.error) as fault:
            raise error(f"{file}: found unreadable data ({fault}), expected an IDX file; fetch it again") from None


def _read(opened: BinaryIO, file: Path, item: tuple[int, ...], error: type[DDIMError]) -> Tensor:
    rank = 1 + len(item)
    magic, length = bytes((0, 0, 8, rank)), 4 + 4 * rank
    header = opened.read(length)
    if header[:4] != magic:
        raise error(
            f"{file}: found magic number 0x{header[:4].hex()}, expected 0x{magic.hex()} (IDX, bytes, rank {rank})"
        )
    if len(header) < length:
        raise error(f"{file}: found {len(header)} bytes, expected a header of {length}")
    count, *found = (int.from_bytes(header[i : i + 4], "big") for i in range(4, length, 4))
    if tuple(found) != item:
        raise error(f"{file}: found items of shape {tuple(found)}, expected {item}")
    expected = count * math.prod(item)
    if expected > MOST:
        raise error(f"{file}: found a count of {count:,} items, which are more than {MOST // MB:,} MB; fetch it again")
    if not _could_hold(opened, file, length + expected):
        raise error(_other_size(file, os.fstat(opened.fileno()).st_size, length + expected, count))
    raw = bytearray()
    while len(raw) <= expected and (block := opened.read(min(BLOCK, expected + 1 - len(raw)))):
        raw += block
    if count == 0 or len(raw) != expected:
        raise error(_other_size(file, length + len(raw), length + expected, count))
    return torch.frombuffer(raw, dtype=torch.uint8).reshape(count, *item)


def _could_hold(opened: BinaryIO, file: Path, size: int) -> bool:
    """Whether a file may be what its header says: a plain one has that size."""
    return file.suffix == ".gz" or os.fstat(opened.fileno()).st_size == size


def _other_size(file: Path, found: int, expected: int, count: int) -> str:
    least = "at least " if found > expected and file.suffix == ".gz" else ""
    return (
        f"{file}: found {least}{found} bytes, expected {expected} for its count of {count} items, and at least one item"
    )
