"""A few numbers of each of many images, measured shard by shard, by one process or many, and kept in a folder.

    job.json                                what decides the numbers: who goes on must ask for the same
    likelihood-00007-of-00079.safetensors   the numbers of a shard, sealed, and a digest of each of its images

A shard is whole batches, so that its numbers are those of one call over all images. Of the images those of one shard
are in memory at a time. A process on its own needs no folder.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.plan import Progress
from ddim_ode.shards.arguments import Images
from ddim_ode.shards.jobs import Kind, ShardError, ShardWarning, patiently
from ddim_ode.shards.jobs import job as begun
from ddim_ode.support.checks import as_path, whole
from ddim_ode.support.process import MOST_THREADS, computing
from ddim_ode.support.processes import ProcessError, Processes
from ddim_ode.support.records import OURS, seal
from ddim_ode.support.tensors import read_tensors, write_tensors

DIGESTS, FACTS, JOB = "images", "facts", "job"  # in the file of a shard
THREADS = 1  # of torch in each process, unless others are asked for: the same on every machine
KEEP = "--keep"  # the option, and in Python the argument, that says the folder


class _DamagedError(ShardError):
    """A shard that is not as it was written, and is measured again."""


class Part(NamedTuple):
    """A shard to measure."""

    first: int  # the number of its first image
    x: Tensor
    labels: Tensor | None
    done: Callable[[float], None]  # to be told how many of its images are done

    def follow(self, now: Progress) -> None:
        """The callback of a run over the shard."""
        self.done(now.samples.start + len(now.samples) * now.share)


class Numbers(NamedTuple):
    """What was measured in a shard."""

    each: Mapping[str, Tensor]  # a number an image by its name, (n,)
    facts: Mapping[str, Any]  # that JSON can hold


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How a job is followed: `done` is told how many images this process has done, and `idle` called while it waits."""

    done: Callable[[float], None] = lambda done: None
    idle: Callable[[], None] = lambda: None


UNWATCHED = Watched()


