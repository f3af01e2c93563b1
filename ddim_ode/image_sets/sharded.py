"""The samples of `ddim-ode sample --shards`, in each of its formats: a shard is opened, and its digest checked, as it
is come to.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.data import DataError, is_picture
from ddim_ode.image_sets.arrays import NpzImages
from ddim_ode.image_sets.base import ImageSet
from ddim_ode.image_sets.folders import FolderImages
from ddim_ode.image_sets.stored import StoredImages
from ddim_ode.image_sets.tars import TarImages
from ddim_ode.support.reading import open_regular
from ddim_ode.support.shards import read_index

REMEDY = "run the command that made it again, which makes what is missing"
BLOCK = 2**20


class ShardedImages(ImageSet):
    """What a folder with an index holds. Raises DataError: the index is damaged, or of no pictures."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, str(folder)
        self.index = read_index(folder, DataError)
        if not is_picture(self.index.shape):
            raise DataError(f"{folder} holds samples of shape {self.index.shape}, which are no images; give others")
        channels, height, width = self.index.shape
        self.shape = (channels, height, width)
        self.asked = self.index.asked
        self.labels = None if self.index.labels is None else torch.tensor(self.index.labels)
        self.whole = bool(self.index.files)  # one file for all
        counts = [sum(shard.count for shard in self.index.shards)] if self.whole else self._counts()
        self.ends = list(accumulate(counts))
        self.opened: tuple[int, ImageSet] | None = None

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def read(self, rows: range) -> Tensor:
        parts, at = [], rows.start
        while at < rows.stop:
            number = bisect_right(self.ends, at)
            begin, end = self.ends[number - 1] if number else 0, min(self.ends[number], rows.stop)
            parts.append(self._part(number)[at - begin : end - begin])
            at = end
        return torch.cat(parts)

    def identity(self) -> str:
        return self.index.digest

    def _counts(self) -> list[int]:
        return [shard.count for shard in self.index.shards]

    def _part(self, number: int) -> ImageSet:
        """A shard, the one that was opened last if it is that."""
        if self.opened is None or self.opened[0] != number:
            shard = None if self.whole else self.index.shards[number]
            files = self.index.files if shard is None else shard.files
            self._check(files)
            part = self._open(files)
            count = self.ends[number] - (self.ends[number - 1] if number else 0)
            if part.shape != self.shape or len(part) != count:
                raise DataError(
                    f"{next(iter(files))} in {self.folder} holds {len(part)} images {part.shape}, expected {count} of"
                    f" {self.shape}; {REMEDY}"
                )
            self.opened = number, part
        return self.opened[1]

    def _open(self, files: Mapping[str, str]) -> ImageSet:
        paths = [self.folder / name for name in files]
        kinds = {"safetensors": _stored, "webdataset": TarImages, "npz": NpzImages}
        if self.index.format == "png":
            return FolderImages(self.folder, self.shape, files=paths)
        if self.index.format not in kinds or len(paths) != 1:
            raise DataError(f"{self.folder} has shards of the format {self.index.format!r}; use a newer version")
        return kinds[self.index.format](paths[0])

    def _check(self, files: Mapping[str, str]) -> None:
        """Raise DataError for a file that is not as it was written."""
        for name, expected in files.items():
            with open_regular(self.folder / name, DataError, REMEDY) as opened:
                found = hashlib.sha256()
                while block := opened.read(BLOCK):
                    found.update(block)
            if found.hexdigest() != expected:
                raise DataError(f"{self.folder / name} is not as it was written, by its sha256; {REMEDY}")


def _stored(file: Path) -> ImageSet:
    return StoredImages(file, str(file))
