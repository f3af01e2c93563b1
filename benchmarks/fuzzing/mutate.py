"""Damage to a file: its bytes, what stands in its place, and what only a file of its format can have.

Each function changes a file in place and returns what it did, in words.
"""

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.fuzzing import containers, structure
from benchmarks.fuzzing.structure import Damage


def truncate(file: Path, rng: random.Random) -> str:
    size = rng.choice((0, 1, 7, 8, rng.randrange(file.stat().st_size + 1), max(0, file.stat().st_size - 1)))
    os.truncate(file, size)
    return f"cut to {size} bytes"


def overwrite(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes() or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[_place(rng, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    file.write_bytes(data)
    return "bytes overwritten"


def insert(file: Path, rng: random.Random) -> str:
    data, more = file.read_bytes(), rng.randbytes(rng.choice((1, 4, 100)))
    at = _place(rng, len(data))
    file.write_bytes(data[:at] + more + data[at:])
    return f"{len(more)} bytes inserted at {at}"


def delete(file: Path, rng: random.Random) -> str:
    data = file.read_bytes()
    at, count = _place(rng, len(data)), rng.choice((1, 4, 100))
    file.write_bytes(data[:at] + data[at + count :])
    return f"{count} bytes deleted at {at}"


def duplicate(file: Path, rng: random.Random) -> str:
    data = file.read_bytes()
    at, count = _place(rng, len(data)), rng.choice((1, 16, len(data)))
    file.write_bytes(data[:at] + data[at : at + count] + data[at:])
    return f"{count} bytes twice at {at}"


def zeros(file: Path, rng: random.Random) -> str:
    file.write_bytes(bytes(file.stat().st_size))
    return "all zeros"


BYTES: tuple[Damage, ...] = (truncate, overwrite, overwrite, insert, delete, duplicate, zeros)


def _place(rng: random.Random, size: int) -> int:
    """More often near the start, where headers are."""
    return min(rng.choice((rng.randrange(64), rng.randrange(max(size, 1)))), max(size - 1, 0))


def _instead(file: Path, make: Callable[[Path], object]) -> None:
    file.unlink()
    make(file)


PLACES: Mapping[str, Callable[[Path], object]] = {
    "missing": lambda file: None,
    "empty": Path.touch,
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a link to nowhere": lambda file: file.symlink_to("nowhere"),
    "a link to /dev/zero": lambda file: file.symlink_to("/dev/zero"),
    "a link to /dev/null": lambda file: file.symlink_to("/dev/null"),
    "a link to /proc/self/mem": lambda file: file.symlink_to("/proc/self/mem"),
    "an EPS": lambda file: file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n"),
    "a page of HTML": lambda file: file.write_text("<!DOCTYPE html><html><body>404: Not Found</body></html>\n"),
    "a pointer of git-lfs": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n"),
    "a hole of 5 GiB": lambda file: (file.touch(), os.truncate(file, 5 * 2**30)),
}


def place(file: Path, rng: random.Random) -> str:
    what = rng.choice(list(PLACES))
    _instead(file, PLACES[what])
    return f"{what} in its place"


#: by the end of a file's name
FORMATS: Mapping[str, Sequence[Damage]] = {
    ".json": structure.JSON,
    ".yaml": structure.YAML,
    ".yml": structure.YAML,
    ".safetensors": structure.SAFETENSORS,
    ".pt": containers.TORCH,
    ".pth": containers.TORCH,
    ".bin": containers.TORCH,
    ".gz": containers.GZIP,
    ".png": containers.PNG,
    ".bmp": containers.IMAGE,
    ".jpg": containers.IMAGE,
    ".webp": containers.IMAGE,
}

FOLDERS = (b"\xff model", b"a\nb", b"\x1b[31mred", b"  ", "ü🙂".encode(), b"-o", b"%s{}", b"x" * 200)


def damage(folder: Path, file: str, rng: random.Random, others: Sequence[Path]) -> tuple[Path, str]:
    """Damage a file of a folder; returns the folder, which may have been renamed, and what was done."""
    place_of = folder / file
    special = FORMATS.get(place_of.suffix, ())
    sort = rng.choices(("bytes", "place", "other", "format"), (4, 2, 1, 8 if special else 0))[0]
    if sort == "bytes":
        done = "; ".join(rng.choice(BYTES)(place_of, rng) for _ in range(rng.choice((1, 1, 1, 2))))
    elif sort == "place":
        done = place(place_of, rng)
    elif sort == "other":
        other = rng.choice(others)
        shutil.copyfile(other, place_of)
        done = f"the {other.name} of {other.parent.name} in its place"
    else:
        done = rng.choice(special)(place_of, rng)
    if rng.random() < 0.05:
        folder = folder.rename(os.fsdecode(os.fsencode(folder.parent) + b"/" + rng.choice(FOLDERS)))
        done += f"; in the folder {folder.name!r}"
    return folder, done
