"""The image files in a tar file, such as a shard of WebDataset's."""

import os
import tarfile
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddim_ode.data import DataError
from ddim_ode.image_sets.base import ImageSet, digest_of_files
from ddim_ode.image_sets.pictures import bytes_of, decoded, shape_of
from ddim_ode.support.images import SUFFIXES
from ddim_ode.support.reading import open_regular

REMEDY = "give a tar file that holds images"


class TarImages(ImageSet):
    """The image files of a tar file that is not compressed, in their order. Raises DataError: it is damaged or empty.

    They are read where they lie.
    """

    def __init__(self, file: Path):
        self.file, self.name = file, str(file)
        try:
            with open_regular(file, DataError, REMEDY) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
                found = [entry for entry in archive if entry.isfile() and Path(entry.name).suffix.lower() in SUFFIXES]
        except (tarfile.TarError, EOFError) as fault:
            raise DataError(f"{file} is damaged or no tar file ({fault}); {REMEDY}") from None
        self.members = [(entry.name, entry.offset_data, entry.size) for entry in found]
        if not found:
            raise DataError(f"{file} holds no images; {REMEDY}")
        self.shape = shape_of(self._picture(0), self._where(0))

    def __len__(self) -> int:
        return len(self.members)

    def names(self, rows: slice) -> list[str]:
        return [name for name, _, _ in self.members[rows]]

    def read(self, rows: range) -> Tensor:
        images = torch.empty((len(rows), *self.shape), dtype=torch.uint8)
        for image, number in zip(images, rows, strict=True):
            image.copy_(bytes_of(self._picture(number), self.shape, self._where(number)))
        return images

    def identity(self) -> str:
        return digest_of_files([self.file], self.file.parent)

    def _picture(self, number: int) -> Image.Image:
        _, start, size = self.members[number]
        with open_regular(self.file, DataError, REMEDY) as opened:
            opened.seek(start)
            return decoded(BytesIO(opened.read(size)), self._where(number))

    def _where(self, number: int) -> str:
        return os.path.join(self.file, self.members[number][0])
