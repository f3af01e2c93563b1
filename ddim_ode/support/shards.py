"""The index of a folder of samples that were written in shards: which files there are, and what is in them.

    index.json                      what was asked for, and of each shard its files with their digests, sealed
    samples-00000-of-00050.safetensors      "safetensors": x (n, *shape), seeds, nfe, converged and, if any, labels
    samples-00000-of-00050.tar              "webdataset": 000000.png and, if any, 000000.cls, by place in the run
    images/000000.png                       "png": by place in the run
    samples.npz                             "npz": arr_0 uint8 (N, H, W, C) and, if any, arr_1 int64 (N,): labels

A folder has an index once all its shards are there, and job.json from the start.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ddim_ode.errors import DDIMError
from ddim_ode.support.records import read_record, write_folded

INDEX, JOB, ARRAYS = "index.json", "job.json", "samples.npz"
KIND = "ddim_ode shards 1"
REMEDY = "give a folder that `ddim-ode sample --shards` has finished"


@dataclass(frozen=True)
class Shard:
    """Samples of one run that follow one another."""

    files: Mapping[str, str]  # name relative to the folder -> sha256, in the samples' order; none of "npz"
    count: int
    seeds: str  # as the command line takes them: "0-1023", "5,9"
    labels: tuple[int, ...] | None  # (count,)
    nfe: Mapping[int, int]  # evaluations of a sample -> how many samples took as many
    not_converged: int


@dataclass(frozen=True)
class Index:
    """What a folder holds."""

    asked: int
    made: int
    format: str  # "safetensors", "png", "npz" or "webdataset"
    shape: tuple[int, ...]  # of a sample, (C, H, W) of a picture
    digest: str  # sha256 over the digests of all files
    shards: tuple[Shard, ...]
    files: Mapping[str, str]  # those that hold all shards in one, as of "npz", likewise

    @property
    def labels(self) -> list[int] | None:
        """(made,), or None where there are none."""
        each = [shard.labels for shard in self.shards]
        return None if None in each else [label for labels in each for label in labels or ()]


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is one of shards some of which may not be there yet."""
    return (folder / JOB).exists() and not (folder / INDEX).exists()


def write_index(folder: Path, index: Index) -> None:
    """Raises OutputError."""
    write_folded(folder / INDEX, KIND, asdict(index))


def read_index(folder: Path, error: type[DDIMError]) -> Index:
    """The index of a folder. Raises `error`: there is none, it is not as it was written, or it contradicts itself."""
    file = Path(folder) / INDEX
    told = read_record(file, KIND, error, REMEDY)
    try:
        shards = tuple(shard_of(each) for each in told["shards"])
        index = Index(**{**told, "shape": tuple(told["shape"]), "shards": shards})
        fault = _fault(index)
    except (LookupError, TypeError, ValueError, AttributeError) as reason:
        raise error(f"{file} does not say what it holds ({reason!r}); {REMEDY}") from None
    if fault:
        raise error(f"{file} contradicts itself: {fault}; {REMEDY}")
    return index


def _fault(index: Index) -> str:
    """What an index says that cannot be; "" for nothing."""
    for shard in index.shards:
        if shard.labels is not None and len(shard.labels) != shard.count:
            return f"it has {len(shard.labels)} labels of {shard.count} samples"
    for files in (index.files, *(shard.files for shard in index.shards)):
        for name in files:
            if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
                return f"its file {name!r} is not in the folder"
    return ""


def shard_of(told: Mapping[str, Any]) -> Shard:
    """A shard, of what JSON keeps of it. Raises TypeError, ValueError or LookupError for anything else."""
    labels = None if told["labels"] is None else tuple(told["labels"])
    return Shard(**{**told, "labels": labels, "nfe": {int(nfe): count for nfe, count in told["nfe"].items()}})
