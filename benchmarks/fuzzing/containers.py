"""Damage that only torch.save files, gzip files and images can have."""

import gzip
import pickle
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.fuzzing.structure import Damage, slots

RAN = "ran"  # the file in the current folder by which code that was run is found out


class RunsCode:
    """A pickle of it creates a file when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path(RAN),)


#: in place of a tensor or another value of a torch.save file
OBJECTS: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.ones(4, 4).to_sparse(),
    "sparse CSR": lambda: torch.ones(4, 4).to_sparse_csr(),
    "expanded to 4 TiB": lambda: torch.zeros(1).expand(2**40),
    "of stride 0": lambda: torch.zeros(1).expand(32, 32, 3, 3),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    "on the meta device": lambda: torch.zeros(32, device="meta"),
    "complex": lambda: torch.zeros(32, dtype=torch.complex64),
    "float8": lambda: torch.zeros(32).to(torch.float8_e5m2),
    "of integers": lambda: torch.ones(32, dtype=torch.int64),
    "of bools": lambda: torch.ones(32, dtype=torch.bool),
    "NaN": lambda: torch.full((32,), float("nan")),
    "empty": lambda: torch.zeros(0),
    "a scalar": lambda: torch.tensor(1.0),
    "a Parameter": lambda: torch.nn.Parameter(torch.ones(32)),
    "a NumPy scalar": lambda: np.float64(1.0),
    "a NumPy array": lambda: np.ones(4),
    "a dtype": lambda: torch.float32,
    "a Size": lambda: torch.Size([2**40]),
    "a huge int": lambda: 10**5000,
    "-1": lambda: -1,
    "2**63": lambda: 2**63,
    "NaN as a float": lambda: float("nan"),
    "a text": lambda: "a\nb\x1b[31m" + "x" * 5000,
    "bytes": lambda: b"x",
    "None": lambda: None,
    "True": lambda: True,
    "a list": lambda: [[]],
    "a dict": dict,
    "a set": lambda: {1},
    "what runs code": RunsCode,
    "a module": lambda: torch.nn.Linear(2, 2),
}


def objects(file: Path, rng: random.Random) -> str:
    """Another value inside."""
    found = torch.load(file, weights_only=True)
    places = slots(found)
    inside, key = rng.choice(places)
    sort = rng.choice(("replace", "replace", "replace", "drop", "key", "dtype"))
    what = rng.choice(list(OBJECTS))
    if sort == "replace" or not isinstance(inside, dict):
        inside[key] = OBJECTS[what]()
    elif sort == "drop":
        del inside[key]
    elif sort == "key":
        inside[rng.choice((3, None, "", "x" * 5000, "a\nb", (1, 2), 1.5))] = inside.pop(key)
    elif isinstance(inside[key], torch.Tensor):
        inside[key] = inside[key].to(rng.choice((torch.float64, torch.int8, torch.bfloat16, torch.complex64)))
    torch.save(found, file, _use_new_zipfile_serialization=rng.random() < 0.8)
    return f"{str(key)[:50]}: {sort} {what if sort == 'replace' else ''}"


def whole(file: Path, rng: random.Random) -> str:
    """Another value altogether."""
    what = rng.choice(list(OBJECTS))
    torch.save(OBJECTS[what](), file)
    return f"holds {what}"


def plain_pickle(file: Path, rng: random.Random) -> str:
    found = rng.choice((RunsCode(), {"a": RunsCode()}, [1, 2], {"a": 1}, None))
    file.write_bytes(pickle.dumps(found, protocol=rng.choice((0, 2, 4))))
    return f"a pickle of {type(found).__name__}"


def opcodes(file: Path, rng: random.Random) -> str:
    """Pickles that are nothing but trouble."""
    trouble = (
        b"\x80\x02" + b"]" * 100_000 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02" + b"(" * 50_000 + b"t.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02cos\nsystem\n(S'touch ran'\ntR.",
        b"\x80\x02h\x05.",
        b"\x80\x02.",
    )
    file.write_bytes(rng.choice(trouble))
    return "opcodes of pickle"


def archive(file: Path, rng: random.Random) -> str:
    """The directory of a zip archive that says other sizes than there are."""
    data = bytearray(file.read_bytes())
    at = data.rfind(b"PK\x01\x02") if rng.random() < 0.5 else data.find(b"PK\x01\x02")
    if at < 0:
        return "nothing"
    field = rng.choice((10, 20, 24, 28, 42))  # method, sizes packed and unpacked, length of the name, offset
    data[at + field : at + field + 4] = rng.choice((0, 1, 2**31, 2**32 - 16, 2**32 - 1)).to_bytes(4, "little")
    file.write_bytes(data)
    return f"field {field} of the archive's directory"


def gzip_bytes(file: Path, rng: random.Random) -> str:
    """Valid gzip of a damaged file."""
    data = bytearray(gzip.decompress(file.read_bytes()))
    data[rng.randrange(min(16, len(data)))] = rng.randrange(256)
    file.write_bytes(gzip.compress(data))
    return "bytes inside overwritten"


def gzip_bomb(file: Path, rng: random.Random) -> str:
    """Six GiB of zeros in as many megabytes."""
    head = gzip.compress(gzip.decompress(file.read_bytes())[:16])
    file.write_bytes(head + gzip.compress(bytes(2**26)) * 96)
    return "a bomb of 6 GiB"


def gzip_more(file: Path, rng: random.Random) -> str:
    file.write_bytes(file.read_bytes() + rng.choice((b"\0" * 100, b"garbage", gzip.compress(b"more"))))
    return "more after the end"


def png_size(file: Path, rng: random.Random) -> str:
    """A PNG whose header says other sides than it has, with a valid check sum."""
    data = bytearray(file.read_bytes())
    sides = rng.choice(((2**31 - 1, 2**31 - 1), (50_000, 50_000), (12_000, 12_000), (0, 8), (8, 2**31 - 1), (1, 1)))
    data[16:24] = b"".join(side.to_bytes(4, "big") for side in sides)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    file.write_bytes(data)
    return f"sides {sides}"


def png_large(file: Path, rng: random.Random) -> str:
    """A real picture of many pixels in few bytes."""
    side = rng.choice((9_000, 13_500, 20_000))
    row = bytes(1 + side // 8)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    sides = b"".join(n.to_bytes(4, "big") for n in (side, side))
    head = chunk(b"IHDR", sides + b"\x01\0\0\0\0")
    body = chunk(b"IDAT", zlib.compress(row * side, 1))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    return f"{side} x {side} pixels"


def another(file: Path, rng: random.Random) -> str:
    """Another format or mode of image under this name."""
    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"))
    size = rng.choice(((8, 8), (8, 8), (1, 1), (1, 500), (500, 1), (7, 9)))
    image = Image.new(mode, size, 3 if mode in ("1", "L", "P", "I", "F", "I;16") else None)
    formats = ("PNG", "GIF", "TIFF", "BMP", "WEBP", "JPEG", "PPM", "PCX", "TGA", "ICO", "PDF", "EPS", "DDS", "SGI")
    kind = rng.choice(formats)
    try:
        image.save(file, kind)
    except (OSError, ValueError, KeyError):  # a format that has no such mode
        image.convert("RGB").resize((8, 8)).save(file, "PNG")
        kind = "PNG"
    return f"{kind} of mode {mode}, {size}"


def exif(file: Path, rng: random.Random) -> str:
    image = Image.open(file)
    image.load()
    tags = image.getexif()
    tags[0x0112] = rng.choice((0, 3, 5, 6, 8, 9, 65535))
    image.save(file, exif=tags)
    return f"orientation {tags[0x0112]}"


TORCH: tuple[Damage, ...] = (objects, objects, objects, whole, plain_pickle, opcodes, archive)
GZIP: tuple[Damage, ...] = (gzip_bytes, gzip_bytes, gzip_more, gzip_bomb)
IMAGE: tuple[Damage, ...] = (another, another, exif)
PNG: tuple[Damage, ...] = (another, another, png_size, png_large)
