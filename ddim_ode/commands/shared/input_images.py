"""The images that a command begins with, and their classes: from files, from folders, or those of the package."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.commands.shared.parsing import DEFAULT_COUNT, parse_labels
from ddim_ode.data import FASHION_LABELS, DataError, bundled_images, image_files, load_images
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import SampleError
from ddim_ode.support.images import read_picture

FASHION = (1, 28, 28)
MODES = {1: ("L", "1"), 3: ("RGB",)}  # Pillow's, of images whose pixels are what such a model sees


@dataclass(frozen=True)
class InputImages:
    """Images uint8 (B, C, H, W), the class of each (None: the null class), and names for them."""

    x: Tensor
    labels: list[int] | None
    names: list[str]
    what: str  # they are


def gather(
    model: Model,
    paths: Sequence[Path] | None,
    count: int | None = None,
    label: str | None = None,
    resize: bool = False,
) -> InputImages:
    """The first `count` images of some files and folders, or of the package's if there are no paths.

    Raises:
        DataError: a file that is missing or unreadable or, unless it is to be resized, not of the model's shape.
        SampleError: a count or labels that cannot be, or no images for such a model.
    """
    labels: list[int] | None = None
    if paths:
        files = first_files(paths, count)
        x = load_fitting(files, model.shape, resize)
        names, what = [str(file) for file in files], "images"
    elif model.shape == FASHION:
        pixels, classes = bundled_images()
        _check_count(count, len(pixels))
        order = _in_turn(classes)[: count or DEFAULT_COUNT]
        x, labels = pixels[order], classes[order].tolist()
        names = [f"test {i} ({FASHION_LABELS[k]})" for i, k in zip(order, labels, strict=True)]
        what = "Fashion-MNIST test images"
        if model.num_classes != len(FASHION_LABELS):
            labels = None
    else:
        raise SampleError(f"no IMAGES given, and the package has none of shape {model.shape}; give files or folders")
    return InputImages(x, labels if label is None else parse_labels(label, len(x)), names, what)


def first_files(paths: Sequence[Path], count: int | None) -> list[Path]:
    """The first `count` of some files, and of those in some folders. Raises SampleError for a count that cannot be."""
    files = [file for path in paths for file in (image_files(path) if os.path.isdir(path) else [path])]
    _check_count(count, len(files))
    return files[:count]


def _check_count(count: int | None, found: int) -> None:
    if count is not None and count < 1:
        raise SampleError(f"n={count} must be a whole number >= 1")
    if count is not None and count > found:
        raise SampleError(f"n={count} is too many: there are {found} images; use -n {found} or fewer")


def _in_turn(classes: Tensor) -> list[int]:
    """Indices that take the classes in turn: the first of each, the second of each, ..."""
    columns = [(classes == k).nonzero().flatten() for k in classes.unique()]
    return torch.stack(columns, dim=1).flatten().tolist()


def load_fitting(
    files: Sequence[Path], shape: tuple[int, ...], resize: bool = False, remedy: str = "--resize makes it fit"
) -> Tensor:
    """Image files as uint8 (N, *shape). Raises DataError for one that is missing or, unless resized, does not fit."""
    for file in files:
        if not os.path.lexists(file):
            raise DataError(f"{file}: no such file or folder")
    if len(shape) != 3 or shape[0] not in MODES:
        raise DataError(f"this model's data have shape {shape}, which no image file holds; use the library")
    channels, height, width = shape
    for file in () if resize else files:
        image = read_picture(file, DataError)
        if image.size != (width, height) or image.mode not in MODES[channels]:
            kind = "grey" if channels == 1 else "RGB"
            raise DataError(
                f"{file}: found {image.width} x {image.height} pixels of mode {image.mode}, expected {width} x {height}"
                f" of {' or '.join(MODES[channels])} ({kind}); {remedy}"
            )
    return load_images(files, (channels, height, width))
