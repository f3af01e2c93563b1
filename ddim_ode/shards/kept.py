"""The shards of a run that are on disk: one is whole once its record is there, which is written last.

shards/00000.json       the run that it belongs to, its files with their digests, and what is in them, sealed
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from ddim_ode.shards import npz
from ddim_ode.shards.formats import ShardError
from ddim_ode.support.files import reported
from ddim_ode.support.reading import open_regular
from ddim_ode.support.records import read_record, write_record
from ddim_ode.support.shards import ARRAYS, INDEX, Index, Shard, read_index, shard_of, write_index

RECORDS = "shards"
KIND = "ddim_ode shard 1"


class ShardWarning(UserWarning):
    """A shard that is not as it was written, and is made again."""


class Kept(NamedTuple):
    """A shard that is there."""

    shard: Shard
    seconds: float  # that it took


@dataclass(frozen=True)
class Shelf:
    """The shards of a job in its folder."""

    folder: Path
    job: str  # digest of its record
    format: str
    shape: tuple[int, ...]
    rows: Sequence[slice]  # of each shard, among the samples of the run
    joined: bool  # whether they become one file in the end

    @property
    def total(self) -> int:
        return self.rows[-1].stop

    def missing(self) -> list[slice]:
        """The rows of the shards that were never written whole."""
        return [rows for n, rows in enumerate(self.rows) if not self._record(n).is_file()]

    def get(self, n: int) -> Kept | None:
        """A shard, whose files need not be there; None if it was not written whole, or by another job."""
        file = self._record(n)
        if not file.is_file():
            return None
        try:
            told = read_record(file, KIND, ShardError)
            return Kept(shard_of(told["shard"]), float(told["seconds"])) if told["job"] == self.job else None
        except (ShardError, LookupError, TypeError, ValueError):
            self._warn(f"{file} is not as it was written", n)
            return None

    def whole(self, n: int) -> bool:
        """Whether a shard and its files are there, as they were written."""
        if (kept := self.get(n)) is None:
            return False
        for name, digest in kept.shard.files.items():
            file, begin = self._place(n, name)
            if not file.is_file():
                self._warn(f"{file} is gone", n)
                return False
            if _digest_of(file, begin, self._size(n) if self.joined else math.inf) != digest:
                self._warn(f"{file} is not as it was written", n)
                return False
        return True

    def put(self, n: int, names: Sequence[str], told: Shard, seconds: float) -> None:
        """Keep a shard whose files were written. Raises OutputError."""
        files = {name: _digest_of(self.folder / name) for name in names}
        write_record(
            self._record(n),
            KIND,
            {"job": self.job, "seconds": seconds, "shard": asdict(told) | {"files": files}},
        )

    def complete(self) -> tuple[Index, float]:
        """Write the index of all shards, which are there; returns it, and the seconds that they took together.

        Raises OutputError, and ShardError where this process does not see what the others have written.
        """
        kept = [self._seen(n) for n in range(len(self.rows))]
        shards = tuple(one.shard for one in kept)
        files: dict[str, str] = {}
        if self.joined:
            files = {ARRAYS: self._join(shards)}
            shards = tuple(Shard(**{**vars(shard), "files": {}}) for shard in shards)
        parts = (files, *(shard.files for shard in shards))
        every = [f"{name} {digest}" for part in parts for name, digest in part.items()]
        index = Index(
            asked=self.total,
            made=sum(shard.count for shard in shards),
            format=self.format,
            shape=self.shape,
            digest=hashlib.sha256("\n".join(every).encode()).hexdigest(),
            shards=shards,
            files=files,
        )
        if index != self._index():
            write_index(self.folder, index)
        for one in kept if self.joined else ():
            for name in one.shard.files:
                with reported(self.folder):
                    (self.folder / name).unlink(missing_ok=True)
        return index, sum(one.seconds for one in kept)

    def _place(self, n: int, name: str) -> tuple[Path, int]:
        """A file of a shard, or what it has become a part of, and where in it the shard begins."""
        if self.joined and not (self.folder / name).is_file() and (self.folder / ARRAYS).is_file():
            return self.folder / ARRAYS, npz.begin_of_rows(self.shape, self.total) + self._size(0) * n
        return self.folder / name, 0

    def _join(self, shards: Sequence[Shard]) -> str:
        """Make one file of all, unless it is there; returns its digest."""
        file, there = self.folder / ARRAYS, self._index()
        names = [name for shard in shards for name in shard.files]
        if there and file.is_file():
            if _digest_of(file) == there.files.get(ARRAYS):
                return there.files[ARRAYS]
            if not any((self.folder / name).exists() for name in names):  # which would have been said
                warnings.warn(f"{file} is not as it was written; it is made again", ShardWarning, stacklevel=3)
        labels = [label for shard in shards for label in shard.labels or ()]
        counts = [shard.count for shard in shards]
        places = [self._place(n, name) for n, name in enumerate(names)]
        npz.join(self.folder, self.shape, counts, places, labels or None)
        return _digest_of(file)

    def _index(self) -> Index | None:
        with suppress(ShardError):
            return read_index(self.folder, ShardError) if (self.folder / INDEX).is_file() else None
        return None

    def _seen(self, n: int) -> Kept:
        if (kept := self.get(n)) is None:
            raise ShardError(
                f"{self._record(n)} was written by another process and is not seen by the first"
                "; give a folder on a file system that all processes share"
            )
        return kept

    def _size(self, n: int) -> int:
        """Bytes of a shard's rows in one file."""
        return (self.rows[n].stop - self.rows[n].start) * math.prod(self.shape)

    def _record(self, n: int) -> Path:
        return self.folder / RECORDS / f"{n:05d}.json"

    def _warn(self, what: str, n: int) -> None:
        warnings.warn(f"{what}; shard {n} is made again", ShardWarning, stacklevel=3)


def _digest_of(file: Path, begin: int = 0, size: float = math.inf) -> str:
    """The SHA-256 of a file's bytes from a place on, all or so many; "" where they cannot be read."""
    found = hashlib.sha256()
    try:
        with open_regular(file, ShardError) as source:
            source.seek(begin)
            for block in npz.blocks_of(source, size):
                found.update(block)
    except (ShardError, OSError):
        return ""
    return found.hexdigest()
