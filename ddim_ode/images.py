"""Samples as picture files: floats (B, C, H, W) in [-1, 1], C = 1 or 3, clipped and rounded to bytes."""

from io import BytesIO
from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from ddim_ode.data import DataError, to_uint8
from ddim_ode.files import replacing


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


def _checked(x: Tensor) -> Tensor:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(f"samples of shape {tuple(x.shape)} are no images; pictures need (B, 1 or 3, H, W)")
    return x


def _write(pixels: Tensor, file: Path) -> None:
    array = pixels.numpy()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    with replacing(file) as tmp:
        image.save(tmp, format="PNG")
