"""A picture as the bytes that it has: nothing is resized, and neither colours nor bits are thrown away unseen."""

from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor

from ddim_ode.data import DataError
from ddim_ode.image_sets.base import Shape
from ddim_ode.support.images import picture_in

MODES = {1: ("L", "1"), 3: ("RGB",)}  # Pillow's, whose pixels are the bytes that a set of such channels holds
PNG, DEPTH = b"\x89PNG\r\n\x1a\n", 24  # how a file of the kind begins, and which of its bytes is the bits a channel


def decoded(opened: BinaryIO, where: str) -> Image.Image:
    """The picture of a file that is open. Raises DataError: it is damaged, or has 16 bits a channel."""
    head = opened.read(DEPTH + 1)
    opened.seek(0)
    if head.startswith(PNG) and head[DEPTH:] == b"\x10":  # of colours, Pillow would drop the lower 8 without a word
        raise DataError(f"{where}: found 16 bits a channel, expected 8; convert it first")
    return picture_in(opened, where, DataError)


def shape_of(image: Image.Image, where: str) -> Shape:
    """(C, H, W) of a picture. Raises DataError for one that is neither grey nor RGB."""
    for channels, modes in MODES.items():
        if image.mode in modes:
            return channels, image.height, image.width
    raise DataError(f"{where}: found a picture of mode {image.mode}, expected L (grey) or RGB; convert it first")


def bytes_of(image: Image.Image, shape: Shape, where: str) -> Tensor:
    """The bytes of a picture, uint8 (C, H, W). Raises DataError for one of another shape."""
    channels, height, width = shape
    if image.mode not in MODES[channels] or image.size != (width, height):
        kind = "grey" if channels == 1 else "RGB"
        raise DataError(
            f"{where}: found {image.width} x {image.height} pixels of mode {image.mode}, expected {width} x {height}"
            f" of {' or '.join(MODES[channels])} ({kind}), as in the others; resize or leave it out"
        )
    pixels = torch.frombuffer(bytearray(image.convert(MODES[channels][0]).tobytes()), dtype=torch.uint8)
    return pixels.reshape(height, width, channels).movedim(-1, 0)
