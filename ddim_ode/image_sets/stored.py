"""Samples of `ddim-ode sample` in a safetensors file: x (N, C, H, W) in [-1, 1], rounded to the bytes of pictures."""

from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.data import DataError, is_picture, to_uint8
from ddim_ode.image_sets.base import ImageSet, digest_of_files
from ddim_ode.support.tensors import opened_tensors

REMEDY = "draw the samples again"
NAME, LABELS = "x", "labels"


class StoredImages(ImageSet):
    """The samples of a file, whose digest is right where it has one. Raises DataError: it is damaged, or no such file.

    name: what to call them.
    """

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        with opened_tensors(file, DataError, REMEDY, checked=True) as stored:
            names = set(stored.keys())  # a handle of safetensors cannot be asked itself
            if NAME not in names:
                raise DataError(f"{file} has no {NAME}, which samples are called; give a file of samples")
            shape = tuple(stored.get_slice(NAME).get_shape())
            if len(shape) != 4 or not is_picture(shape[1:]):
                raise DataError(f"{file}: found {NAME} of shape {shape}, expected images (N, 1 or 3, H, W)")
            if LABELS in names:
                self.labels = stored.get_tensor(LABELS).long()
        self.count, channels, height, width = shape
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return self.count

    def read(self, rows: range) -> Tensor:
        with opened_tensors(self.file, DataError, REMEDY) as stored:
            x: Tensor = stored.get_slice(NAME)[rows.start : rows.stop]
            return x if x.dtype == torch.uint8 else to_uint8(x)

    def identity(self) -> str:
        return digest_of_files([self.file], self.file.parent)
