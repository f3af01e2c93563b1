"""The shards of a run that are on disk: one is whole once its record is there, which is written last.

shards/00000.json       the run and the place that it belongs to, its files with their digests, and what is in them
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple

from ddim_ode.planning.tuned_schema import in_ranges
from ddim_ode.shards import npz
from ddim_ode.shards.formats import FORMATS, Format, Place
from ddim_ode.shards.jobs import ShardError, ShardWarning, patiently
from ddim_ode.shards.npz import Extent
from ddim_ode.support.files import reported
from ddim_ode.support.processes import Processes
from ddim_ode.support.records import read_record, write_record
from ddim_ode.support.shards import ARRAYS, INDEX, Index, Shard, read_index, shard_of, write_index

RECORDS = "shards"
KIND = "ddim_ode shard 1"


class Kept(NamedTuple):
    """A shard that is there."""

    shard: Shard
    beside: Mapping[str, str]  # files that were made of it and hold none of its samples -> sha256
    seconds: float  # that it took


@dataclass(frozen=True)
class Shelf:
    """The shards of a job in its folder."""

    folder: Path
    job: str  # digest of its record
    format: str
    shape: tuple[int, ...]
    seeds: tuple[int, ...]
    rows: Sequence[slice]  # of each shard, among the samples of the run

    @property
    def kind(self) -> Format:
        return FORMATS[self.format]

    @property
    def total(self) -> int:
        return len(self.seeds)

    def place(self, n: int) -> Place:
        return Place(n, len(self.rows), self.rows[n].start, self.total)

    def names(self, n: int) -> list[str]:
        """The files of a shard, relative to the folder."""
        return self.kind.names(self.place(n), self.rows[n].stop - self.rows[n].start)

    def has_record(self, n: int) -> bool:
        return self._record(n).is_file()

    def unrecorded(self) -> list[slice]:
        """The rows of the shards without a record."""
        return [rows for n, rows in enumerate(self.rows) if not self.has_record(n)]

    def whole(self, n: int) -> bool:
        """Whether a shard and its files are there, as they were written; a ShardWarning tells of what is not."""
        if not self.has_record(n):
            return False
        try:
            kept = self._read(n)
        except ShardError as error:
            return self._warn(str(error), n)
        extents = {name: self.extent(n, name) for name in kept.shard.files}
        extents |= {name: Extent(self.folder / name) for name in kept.beside}
        for name, digest in {**kept.shard.files, **kept.beside}.items():
            file = extents[name].file
            if not file.is_file():
                return self._warn(f"{file} is gone", n)
            found = ""
            with suppress(ShardError):  # what cannot be read is as good as damaged
                found = extents[name].digest()
            if found != digest:
                return self._warn(f"{file} is not as it was written", n)
        return True

    def put(self, n: int, told: Shard, seconds: float, beside: Sequence[str] = ()) -> None:
        """Keep a shard whose files were written. Raises OutputError, and ShardError for one that cannot be read."""
        files = {name: Extent(self.folder / name).digest() for name in self.names(n)}
        record = {
            "job": self.job,
            "number": n,
            "seconds": seconds,
            "beside": {name: Extent(self.folder / name).digest() for name in beside},
            "shard": asdict(replace(told, files=files)),
        }
        write_record(self._record(n), KIND, record)

    def complete(self, here: Processes) -> tuple[Index, float]:
        """Write the index of all shards, which are there; returns it, and the seconds that they took together.

        Raises OutputError, and ShardError where this process does not see what the others have written, or not all of
        the samples are there.
        """
        kept = [self._seen(n, here) for n in range(len(self.rows))]
        shards = tuple(one.shard for one in kept)
        made = sum(shard.count for shard in shards)
        if made != self.total:
            raise ShardError(f"{self.folder} has {made:,} of {self.total:,} samples; run it again")
        files: dict[str, str] = {}
        if self.kind.joined:
            files = {ARRAYS: self._join(shards)}
            shards = tuple(replace(shard, files={}) for shard in shards)
        parts = (files, *(shard.files for shard in shards))
        every = [f"{name} {digest}" for part in parts for name, digest in part.items()]
        index = Index(
            asked=self.total,
            made=made,
            format=self.format,
            shape=self.shape,
            digest=hashlib.sha256("\n".join(every).encode()).hexdigest(),
            shards=shards,
            files=files,
        )
        if index != self._index():
            write_index(self.folder, index)
        for one in kept if self.kind.joined else ():
            for name in one.shard.files:
                with reported(self.folder):
                    (self.folder / name).unlink(missing_ok=True)
        return index, sum(one.seconds for one in kept)

    def extent(self, n: int, name: str) -> Extent:
        """Where the bytes of a shard's file are: in it, or in what all became, unless it was made again since."""
        file, all_of_it = self.folder / name, self.folder / ARRAYS
        if not self.kind.joined or file.is_file() or not all_of_it.is_file():
            return Extent(file)
        row, rows = prod(self.shape), self.rows[n]
        return Extent(all_of_it, self._begin_of_rows + row * rows.start, row * (rows.stop - rows.start))

    @cached_property
    def _begin_of_rows(self) -> int:
        return npz.begin_of_rows(self.shape, self.total)

    def _join(self, shards: Sequence[Shard]) -> str:
        """Make one file of all, unless it is there; returns its digest."""
        file, there = self.folder / ARRAYS, self._index()
        if there and file.is_file():
            with suppress(ShardError):  # what cannot be read is made again
                if Extent(file).digest() == there.files.get(ARRAYS):
                    return there.files[ARRAYS]
            if not any((self.folder / name).exists() for shard in shards for name in shard.files):  # which was said
                warnings.warn(f"{file} is not as it was written; it is made again", ShardWarning, stacklevel=3)
        labels = [label for shard in shards for label in shard.labels or ()]
        rows = [self.extent(n, name) for n, shard in enumerate(shards) for name in shard.files]
        npz.join(self.folder, self.shape, self.total, rows, labels or None)
        return Extent(file).digest()

    def _index(self) -> Index | None:
        with suppress(ShardError):
            return read_index(self.folder, ShardError) if (self.folder / INDEX).is_file() else None
        return None

    def _seen(self, n: int, here: Processes) -> Kept:
        """A shard that is there, which another process may have written."""
        try:
            return patiently(lambda: self._read(n), here)
        except ShardError as error:
            raise ShardError(
                f"{error}, or the first process does not see what another has written; run it again"
                ", and give a folder on a file system that all processes share"
            ) from None

    def _read(self, n: int) -> Kept:
        """What the record of a shard says. Raises ShardError for one that is not this shard's."""
        file, rows = self._record(n), self.rows[n]
        try:
            told = read_record(file, KIND, ShardError)
            job, number, shard = told["job"], told["number"], shard_of(told["shard"])
            kept = Kept(shard, dict(told["beside"]), float(told["seconds"]))
        except (ShardError, LookupError, TypeError, ValueError, AttributeError):
            raise ShardError(f"{file} is not as it was written") from None
        mine = (self.job, n, rows.stop - rows.start, in_ranges(self.seeds[rows]), self.names(n))
        if (job, number, shard.count, shard.seeds, list(shard.files)) != mine:
            raise ShardError(f"{file} is of another {'shard' if job == self.job else 'run'}")
        return kept

    def _record(self, n: int) -> Path:
        return self.folder / RECORDS / f"{n:05d}.json"

    def _warn(self, what: str, n: int) -> bool:
        """Say what a shard is not. Returns False: it is not whole."""
        warnings.warn(f"{what}; shard {n} is made again", ShardWarning, stacklevel=3)
        return False
