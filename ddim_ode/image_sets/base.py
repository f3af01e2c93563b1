"""What a set of images can be asked, whatever it is kept in."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.data import DataError
from ddim_ode.support.checks import described

Shape = tuple[int, int, int]


class ImageSet(ABC):
    """Images in a fixed order, of one shape (C, H, W) with C = 1 (grey) or 3 (RGB), read as they are asked for.

    `name`: what to call them. `labels`: int64 (N,), or None where nothing says them. `asked`: how many their maker was
    to make, None where nothing says it.
    """

    name: str
    shape: Shape
    labels: Tensor | None = None
    asked: int | None = None

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def read(self, rows: range) -> Tensor:
        """Images uint8 (n, C, H, W), n >= 1, of rows that there are, one after the other. Raises DataError."""

    @abstractmethod
    def identity(self) -> str:
        """A digest that is another when the images, or their files, have changed since; no image is decoded for it.

        Raises DataError.
        """

    def names(self, rows: slice) -> list[str]:
        """Names of images: of files, relative to their folder, else their numbers."""
        return [f"{number:06d}" for number in self.range_of(rows)]

    def __getitem__(self, rows: slice) -> Tensor:
        """Images uint8 (n, C, H, W). Raises DataError: one of them cannot be read, or is of another shape."""
        found = self.range_of(rows)
        if not found:
            return torch.empty((0, *self.shape), dtype=torch.uint8)
        # Laid out alike whatever they are kept in: convolutions go by it, and round accordingly.
        return self.read(found).clone(memory_format=torch.contiguous_format)

    def range_of(self, rows: slice) -> range:
        """The numbers of rows. Raises DataError for what is no slice that goes on by ones."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise DataError(f"rows are {described(rows)}; give a slice of a step of 1, such as images[0:100]")
        return range(*rows.indices(len(self)))


def digest(*facts: object) -> str:
    """A digest of facts, in their order."""
    found = sha256()
    for fact in facts:
        found.update(f"{fact}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def digest_of_files(files: Iterable[Path], top: Path) -> str:
    """A digest of the names, sizes and times of files: of what tells, without reading them, that they are the same.

    Raises DataError for one that is gone.
    """
    facts = []
    for file in files:
        try:
            told = os.stat(file)
        except OSError as fault:
            raise DataError(f"{file} cannot be read: {fault.strerror}; put it back") from None
        facts.append((os.path.relpath(file, top), told.st_size, told.st_mtime_ns))
    return digest(*facts)
