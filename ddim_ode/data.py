"""Images in and out: x = byte / 127.5 - 1, so bytes 0..255 are the data range [-1, 1].

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) from its IDX files, any folder of images,
and a few real test images that are shipped with the library.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.files import replacing

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_LABELS: tuple[str, ...] = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
IMAGE_SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ASSETS = Path(__file__).parent / "assets"


class DataError(DDIMError):
    """A data file is missing or is not what its name says; the message is one line and names the file."""


def fashion_mnist(split: Literal["train", "test"], folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST from its IDX files, gzipped or plain.

    Returns images, uint8 (N, 1, 28, 28), and labels, int64 (N,) in 0..9 (`FASHION_LABELS`); N is 60000 for
    "train" and 10000 for "test". `folder` defaults to where the Debian package `dataset-fashion-mnist` puts it.
    Raises DataError when a file is missing, truncated, corrupt, or disagrees with its companion.
    """
    if split not in ("train", "test"):
        raise DataError(f"split={split!r} is not known; use 'train' or 'test'")
    folder = FASHION_FOLDER if folder is None else Path(folder)
    prefix = "train" if split == "train" else "t10k"
    image_file = _find_idx(folder, f"{prefix}-images-idx3-ubyte")
    label_file = _find_idx(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = _read_idx(image_file, (28, 28)), _read_idx(label_file, ())
    if len(images) != len(labels):
        raise DataError(
            f"{label_file}: found {len(labels)} labels, expected {len(images)}, one an image of {image_file}"
        )
    if (worst := int(labels.max())) > 9:
        raise DataError(f"{label_file}: found label {worst}, expected labels in 0..9")
    return images.unsqueeze(1), labels.long()


def image_folder(folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, list[Path]]:
    """Every image below `folder`, in sorted order, as uint8 (N, C, H, W), and the files they came from.

    See `load_images` for `shape` and what is done to an image. Raises DataError when the folder is missing or
    holds no image, or when a file cannot be read.
    """
    files = image_files(folder)
    return load_images(files, shape), files


def image_files(folder: Path) -> list[Path]:
    """Every image file below `folder`, in sorted order. Raises DataError when it is missing or holds none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder that holds images ({', '.join(IMAGE_SUFFIXES)})")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{folder}: found no images, expected files that end in {', '.join(IMAGE_SUFFIXES)}")
    return files


def load_images(files: Sequence[Path], shape: tuple[int, int, int]) -> Tensor:
    """Images as uint8 (N, C, H, W), with shape = (C, H, W) and C = 1 (grey) or 3 (RGB).

    An image of another size is cropped about its centre to the aspect H:W and resized with an antialiasing filter;
    one of the right size keeps its pixels. Transparency is ignored. Raises DataError for an unreadable file.
    """
    channels, height, width = shape
    if channels not in (1, 3) or height < 1 or width < 1:
        raise DataError(f"shape={tuple(shape)} is not an image shape; use (1, H, W) for grey or (3, H, W) for colour")
    images = torch.empty((len(files), channels, height, width), dtype=torch.uint8)
    for image, file in zip(images, files, strict=True):
        image.copy_(_read_image(Path(file), shape))
    return images


def bundled_images() -> tuple[Tensor, Tensor]:
    """The 300 Fashion-MNIST test images shipped here: uint8 (300, 1, 28, 28) and labels int64 (300,).

    They are the first 30 of each class, in the order of the test set, so that the classes are mixed.
    """
    tensors = load_file(ASSETS / "fashion-mnist-test.safetensors")
    return tensors["images"], tensors["labels"].long()


def to_float(images: Tensor) -> Tensor:
    """Bytes, uint8 of any shape, to float32 in [-1, 1]. Raises DataError for another dtype."""
    if images.dtype != torch.uint8:
        raise DataError(
            f"images are {images.dtype}, expected torch.uint8; a float image in [-1, 1] needs no conversion"
        )
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats of any shape to bytes: clamped to [-1, 1], then rounded. The inverse of `to_float` on its range."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def is_picture(shape: Sequence[int]) -> bool:
    """Whether a shape (C, H, W) is that of a grey or an RGB image."""
    return len(shape) == 3 and shape[0] in (1, 3)


def save_grid(x: Tensor, file: Path, columns: int = 8, margin: int = 2, zoom: int = 2) -> None:
    """All images on one sheet, row by row, with a white margin; each pixel drawn zoom times as wide.

    Raises DataError for tensors that are no images.
    """
    pixels = to_uint8(_checked(x).cpu())
    rows = -(-len(pixels) // columns)
    pixels = pixels.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(pixels)), value=255)
    pixels = F.pad(pixels, (margin, 0, margin, 0), value=255)
    sheet = rearrange(pixels, "(r k) c h w -> (r h) (k w) c", k=columns)
    _write(F.pad(sheet, (0, 0, 0, margin, 0, margin), value=255), file)


def save_images(x: Tensor, folder: Path) -> list[Path]:
    """One PNG an image: folder/00000.png and so on. Returns the files. Raises DataError as `save_grid`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:05d}.png" for i in range(len(x))]
    for pixels, file in zip(to_uint8(_checked(x).cpu()), files, strict=True):
        _write(rearrange(pixels, "c h w -> h w c"), file)
    return files


