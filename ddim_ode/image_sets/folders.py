"""Image files in a folder and those below it, decoded as they are asked for."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddim_ode.data import DataError, image_files, is_picture, load_images
from ddim_ode.image_sets.base import ImageSet, Shape, digest_of_files
from ddim_ode.image_sets.pictures import bytes_of, decoded, shape_of
from ddim_ode.support.checks import shown
from ddim_ode.support.outputs import MANIFEST
from ddim_ode.support.reading import open_regular

GRID = "grid.png"  # many samples in one picture, in a folder of ours


class FolderImages(ImageSet):
    """The image files of a folder, 2.png before 10.png; those of another shape are refused, or resized.

    shape: by default that of the first file. files: which they are, by default all. Raises DataError.
    """

    def __init__(
        self, folder: Path, shape: Shape | None = None, resize: bool = False, files: Sequence[Path] | None = None
    ):
        self.folder, self.name, self.resize = folder, str(folder), resize
        self.files = self._found() if files is None else files
        if shape is not None and not is_picture(shape):
            raise DataError(f"shape={shown(shape)} is none of image files; use (1, H, W) for grey or (3, H, W) for RGB")
        self.shape = shape or shape_of(_picture(self.files[0]), str(self.files[0]))

    def __len__(self) -> int:
        return len(self.files)

    def names(self, rows: slice) -> list[str]:
        return [self._relative(file) for file in self.files[rows]]

    def read(self, rows: range) -> Tensor:
        files = self.files[rows.start : rows.stop]
        if self.resize and files:
            return load_images(files, self.shape)
        images = torch.empty((len(files), *self.shape), dtype=torch.uint8)
        for image, file in zip(images, files, strict=True):
            image.copy_(bytes_of(_picture(file), self.shape, str(file)))
        return images

    def identity(self) -> str:
        return digest_of_files(self.files, self.folder)

    def _found(self) -> list[Path]:
        found = sorted(image_files(self.folder), key=self._order)
        files = [file for file in found if file.name != GRID or not (file.parent / MANIFEST).exists()]
        if not files:
            raise DataError(f"{self.folder} holds {GRID}, an overview, and no images; draw the samples with --images")
        return files

    def _relative(self, file: Path) -> str:
        return os.path.relpath(file, self.folder)

    def _order(self, file: Path) -> tuple[list[int | str], str]:
        """Numbers in a name count as numbers."""
        name = self._relative(file)
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _picture(file: Path) -> Image.Image:
    with open_regular(file, DataError, "give an image file") as opened:
        return decoded(opened, str(file))
