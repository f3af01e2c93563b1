"""Images in and out: x = byte / 127.5 - 1, so bytes 0..255 are the data range [-1, 1].

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) from its IDX files, any folder of images,
and a few real test images that are shipped with the library.
"""

import math
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError, as_path, choice, described, of_kind, shown, whole
from ddim_ode.support.files import replacing, reported, sweep_all
from ddim_ode.support.idx import read_idx
from ddim_ode.support.images import MOST_PIXELS, pictures_below, read_picture
from ddim_ode.support.images import SUFFIXES as IMAGE_SUFFIXES
from ddim_ode.support.resources import check_memory, room
from ddim_ode.support.tables import is_readable
from ddim_ode.support.tensors import read_tensors

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
ASSETS = Path(__file__).parent / "assets"
SHEET, HIGHEST = 20_000_000, 8_000  # pixels of a sheet that has more than a row, and of its height
MOST_OF_ROW = 2**29  # pixels of a sheet of one row


class DataError(DDIMError):
    """A data file is missing or is not what its name says; the message is one line and names the file."""


def fashion_mnist(split: Literal["train", "test"], folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST from its IDX files, gzipped or plain.

    Returns images, uint8 (N, 1, 28, 28), and labels, int64 (N,) in 0..9 (`FASHION_LABELS`); N is 60000 for
    "train" and 10000 for "test". `folder` defaults to where the Debian package `dataset-fashion-mnist` puts it.
    Raises DataError when a file is missing, truncated, corrupt, or disagrees with its companion.
    """
    choice("split", split, ("train", "test"), DataError)
    folder = FASHION_FOLDER if folder is None else as_path("folder", folder)
    prefix = "train" if split == "train" else "t10k"
    image_file = _find_idx(folder, f"{prefix}-images-idx3-ubyte")
    label_file = _find_idx(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(image_file, (28, 28), DataError), read_idx(label_file, (), DataError)
    if len(images) != len(labels):
        raise DataError(
            f"{label_file}: found {len(labels)} labels, expected {len(images)}, one an image of {image_file}"
        )
    if (worst := int(labels.max())) > 9:
        raise DataError(f"{label_file}: found label {worst}, expected labels in 0..9")
    return images.unsqueeze(1), labels.long()


def image_folder(folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, list[Path]]:
    """Every image below `folder`, in sorted order, as uint8 (N, C, H, W), and the files they came from.

    See `load_images` for `shape` and what is done to an image, and `image_files` for which they are. Raises DataError
    as they do.
    """
    files = image_files(folder)
    return load_images(files, shape), files


def class_folders(folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images of classes: uint8 (N, C, H, W), their labels, int64 (N,), and the names of the classes.

    Each folder in `folder` is a class, numbered from 0 in sorted order, and holds its images at any depth. See
    `load_images` for what is done to them. Raises DataError as `image_folder`, and where an image is in no class or a
    class has no image.
    """
    files = image_files(folder)
    folder = as_path("folder", folder)
    place = [file.relative_to(folder).parts[:-1] for file in files]
    if () in place:
        raise DataError(f"{files[place.index(())]} is in no class; put it into a folder in {folder} that is one")
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    if empty := sorted(set(names) - {name for name, *_ in place}):
        raise DataError(f"{folder / empty[0]} would be a class and holds no images; leave it out")
    numbers = {name: label for label, name in enumerate(names)}
    return load_images(files, shape), torch.tensor([numbers[name] for name, *_ in place]), names


def image_files(folder: Path) -> list[Path]:
    """Every image file below `folder`, in sorted order; links to other folders are followed.

    Raises DataError: the folder is missing or holds no image, it or one below it cannot be read, a link leads to a
    folder that was there already, or what has the name of an image is no file.
    """
    folder = as_path("folder", folder)
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; give a folder that holds images ({', '.join(IMAGE_SUFFIXES)})")
    files = sorted(pictures_below(folder, DataError))
    if not files:
        raise DataError(f"{folder}: found no images, expected files that end in {', '.join(IMAGE_SUFFIXES)}")
    return files


def load_images(files: Sequence[Path], shape: tuple[int, int, int]) -> Tensor:
    """Images as uint8 (N, C, H, W), with shape = (C, H, W) and C = 1 (grey) or 3 (RGB).

    Files are PNG, JPEG, WEBP or BMP, whatever their names say, of at most 100 million pixels and one frame. An image of
    another size is cropped about its centre to the aspect H:W and resized with an antialiasing filter; one of the right
    size keeps its pixels. Transparency is ignored. Raises DataError for an unreadable file.
    """
    of_kind("files", files, (list, tuple), "a list of image files")
    if not files:
        raise DataError("files=[] are no images; give at least one file")
    paths = [as_path(f"files[{i}]", file) for i, file in enumerate(files)]
    shape = _picture_shape(shape)
    with room(len(paths) * math.prod(shape), f"{len(paths):,} images of {shape}", "give fewer files", DataError):
        images = torch.empty((len(paths), *shape), dtype=torch.uint8)
    for image, file in zip(images, paths, strict=True):
        image.copy_(_read_image(file, shape))
    return images


def bundled_images() -> tuple[Tensor, Tensor]:
    """The 300 Fashion-MNIST test images shipped here: uint8 (300, 1, 28, 28) and labels int64 (300,).

    They are the first 30 of each class, in the order of the test set, so that the classes are mixed. Raises DataError
    where the package's file is missing or damaged.
    """
    file, remedy = ASSETS / "fashion-mnist-test.safetensors", "install ddim_ode again"
    tensors, _ = read_tensors(file, DataError, remedy, sealed=False)
    if not {"images", "labels"} <= set(tensors):
        raise DataError(f"{file} is damaged: it holds no images and labels; {remedy}")
    return tensors["images"], tensors["labels"].long()


def to_float(images: Tensor) -> Tensor:
    """Bytes, uint8 of any shape, to float32 in [-1, 1]. Raises DataError for another dtype."""
    of_kind("images", images, Tensor, "a tensor of bytes, torch.uint8")
    if images.dtype != torch.uint8:
        raise DataError(
            f"images are {images.dtype}, expected torch.uint8; a float image in [-1, 1] needs no conversion"
        )
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats of any shape to bytes: clamped to [-1, 1], then rounded. The inverse of `to_float` on its range.

    Raises DataError for what is no float, and for NaN, which is no byte.
    """
    of_kind("x", x, Tensor, "a tensor of floats in [-1, 1]")
    if not x.is_floating_point():
        raise DataError(f"x is {x.dtype}, expected floats in [-1, 1]; data.to_float makes them of bytes")
    if not is_readable(x):
        raise DataError(
            f"x is {described(x)} on {x.device}, whose values cannot be read; give a dense one that has some"
        )
    check_memory(8 * x.numel(), f"bytes of {described(x)}", "give fewer", DataError)
    x = x.float() if x.dtype.itemsize < 4 else x  # half precision does not tell all bytes from each other
    if x.isnan().any():
        raise DataError(f"x is {described(x)} and holds {int(x.isnan().sum())} NaN, which are no bytes; leave them out")
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def is_picture(shape: Sequence[int]) -> bool:
    """Whether a shape (C, H, W) is that of a grey or an RGB image."""
    of_kind("shape", shape, Sequence, "a shape such as (1, 28, 28)")
    return len(shape) == 3 and shape[0] in (1, 3)


def save_grid(x: Tensor, file: Path, columns: int = 8, margin: int = 2, zoom: int = 2) -> int:
    """Images on one sheet, row by row, with a white margin; each pixel drawn zoom times as wide.

    A sheet has as many rows as fit into 20 million pixels and a height of 8,000, and one at least. Returns how many
    images are shown, the first of x. Raises DataError for tensors that are no images, and OutputError.
    """
    x, file = _checked(x), as_path("file", file)
    columns, zoom = whole("columns", columns, DataError), whole("zoom", zoom, DataError)
    margin = whole("margin", margin, DataError, least=0)
    high, wide = zoom * x.shape[2] + margin, (zoom * x.shape[3] + margin) * columns + margin
    if (high + margin) * wide > MOST_OF_ROW:
        raise DataError(
            f"columns={shown(columns)}, zoom={shown(zoom)} and margin={shown(margin)} make a row of more than"
            f" {MOST_OF_ROW:,} pixels; give smaller ones"
        )
    rows = min(-(-len(x) // columns), max(1, (min(SHEET // wide, HIGHEST) - margin) // high))
    pixels = to_uint8(x[: rows * columns]).cpu()
    count = len(pixels)
    pixels = pixels.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, rows * columns - count), value=255)
    pixels = F.pad(pixels, (margin, 0, margin, 0), value=255)
    sheet = rearrange(pixels, "(r k) c h w -> (r h) (k w) c", k=columns)
    _write(F.pad(sheet, (0, 0, 0, margin, 0, margin), value=255), file)
    return count


def save_images(x: Tensor, folder: Path, first: int = 0, digits: int = 5) -> list[Path]:
    """One PNG an image: folder/00000.png and so on, or from `first` on. Returns the files. Raises as `save_grid`.

    digits: of their names; give as many as the last image of a folder needs, so that they stay in order.
    """
    folder, first = as_path("folder", folder), whole("first", first, DataError, least=0)
    digits = whole("digits", digits, DataError, most=20, why="for a name")
    images = to_uint8(_checked(x)).cpu()
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sweep_all(folder)
    files = [folder / f"{i:0{digits}d}.png" for i in range(first, first + len(images))]
    for pixels, file in zip(images, files, strict=True):
        _write(rearrange(pixels, "c h w -> h w c"), file, one_of_many=True)
    return files


def png_of(pixels: Tensor) -> bytes:
    """Images of bytes (B, C, H, W) side by side as a PNG. Raises DataError for other tensors."""
    if _checked(pixels).dtype != torch.uint8:
        raise DataError(f"pixels are {pixels.dtype}; give bytes as torch.uint8, which to_uint8 makes")
    strip = rearrange(pixels, "b c h w -> h (b w) c").numpy()
    written = BytesIO()
    Image.fromarray(strip[..., 0] if strip.shape[-1] == 1 else strip).save(written, format="PNG")
    return written.getvalue()


def _picture_shape(shape: object) -> tuple[int, int, int]:
    rule = "is not an image shape; use (1, H, W) for grey or (3, H, W) for colour"
    if not isinstance(shape, list | tuple):
        raise ArgumentError(f"shape is {described(shape)}, which {rule}")
    if len(shape) != 3:
        raise DataError(f"shape={shown(shape)} {rule}")
    channels, height, width = (whole("shape", length, DataError) for length in shape)
    if channels not in (1, 3):
        raise DataError(f"shape={shown(shape)} {rule}")
    if height * width > MOST_PIXELS:
        raise DataError(f"shape={shown(shape)} has more than {MOST_PIXELS:,} pixels; give a smaller one")
    return channels, height, width


def _find_idx(folder: Path, name: str) -> Path:
    for file in (folder / f"{name}.gz", folder / name):
        if os.path.lexists(file):  # whatever it is
            return file
    raise DataError(
        f"{folder / name}[.gz]: not found; install the Debian package (apt install dataset-fashion-mnist)"
        " or pass --data DIR, a folder that holds the four Fashion-MNIST IDX files"
    )


def _read_image(file: Path, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    image = read_picture(file, DataError)
    if image.mode.startswith("I"):  # 16 bits: Pillow would saturate everything above 255
        image = image.point(lambda value: value * (1 / 257)).convert("L")
    image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height), Image.Resampling.LANCZOS)
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(height, width, channels).movedim(-1, 0)
    )


def _checked(x: Tensor) -> Tensor:
    of_kind("x", x, Tensor, "a tensor of images (B, C, H, W)")
    if not is_readable(x):
        raise DataError("x is a tensor whose numbers cannot be read; give a dense one, of images (B, C, H, W)")
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(f"samples of shape {tuple(x.shape)} are no images; pictures need (B, 1 or 3, H, W)")
    if not x.numel():
        raise DataError(f"x is {described(x)} and holds no pixel; give at least one image")
    return x.detach()


def _write(pixels: Tensor, file: Path, one_of_many: bool = False) -> None:
    array = pixels.numpy()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    with replacing(file, one_of_many) as new:
        image.save(new, format="PNG")