def png_of(pixels: Tensor) -> bytes:
    """Images of bytes (B, C, H, W) side by side as a PNG."""
    strip = rearrange(pixels, "b c h w -> h (b w) c").numpy()
    written = BytesIO()
    Image.fromarray(strip[..., 0] if strip.shape[-1] == 1 else strip).save(written, format="PNG")
    return written.getvalue()


def _find_idx(folder: Path, name: str) -> Path:
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise DataError(
        f"{folder / name}[.gz]: not found; install the Debian package (apt install dataset-fashion-mnist)"
        " or pass --data DIR, a folder that holds the four Fashion-MNIST IDX files"
    )


def _read_idx(file: Path, item: tuple[int, ...]) -> Tensor:
    """The IDX format: magic (0, 0, 8 = ubyte, rank), `rank` big-endian uint32 lengths, then the bytes."""
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except EOFError:
        raise DataError(f"{file}: found a truncated gzip file, expected a complete one; fetch it again") from None
    except (OSError, zlib.error) as error:
        raise DataError(f"{file}: found unreadable data ({error}), expected an IDX file; fetch it again") from None

    rank = 1 + len(item)
    magic, header = bytes((0, 0, 8, rank)), 4 + 4 * rank
    if raw[:4] != magic:
        raise DataError(
            f"{file}: found magic number 0x{raw[:4].hex()}, expected 0x{magic.hex()} (IDX, bytes, rank {rank})"
        )
    if len(raw) < header:
        raise DataError(f"{file}: found {len(raw)} bytes, expected a header of {header}")
    count, *found = (int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4))
    if tuple(found) != item:
        raise DataError(f"{file}: found items of shape {tuple(found)}, expected {item}")
    if count == 0 or len(raw) != header + count * math.prod(item):
        raise DataError(
            f"{file}: found {len(raw)} bytes, expected {header + count * math.prod(item)}"
            f" for its count of {count} items, and at least one item"
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header).reshape(count, *item)


def _read_image(file: Path, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits: Pillow would saturate everything above 255
                image = image.point(lambda value: value * (1 / 257)).convert("L")
            image = image.convert("L" if channels == 1 else "RGB")
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file}: found no readable image ({reason}), expected one of {', '.join(IMAGE_SUFFIXES)}"
        ) from None
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(height, width, channels).movedim(-1, 0)
    )


def _checked(x: Tensor) -> Tensor:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(f"samples of shape {tuple(x.shape)} are no images; pictures need (B, 1 or 3, H, W)")
    return x


def _write(pixels: Tensor, file: Path) -> None:
    array = pixels.numpy()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    with replacing(file) as tmp:
        image.save(tmp, format="PNG")
