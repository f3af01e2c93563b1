"""Which files of a folder a run of samples in shards has written, by its records: no others are deleted with it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from ddim_ode.errors import DDIMError
from ddim_ode.planning.tuned_schema import ranges_in
from ddim_ode.shards.blocks import blocks
from ddim_ode.shards.formats import FORMATS, IMAGES, Place
from ddim_ode.shards.jobs import Kind, ShardError
from ddim_ode.shards.kept import KIND, RECORDS
from ddim_ode.support.outputs import MANIFEST
from ddim_ode.support.records import read_record
from ddim_ode.support.shards import ARRAYS, INDEX, read_index

GRID, PROFILE = "grid.png", "profile.safetensors"


def written(folder: Path, stored: Mapping[str, Any]) -> set[str]:
    """The files that a run with such a record may have written; with an empty one, those that the others name."""
    names = {INDEX, MANIFEST, GRID, PROFILE}
    names.update(_by_job(stored) if stored else _by_others(folder))
    names |= {f"{parent}/" for name in names for parent in PurePosixPath(name).parents}
    return names | {f"{RECORDS}/"} | ({f"{IMAGES}/"} if stored.get("format") == "png" else set())


def _by_job(stored: Mapping[str, Any]) -> Iterator[str]:
    """The files that a job makes one after another."""
    total, size = sum(map(len, ranges_in(stored["seeds"]))), stored["shard_size"]
    kind, shards = FORMATS[stored["format"]], -(-total // size)
    if kind.joined:
        yield ARRAYS
    for n, rows in enumerate(blocks(total, size)):
        yield f"{RECORDS}/{n:05d}.json"
        yield from kind.names(Place(n, shards, rows.start, total), rows.stop - rows.start)


def _by_others(folder: Path) -> Iterator[str]:
    """The files that the records of shards, the index and the manifest name."""
    for file in (folder / RECORDS).glob("*.json"):
        with suppress(DDIMError, LookupError, TypeError):
            told = read_record(file, KIND)["shard"]["files"]
            yield from (f"{RECORDS}/{file.name}", *map(str, told))
    with suppress(DDIMError):
        index = read_index(folder, ShardError)
        yield from index.files
        for shard in index.shards:
            yield from shard.files
    with suppress(DDIMError, LookupError, TypeError):
        yield from map(str, read_record(folder / MANIFEST)["files"])


SAMPLES = Kind(
    name="ddim_ode job 1",
    what="run",
    option="--out",
    remedy="give the same, choose another --out, or replace it with --overwrite",
    written=written,
)
