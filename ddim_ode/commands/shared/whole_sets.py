"""What the commands do that measure a whole set of images, shard by shard, by one process or many.

The first process tells the results, and leaves them in the folder of the shards.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_ode.commands.shared import display, likelihoods
from ddim_ode.commands.shared.overall import overall
from ddim_ode.commands.shared.parsing import parse_labels
from ddim_ode.image_sets import ImageSet, open_images
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards.arguments import total_of
from ddim_ode.shards.likelihoods import likelihood_shards
from ddim_ode.shards.measuring import KEEP, THREADS, Watched, check_folder
from ddim_ode.shards.roundtrips import reconstruct_shards
from ddim_ode.support.outputs import new_file
from ddim_ode.support.processes import Processes, processes, world_size
from ddim_ode.support.records import finite, write_json
from ddim_ode.support.versions import circumstances

__all__ = ["THREADS", "check_kept", "likelihood", "open_set", "reconstruct"]

RESULTS = "results.json"


@dataclass(frozen=True)
class WholeSet:
    """A set of images, of which the first `total` are measured, and the class of each (None: the null class)."""

    images: ImageSet
    total: int
    labels: Sequence[int] | None

    @property
    def names(self) -> list[str]:
        return self.images.names(slice(0, self.total))

    @property
    def heading(self) -> str:
        return f"{display.visible(self.images.name)}: {display.many(self.total, 'images')}"

    @property
    def counted(self) -> dict[str, Any]:
        """What there is of it, and what was asked for."""
        return {"set": self.images.name, "in_set": len(self.images), "asked": self.total}


def check_kept(keep: Path | None, strange: Mapping[str, bool] | None = None) -> None:
    """Raise ProcessError for several processes without a folder, SampleError for options that a whole set has not."""
    check_folder(keep, world_size())
    if given := [option for option, there in (strange or {}).items() if there]:
        raise SampleError(
            f"{given[0]} is for a few images; with {KEEP} the results are in {keep}: leave {given[0]} out"
        )


def open_set(
    model: Model, paths: Sequence[Path] | None, count: int | None = None, label: str | None = None, resize: bool = False
) -> WholeSet:
    """The set of that name or in that place, of images for the model; its own labels unless others are given.

    Raises:
        DataError: there is no such set, it is damaged, or its images are of another shape.
        SampleError: a count or labels that cannot be, or several paths.
    """
    if not paths or len(paths) > 1:
        found = f"{len(paths)} were given" if paths else "none was given"
        raise SampleError(
            f"{KEEP} measures one set of images, and {found}; name a folder, an .npz, or fashion-mnist, say"
        )
    if len(model.shape) != 3:
        raise SampleError(f"this model's data have shape {model.shape}, which no set of images has; use the library")
    channels, height, width = model.shape
    images = open_images(str(paths[0]), (channels, height, width), resize)
    total = total_of(images, count)
    if label is not None or images.labels is None or not model.num_classes:
        return WholeSet(images, total, parse_labels(label, total))
    own: list[int] = images.labels[:total].tolist()
    if max(own) >= model.num_classes:
        raise SampleError(
            f"{images.name} has a label {max(own)}, and this model has labels 0..{model.num_classes - 1}"
            "; use --label none, or give labels"
        )
    return WholeSet(images, total, own)


def likelihood(
    model: Model,
    given: WholeSet,
    keep: Path | None,
    how: Mapping[str, Any],
    *,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure the likelihood of every image of a set and tell of it, in results.json of `keep` and a CSV file."""
    here, dimensions = processes(), given.images[:1].numel()
    writes = out is not None and here.main
    with new_file(Path(out or ""), overwrite) if writes else nullcontext() as file:
        started = time.perf_counter()
        with _watched(here, given.total) as watched:
            found = likelihood_shards(
                model, given.images, keep, labels=given.labels, count=given.total, here=here, watched=watched, **how
            )
        if found is None:
            return
        told = {**given.counted, **likelihoods.summary(found, dimensions, time.perf_counter() - started)}
        rows = likelihoods.rows_of(given.names, given.labels, found)
        if file:
            likelihoods.write_rows(file, rows)
    assert keep is not None
    write_json(keep / RESULTS, finite({**told, **circumstances(), "threads": how["threads"]}))
    files = {"out": None if out is None else str(out), "results": str(keep / RESULTS)}
    likelihoods.report(given.heading, how["method"], found, told, rows, files, as_json)


def reconstruct(
    model: Model,
    given: WholeSet,
    keep: Path | None,
    methods: Sequence[str],
    how: Mapping[str, Any],
    *,
    guidances: Sequence[float],
    as_json: bool,
) -> None:
    """Encode every image of a set, decode it, and tell what came back: results.json in `keep`, a row each method."""
    here, started = processes(), time.perf_counter()
    with _watched(here, given.total) as watched:
        found = reconstruct_shards(
            model,
            given.images,
            keep,
            methods=methods,
            guidances=guidances,
            labels=given.labels,
            count=given.total,
            here=here,
            watched=watched,
            **how,
        )
    if found is None:
        return
    assert keep is not None
    told = {**given.counted, "seconds": time.perf_counter() - started}
    results = {**told, "images": given.names, "labels": given.labels, **circumstances(), "threads": how["threads"]}
    write_json(keep / RESULTS, finite({**results, "methods": [each.details() for each in found]}))
    rows = [each.summary() for each in found]
    if as_json:
        display.print_json({**told, "results": str(keep / RESULTS), "count": given.total, "methods": rows})
    else:
        print(f"{given.heading}, {str(how['dtype']).removeprefix('torch.')}")
        display.print_attempts(rows)
        display.say(keep / RESULTS)


@contextmanager
def _watched(here: Processes, total: int) -> Iterator[Watched]:
    """Progress over all processes and, in a log, a line of what this one has done."""
    with overall(here, total, what="measuring", unit="images") as shown:
        yield Watched(done=shown.update, idle=shown.idle)
    shown.finished(f"its part of {total:,} images")
