"""Evaluate a set of images on disk against another: any number of them, over any number of processes, counted.

Work is cut into shards of images, whose features are kept in a folder; what was begun goes on where it was. Nothing
but the digests, and the features of a part of bounded size, is in memory at once.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.data import to_uint8
from ddim_ode.image_sets import ImageSet, open_images
from ddim_ode.image_sets.held import HeldImages
from ddim_ode.metrics.checks import MetricError, finite_values, generator, tensor
from ddim_ode.metrics.counting import check_asked, check_distinct, copies, count_of
from ddim_ode.metrics.evaluation import Counted, Evaluation
from ddim_ode.metrics.evaluation_folder import Job, opened
from ddim_ode.metrics.extraction import FEATURES, Extractor, extractor
from ddim_ode.metrics.feature_shards import FeatureShards
from ddim_ode.metrics.gathering import Gathered, gather
from ddim_ode.metrics.measuring import measured
from ddim_ode.metrics.spaces import SPACES, Features
from ddim_ode.metrics.statistics import About, Statistics, check_alike, is_statistics, load_statistics, save_statistics
from ddim_ode.support.checks import as_path, flag, of_kind, whole
from ddim_ode.support.process import MOST_THREADS, computing
from ddim_ode.support.processes import Processes, processes
from ddim_ode.support.records import seal

SHARD = 1000  # images
MOST = 10_000  # of each set in KID, precision and recall, whose cost grows with the square
RESULT, STATISTICS, OF_SAMPLES = "evaluation.json", "statistics.npz", "samples-statistics.npz"

Images = str | os.PathLike[str] | Tensor | ImageSet


def evaluate(
    samples: Images,
    real: Images | Statistics,
    *,
    features: Features | None = None,
    weights: str | os.PathLike[str] | None = None,
    resize: str | None = None,
    count: int | None = None,
    repeats: bool = False,
    out: str | os.PathLike[str] | None = None,
    statistics: bool = False,
    seed: int = 0,
    most: int = MOST,
    shard_size: int = SHARD,
    batch_size: int | None = None,
    device: str = "cpu",
    threads: int = 1,
    callback: Callable[[int], None] = lambda done: None,
    idle: Callable[[], None] = lambda: None,
    here: Processes | None = None,
) -> Evaluation:
    """Measure samples against real images, and count them.

    Under torchrun every process calls this alike, takes the next shard, and returns the same.

    Args:
        samples: images (N, C, H, W): what `open_images` takes, or a set that it gave, or a tensor of bytes or of floats
            in [-1, 1].
        real: likewise (M, C, H, W); or statistics, loaded or the path of an .npz.
        features: as in `feature_space`; by default "fashion" for (1, 28, 28) and else "pixels".
        weights, resize, batch_size, device: as in `extractor`.
        count: how many samples were to be made; by default what their folder says, else what is found.
        repeats: whether samples may be equal to each other.
        out: folder to keep features in, and to go on in; it gets evaluation.json, statistics.npz of the real images
            and, with `statistics`, samples-statistics.npz. None: nothing is kept, and there is one process.
        seed: of the part of each set for KID, precision and recall, of KID's groups and of the score's ten parts.
        most: how many images that part has; all, where there are fewer.
        shard_size: images of a shard, which one process measures.
        threads: torch's, of each process. Features depend on it in their last bits, as they do on the batch size.
        callback: told how many images this process has done; idle: called while it waits for others.
        here: the processes of this run; by default those of the launcher.

    Memory: about 50 bytes a feature of `most` images, a shard of features, and 64 bytes an image.

    Raises:
        MetricError: another number of samples than asked for, or equal ones; images, features or statistics that do not
            go together; or an option that cannot be.
        DataError: images that are damaged, missing or of several shapes.
        OutputError: `out` is of another evaluation, of images that have changed since, or cannot be written.
    """
    started = time.perf_counter()
    generator(seed, "")
    repeats, statistics = flag("repeats", repeats), flag("statistics", statistics)
    most, shard_size = whole("most", most, MetricError), whole("shard_size", shard_size, MetricError)
    threads = whole("threads", threads, MetricError, most=MOST_THREADS)
    asked = None if count is None else whole("count", count, MetricError)
    for name, called in (("callback", callback), ("idle", idle)):
        of_kind(name, called, Callable, "a function")  # type: ignore[arg-type]  # a class that instances are asked of
    of_kind("here", here, (Processes, type(None)), "what support.processes.processes() returns")
    folder, here = None if out is None else as_path("out", out, "folder"), here or processes()
    if folder is None and not here.alone:
        raise MetricError(f"out=None has one process, and this is one of {here.size}; give a folder that all share")
    ours, theirs = _images("the samples", samples), open_real(real)
    with computing(threads):
        extract = extractor(ours.shape, features, weights, resize, batch_size=batch_size, device=device)
        work = _Work(ours, theirs, extract, {"shard_size": shard_size, "device": device, "threads": threads})
        work.check()
        counted = check_asked(ours, asked or ours.asked, here)
        with nullcontext() if folder is None else opened(here, folder, work.job):
            shelves = work.shelves(folder)
            _make(shelves, here, callback, idle)

            def finish() -> dict[str, Any]:
                sets = [gather(shelf, most, seed, here.check) for shelf in shelves]
                counts = check_distinct(counted, sets[0], repeats)
                row = replace(work.row(counts, sets, seed, most), seconds=time.perf_counter() - started)
                if folder is not None:
                    for file, found in zip((OF_SAMPLES, STATISTICS), sets, strict=False):
                        if file == STATISTICS or statistics:
                            _save(folder / file, found, extract)
                    row.save(folder / RESULT)
                return row.record

            return Evaluation.of(here.shared("evaluation", finish))


@dataclass(frozen=True)
class _Work:
    """What is compared, and by what. options: others that features depend on, by their names."""

    ours: ImageSet
    theirs: ImageSet | Statistics
    extract: Extractor
    options: Mapping[str, Any]

    @cached_property
    def answers(self) -> Tensor:
        """The features of two images of noise, always the same."""
        noise = torch.randint(256, (2, *self.ours.shape), dtype=torch.uint8, generator=generator(0, "two images"))
        return self.extract(noise)[FEATURES]

    @property
    def depends(self) -> dict[str, Any]:
        """All that features depend on, besides the images."""
        about = asdict(_about(self.extract))
        named = {name: about[name] for name in ("features", "resize", "weights")}
        return {**named, "batch_size": self.extract.batch_size, **self.options}

    @cached_property
    def job(self) -> Job:
        """What a folder of features belongs to; a network that no name tells is told by what it answers."""
        told = [] if self.extract.name in SPACES else self.answers[:, :8].flatten().tolist()
        return Job({"samples": _facts(self.ours), "real": _facts(self.theirs)}, self.depends, told)

    def check(self) -> None:
        """Raise MetricError for sets that cannot be compared."""
        ours, theirs = self.ours, self.theirs
        if isinstance(theirs, Statistics):
            check_alike(theirs, _about(self.extract), self.answers.shape[1])
        elif theirs.shape != ours.shape:
            raise MetricError(
                f"{ours.name} has images {ours.shape}, and {theirs.name} {theirs.shape}; give equal shapes"
            )

    def shelves(self, folder: Path | None) -> list[FeatureShards]:
        """The features of the samples and, if these are images, of the real ones."""
        name, size = seal(self.job.record), self.options["shard_size"]
        sets = {"samples": self.ours, "real": self.theirs}
        return [
            FeatureShards(images, self.extract, size, name, folder and folder / side)
            for side, images in sets.items()
            if isinstance(images, ImageSet)
        ]

    def row(self, counts: Counted, sets: Sequence[Gathered], seed: int, most: int) -> Evaluation:
        """The evaluation, from what the sets of `shelves` come to."""
        real = self.theirs if isinstance(self.theirs, Statistics) else sets[1]
        found = measured(sets[0], real, self.extract.name, seed)
        return Evaluation(
            samples=counts,
            real=count_of(self.theirs.name, real),
            copies=copies(sets[0], real),
            **found.numbers,
            missing=found.missing,
            settings={**self.depends, "seed": seed, "most": most, "of": found.parts},
        )


def open_real(real: Images | Statistics) -> ImageSet | Statistics:
    """Real images or, of an .npz with mu and sigma, their statistics. Raises DataError or MetricError."""
    if isinstance(real, Statistics):
        return real
    if isinstance(real, str | os.PathLike) and is_statistics(Path(real)):
        return load_statistics(Path(real))
    return _images("the real images", real)


def _images(name: str, what: Images) -> ImageSet:
    if isinstance(what, ImageSet):
        return what
    if isinstance(what, Tensor):
        x = tensor(name, what.detach())
        return HeldImages(name, x if x.dtype == torch.uint8 else to_uint8(finite_values(name, x.cpu())))
    return open_images(what)


def _make(
    shelves: Sequence[FeatureShards], here: Processes, callback: Callable[[int], None], idle: Callable[[], None]
) -> None:
    """Make all shards, this process its part of them, and wait for the others."""
    tasks = [(shelf, number) for shelf in shelves for number in range(len(shelf))]
    done = 0

    def watch(more: int) -> None:
        nonlocal done
        here.check()
        done += more
        callback(done)

    for task in here.tasks("features", len(tasks)):
        shelf, number = tasks[task]
        shelf.make(number, watch)
    here.wait("features", len(tasks), idle)


def _save(file: Path, found: Gathered, extract: Extractor) -> None:
    """The statistics of images; of one image there are none."""
    if found.count > 1:
        told = replace(_about(extract), count=found.count, images=found.images)
        spatial = found.spatial and found.spatial.gaussian
        save_statistics(file, Statistics(str(file), found.features.gaussian, spatial, told))


def _about(extract: Extractor) -> About:
    return About(extract.name, extract.resize, extract.weights)


def _facts(images: ImageSet | Statistics) -> dict[str, Any]:
    count = images.about.count if isinstance(images, Statistics) else len(images)
    return {"name": images.name, "count": count, "images": images.identity()}
