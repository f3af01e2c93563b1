"""Evaluate a set of images on disk against another: any number of them, over any number of processes, counted.

Work is cut into shards of images, whose features are kept in a folder; what was begun goes on where it was. Nothing
but the digests, and the features of a part of bounded size, is in memory at once.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.data import to_uint8
from ddim_ode.image_sets import ImageSet, open_images
from ddim_ode.image_sets.held import HeldImages
from ddim_ode.metrics.checks import MetricError, finite_values, generator, tensor
from ddim_ode.metrics.evaluation.counts import check_asked, check_distinct
from ddim_ode.metrics.evaluation.features import extractor
from ddim_ode.metrics.evaluation.job import opened
from ddim_ode.metrics.evaluation.result import Evaluation
from ddim_ode.metrics.evaluation.shards import FeatureShards
from ddim_ode.metrics.evaluation.statistics import Statistics, is_statistics, load_statistics
from ddim_ode.metrics.evaluation.totals import gather
from ddim_ode.metrics.evaluation.work import Work
from ddim_ode.metrics.spaces import Features
from ddim_ode.support.checks import as_path, flag, of_kind, whole
from ddim_ode.support.process import MOST_THREADS, computing
from ddim_ode.support.processes import Processes, processes
from ddim_ode.support.records import seal

SHARD = 1000  # images
MOST = 10_000  # of each set in KID, precision and recall, whose cost grows with the square
RESULT = "evaluation.json"

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
        real: likewise (M, C, H, W); or statistics, loaded or the path of an .npz. Where that has images too, in arr_0,
            KID, precision, recall and `copies` are of them.
        features: as in `feature_space`; by default "fashion" for (1, 28, 28) and else "pixels", but only of images of
            at most 3,072 values, as 32 x 32 in colour.
        weights, resize, batch_size, device: as in `extractor`.
        count: how many samples were to be made; by default what their folder says, else what is found.
        repeats: whether samples may be equal to each other.
        out: folder to keep features in, and to go on in; it gets evaluation.json, statistics.npz of real images that
            have none yet and, with `statistics`, samples-statistics.npz. None: nothing is kept, by one process alone.
        seed: of the part of each set for KID, precision and recall, of KID's groups and of the score's ten parts.
        most: how many images that part has; all, where there are fewer.
        shard_size: images of a shard, which one process measures.
        threads: torch's, of each process. Features depend on it in their last bits, as they do on the batch size.
        callback: told how many images this process has done; idle: called while it waits for others.
        here: the processes of this run; by default those of the launcher.

    Memory: of N images in D features about 50 D bytes for each of `most` of them, 48 D min(N, D) bytes for the moments
    and, where statistics are written, 8 D^2; a shard of features, and 64 bytes an image. Whether that fits is looked
    at before the work. Without `out` all features, 4 D N bytes, are in memory too.

    Raises:
        MetricError: another number of samples than asked for, or equal ones; images, features or statistics that do not
            go together; an option that cannot be; or too little memory.
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
    with here.together(), computing(threads):
        ours, theirs = _images("the samples", samples), open_real(real)
        extract = extractor(ours.shape, features, weights, resize, batch_size=batch_size, device=device)
        work = Work(ours, theirs, extract, {"shard_size": shard_size, "device": device, "threads": threads})
        work.check()
        if here.main:
            work.check_memory(most, kept=folder is not None)
        counted = check_asked(ours, asked or ours.asked, here)
        with nullcontext(work.job.record) if folder is None else opened(here, folder, work.job) as stored:
            shelves = work.shelves(folder, seal(stored))
            _make(shelves, here, callback, idle)

            def finish() -> dict[str, Any]:
                totals = [gather(shelf, most, seed, here.check) for shelf in shelves]
                row = work.row(check_distinct(counted, totals[0], repeats), totals, seed, most)
                row = replace(row, seconds=time.perf_counter() - started)
                if folder is not None:
                    row.save(folder / RESULT)
                    work.save_statistics(folder, totals, of_samples=statistics)
                return row.record

            return Evaluation.of(here.shared("evaluation", finish))


def open_real(real: Images | Statistics) -> ImageSet | Statistics:
    """Real images or, of an .npz with mu and sigma, their statistics, and images too where arr_0 has some.

    Raises DataError or MetricError.
    """
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
