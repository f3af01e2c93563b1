"""Features of a set of images, in shards: each is made once, by whichever process, and kept whole or not at all.

    00000.safetensors       features (n, D), digests (n, 32) and, where there are any, logits and spatial, sealed

A shard's images, and the batches that they are in, are the same whoever makes it; so are its bytes.
"""

import hashlib
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.image_sets import ImageSet
from ddim_ode.metrics.checks import MetricError
from ddim_ode.metrics.evaluation.features import Extractor
from ddim_ode.support.tensors import read_tensors, write_tensors

DIGESTS = "digests"
REMEDY = "run the evaluation again, which makes it anew"
WIDTH = 32  # bytes of a digest


class DamagedWarning(UserWarning):
    """A shard that is not as it was written, and is made again."""


class _UnusableError(MetricError):
    """A shard that has to be made again."""


@dataclass(frozen=True)
class FeatureShards:
    """The features of a set, `size` images a shard.

    job: a digest of what they depend on. folder: where they are kept; None for memory.
    """

    images: ImageSet
    extract: Extractor
    size: int
    job: str
    folder: Path | None
    held: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def rows(self, number: int) -> range:
        """The images of a shard."""
        return range(number * self.size, min((number + 1) * self.size, len(self.images)))

    def make(self, number: int, watch: Callable[[int], None]) -> None:
        """Make a shard, unless it is there; `watch` is told of images as they are done.

        Raises DataError, MetricError or OutputError.
        """
        if self._is_there(number):
            watch(len(self.rows(number)))
            return
        parts = []
        rows = self.rows(number)
        for start in range(rows.start, rows.stop, self.extract.batch_size):
            images = self.images[start : min(start + self.extract.batch_size, rows.stop)]
            parts.append({**self.extract(images), DIGESTS: digests(images)})
            watch(len(images))
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if self.folder is None:
            self.held[number] = found
        else:
            write_tensors(self._file(number), found, self._told(number))

    def read(self, number: int) -> dict[str, Tensor]:
        """A shard that is there. Raises MetricError for one that is damaged, or of other images."""
        if self.folder is None:
            return self.held[number]
        return self._read(number, REMEDY)

    def _read(self, number: int, remedy: str) -> dict[str, Tensor]:
        tensors, told = read_tensors(self._file(number), _UnusableError, remedy)
        if any(told.get(name) != value for name, value in self._told(number).items()):
            raise _UnusableError(f"{self._file(number)} is of another evaluation; {remedy}")
        return tensors

    def _is_there(self, number: int) -> bool:
        if self.folder is None or not self._file(number).exists():
            return number in self.held
        try:
            self._read(number, "it is made again")
        except _UnusableError as error:
            warnings.warn(DamagedWarning(str(error)), stacklevel=2)
            with suppress(FileNotFoundError):
                self._file(number).unlink()
            return False
        return True

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:05d}.safetensors"

    def _told(self, number: int) -> dict[str, str]:
        rows = self.rows(number)
        return {"job": self.job, "images": f"{rows.start}-{rows.stop - 1}"}


def digests(images: Tensor) -> Tensor:
    """The SHA-256 of each image and its shape, uint8 (N, 32), of images uint8 (N, C, H, W)."""
    shape = str(tuple(images.shape[1:])).encode()
    each = [hashlib.sha256(shape + image.tobytes()).digest() for image in images.contiguous().numpy()]
    return torch.frombuffer(bytearray(b"".join(each)), dtype=torch.uint8).reshape(-1, WIDTH)