@dataclass(frozen=True, kw_only=True)
class Job:
    """Images to measure, and what decides their numbers.

    name: of its files. facts: as JSON holds them. threads: of torch, over which sums are split, and rounded so.
    """

    name: str
    images: Images
    labels: Tensor | None
    total: int
    size: int  # images of a shard
    threads: int
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        whole("threads", self.threads, SampleError, most=MOST_THREADS)

    @property
    def shards(self) -> int:
        return -(-self.total // self.size)

    @property
    def record(self) -> dict[str, Any]:
        """What must be the same for a job to go on."""
        told: dict[str, Any] = {"n": self.total, "labels": _told_labels(self.labels), "threads": self.threads}
        return {**told, **self.facts}

    def rows(self, number: int) -> slice:
        return slice(number * self.size, min((number + 1) * self.size, self.total))


def check_folder(keep: str | Path | None, size: int) -> None:
    """Raise ProcessError for several processes without a folder."""
    if keep is None and size > 1:
        raise ProcessError(f"{size} processes share the work by a folder; say which: {KEEP} DIR")


def measured(
    job: Job, measure: Callable[[Part], Numbers], keep: str | Path | None, here: Processes, watched: Watched
) -> list[Numbers] | None:
    """The numbers of all shards, in the first process; the others take part, and have None.

    Raises:
        ShardError: the folder holds the numbers of other images.
        OutputError: it belongs to another job, holds something else, cannot be written, or a run is at work in it.
        ProcessError: there are other processes, and no folder to share or not the same one; or they have failed.
        DDIMError: whatever `measure` raises.
    """
    check_folder(keep, here.size)
    done = 0

    def tell(more: float) -> None:
        here.check()
        watched.done(done + more)

    with _opened(job, keep, here) as shards:
        for number in here.tasks(job.name, job.shards):
            tell(0)
            rows = job.rows(number)
            x = job.images[rows]
            if not shards.has(number, x):
                labels = None if job.labels is None else job.labels[rows]
                with computing(job.threads), counted_from(rows.start):
                    shards.put(number, x, measure(Part(rows.start, x, labels, tell)))
            done += len(x)
            tell(0)
        if not here.main:
            return None
        here.wait(job.name, job.shards, watched.idle)
        return [patiently(partial(shards.get, number), here) for number in range(job.shards)]


@dataclass(frozen=True)
class _Shards:
    """The shards of a job, in memory or in a folder."""

    job: Job
    keep: Path | None
    held: dict[int, Numbers] = field(default_factory=dict)

    def has(self, number: int, x: Tensor) -> bool:
        """Whether a shard is there, whole. Raises ShardError for one of other images than x."""
        if self.keep is None or not (file := self._file(number)).exists():
            return number in self.held
        try:
            stored, _ = self._read(file)
        except _DamagedError as error:
            warnings.warn(str(error), ShardWarning, stacklevel=2)
            return False
        if not torch.equal(stored[DIGESTS], found := digests(x)):
            row = 0 if len(found) != len(stored[DIGESTS]) else int((found != stored[DIGESTS]).nonzero()[0])
            raise ShardError(
                f"{self.keep} holds the numbers of other images: {self._name(self.job.rows(number).start + row)} is not"
                f" the one that was measured; put it back, or choose another {KEEP}"
            )
        return True

    def put(self, number: int, x: Tensor, numbers: Numbers) -> None:
        if self.keep is None:
            self.held[number] = numbers
            return
        told = {JOB: seal(self.job.record), FACTS: json.dumps(numbers.facts)}
        write_tensors(self._file(number), {**numbers.each, DIGESTS: digests(x)}, told)

    def get(self, number: int) -> Numbers:
        """The numbers of a shard that is there. Raises ShardError where it no longer is."""
        if self.keep is None:
            return self.held[number]
        stored, told = self._read(self._file(number), "run it again, and it is measured again")
        return Numbers({name: values.clone() for name, values in stored.items() if name != DIGESTS}, _facts(told))

    def _read(self, file: Path, remedy: str = "it is measured again") -> tuple[dict[str, Tensor], dict[str, str]]:
        stored, told = read_tensors(file, _DamagedError, remedy)
        if told.get(JOB) != seal(self.job.record) or DIGESTS not in stored or FACTS not in told:
            raise _DamagedError(f"{file} is of another job; {remedy}")
        return stored, told

    def _file(self, number: int) -> Path:
        assert self.keep is not None
        return self.keep / f"{self.job.name}-{number:05d}-of-{self.job.shards:05d}.safetensors"

    def _name(self, row: int) -> str:
        """An image as a person knows it."""
        names = getattr(self.job.images, "names", None)
        return f"image {row}" + (f" ({names(slice(row, row + 1))[0]})" if callable(names) else "")


@contextmanager
def _opened(job: Job, keep: str | Path | None, here: Processes) -> Iterator[_Shards]:
    """The shards of a job. The folder is held by the first process, for all."""
    if keep is None:
        yield _Shards(job, None)
        return
    keep = as_path("keep", keep, "folder")
    kind = Kind(
        name=f"{OURS}{job.name} shards 1",
        what="job",
        option=KEEP,
        remedy=f"choose another {KEEP}",
        written=lambda folder, _: [file.name for file in folder.glob(f"{job.name}-*")],
        replaceable=False,
    )
    with begun(here, keep, job.record, kind):
        yield _Shards(job, keep)


def _facts(told: Mapping[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(told[FACTS])
    return facts


def _told_labels(labels: Tensor | None) -> int | str | None:
    if labels is None:
        return None
    first = int(labels[0])
    if bool((labels == first).all()):
        return first
    return f"sha256 {sha256(labels.contiguous().numpy().tobytes()).hexdigest()[:16]}"


def digests(x: Tensor) -> Tensor:
    """A digest of each image, int64 (n,)."""
    rows = x.detach().cpu().contiguous().reshape(len(x), -1).view(torch.uint8).numpy()
    return torch.tensor([int.from_bytes(sha256(row.data).digest()[:8], "little", signed=True) for row in rows])


@contextmanager
def counted_from(first: int) -> Iterator[None]:
    """What a network has failed at, by its number among all images."""
    try:
        yield
    except NonFiniteError as error:
        error.sample += first
        raise
