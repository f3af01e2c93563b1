"""Many samples into a folder, in shards, by one process or by all that torchrun has started.

A shard is some batches of the run, always the same, whoever draws it: as many processes as there are write the same
bytes. What is on disk already is verified and not drawn again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.grids import Final, Grid
from ddim_ode.models.conditions import Conditions
from ddim_ode.models.denoiser import Model
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.inputs import Labels, asked, check_callback, check_model, check_seeds, check_told
from ddim_ode.planning.options import DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.plan import Callback, Progress
from ddim_ode.planning.profile import Profile
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.shards.blocks import block_size, blocks
from ddim_ode.shards.described import sampling, solving
from ddim_ode.shards.formats import Format, check_format
from ddim_ode.shards.jobs import FOUND, ShardError, digest_of, job, patiently
from ddim_ode.shards.kept import Shelf
from ddim_ode.shards.listed import SAMPLES
from ddim_ode.shards.work import Task, Work
from ddim_ode.solvers import Method
from ddim_ode.solvers.eta import EtaLike
from ddim_ode.support.checks import as_path, flag, whole
from ddim_ode.support.counts import Spread, spread
from ddim_ode.support.process import MOST_THREADS, computing
from ddim_ode.support.processes import Processes, processes
from ddim_ode.support.shards import Index, read_index

ENOUGH = 32  # shards of a run that has as many batches, for processes that do not all end with one at the same time


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How samples are kept.

    Args:
        format: a name in `FORMATS`.
        shard_size: samples of a shard, a multiple of the batch size; None is about 1024 samples, or 64 MB of them, or a
            32nd of all, whichever is least.
    """

    format: str = "safetensors"
    shard_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sharded:
    """A run that is on disk as a whole."""

    index: Index
    layout: Layout  # with its shard size
    options: SolveOptions  # with what was found on the model: the tolerance of a budget, or the sigmas of grid="auto"
    seconds: float  # of all processes together, for all shards
    made: int  # shards, by this run of the processes; the others were there
    mine: int  # shards that this process has made, or found whole

    @property
    def nfe(self) -> Spread:
        """Evaluations of a sample."""
        counts = Counter[int]()
        for shard in self.index.shards:
            counts.update(shard.nfe)
        return spread(torch.tensor(list(counts.elements())))

    @property
    def not_converged(self) -> int:
        return sum(shard.not_converged for shard in self.index.shards)


def sample_shards(
    model: Model,
    out: str | Path,
    method: str | Method = "ddim",
    nfe: int | None = None,
    *,
    seeds: Iterable[int],
    labels: Labels = None,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    eta: EtaLike = None,
    eta_range: tuple[float, float] | None = None,
    grid: Grid | Profile | None = None,
    final: Final = "denoise",
    tol: float | None = None,
    max_nfe: int | None = None,
    first_step: float | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    format: str = "safetensors",
    shard_size: int | None = None,
    threads: int = 1,
    overwrite: bool = False,
    callback: Callable[[float], None] | None = None,
) -> Index:
    """Draw samples into a folder, in shards: those of `sample`, to the last bit where threads and batches are the same.

    Run by torchrun (accelerate, srun) in several processes, each draws the next shard that is missing; the folder must
    be on a file system that all see. Killed and called again, it goes on: what is there is verified by its digests.

    Args:
        out: the folder, see `ddim_ode.support.shards` for what is in it in the end.
        format: "safetensors" holds any sample as it is, x in the dtype of the state; of pictures in [-1, 1], "png" is a
            file each, "npz" one array of bytes, "webdataset" tar archives, through the library of that name.
        shard_size: samples of a shard, a multiple of batch_size (default: about 1024, or 64 MB of large ones, or a 32nd
            of all, whichever is least, but a batch).
        threads: of torch in each process. Sums of small batches are rounded otherwise by another number.
        overwrite: whether another run of ours in the folder may be replaced: it is deleted before this one begins, once
            it is known that this one can be done and has room. The same one goes on anyway.
        callback: called after every step with the number of samples that this process has done, or found done; a part
            of one that is at work counts as a part.

    For all others see `sample`; conditions are those of all samples. An eta that is a function cannot be compared by
    a run that goes on, and is refused; so is a seed that is there twice, since the samples are counted.

    Returns:
        The `Index` of all shards, in every process.

    Raises:
        OutputError: the folder cannot be written, is full, of another run (of another version of torch, too, which
            rounds otherwise) or of somebody else's.
        ShardError: a format or a shard_size that cannot be.
        ProcessError: the other processes are gone.
        And as `sample`.
    """
    options = SolveOptions(
        method=resolved(model, method),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        first_step=first_step,
        grid=grid,
        final=final,
        guidance=guidance,
        guidance_range=guidance_range,
        eta=eta,
        eta_range=eta_range,
        dtype=dtype,
        batch_size=batch_size,
    )
    return draw_shards(
        model,
        options,
        as_path("out", out, "folder"),
        seeds=seeds,
        labels=asked(model, labels, conditions, null),
        layout=Layout(format=format, shard_size=shard_size),
        threads=threads,
        overwrite=flag("overwrite", overwrite),
        callback=callback,
    ).index


def draw_shards(
    model: Model,
    options: SolveOptions,
    out: Path,
    *,
    seeds: Iterable[int],
    labels: Labels | Conditions = None,
    layout: Layout = Layout(),
    threads: int = 1,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    here: Processes | None = None,
    callback: Callable[[float], None] | None = None,
    idle: Callable[[], None] = lambda: None,
    finish: Callable[[Sharded], None] = lambda _: None,
) -> Sharded:
    """Draw samples as `sample_shards` does, with the options in one value.

    facts: what else decides the samples, or tells the model from others better than its fingerprint does, for the
    record of the job. finish: called in the first process when all is there, while it holds the folder. idle: called
    now and then while a process waits for the others.
    """
    here = here or processes()
    with here.together():
        check_callback(callback)
        kind, task, layout = _task(model, options, seeds, labels, layout)
        threads = whole("threads", threads, ShardError, most=MOST_THREADS, why="for a process")
        record = _record(task, layout, threads, facts or {})
        rows = list(blocks(len(task.seeds), layout.shard_size or 1))
        count, numbers = len(task.seeds), prod(model.shape)
        need = kind.room_for(count, count, numbers, numbers * task.options.dtype.itemsize)
        find = partial(task.found, rows[0])
        begun = job(here, out, record, SAMPLES, find=find, overwrite=overwrite, need=need)
        with computing(threads), begun as stored:
            shelf = Shelf(out, digest_of(stored), layout.format, tuple(model.shape), task.seeds, rows)
            work = Work(task.by(stored[FOUND]), task, shelf)
            if here.main:
                work.begin(profiled=stored[FOUND]["grid"] is not None)
            here.shared("begun", lambda: True)
            mine = _drawn(work, here, callback)
            here.wait("shards", len(rows), idle)

            def sharded(index: Index, seconds: float) -> Sharded:
                made, options = here.add("made", 0), work.task.options
                return Sharded(index=index, layout=layout, options=options, seconds=seconds, made=made, mine=mine)

            def complete() -> dict[str, Any]:
                index, seconds = shelf.complete(here)
                finish(sharded(index, seconds))
                return {"seconds": seconds, "digest": index.digest}

            told = here.shared("complete", complete)
            return sharded(patiently(lambda: _index(out, told["digest"]), here), told["seconds"])


def _task(
    model: Model, options: SolveOptions, seeds: Iterable[int], labels: Labels | Conditions, layout: Layout
) -> tuple[Format, Task, Layout]:
    """What there is to draw, and how it is kept, with the sizes of batches and shards. Raises as `sample`."""
    check_model(model)
    numbers = check_seeds(seeds)
    told, kind = check_told(model, labels, len(numbers)), check_format(layout.format, model.shape, len(numbers))
    if len(set(numbers)) < len(numbers):
        twice = next(seed for seed, times in Counter(numbers).items() if times > 1)
        raise ShardError(f"seeds has {twice} in it twice, and samples in shards are counted; leave one of them out")
    options = replace(options, batch_size=options.batch_size or DEFAULT_BATCH)
    size = _shard_size(layout.shard_size, model, options, len(numbers))
    return kind, Task(model, options, numbers, told), replace(layout, shard_size=size)


def _record(task: Task, layout: Layout, threads: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the bytes of the samples. Another version of torch rounds otherwise."""
    return {
        "command": "sample",
        "model": facts["model"] if "model" in facts else fingerprint(task.model),
        **solving(task.options),
        **sampling(task.seeds, task.told),
        **vars(layout),
        "device": task.model.device.type,
        "threads": threads,
        "torch": str(torch.__version__),
        **facts,
    }


def _drawn(work: Work, here: Processes, callback: Callable[[float], None] | None) -> int:
    """Draw the shards that fall to this process and are not there. Returns how many fell to it."""
    done, mine, rows = 0.0, 0, work.shelf.rows
    for n in here.tasks("shards", len(rows)):
        here.check()
        if not work.shelf.whole(n):
            work.make(n, _heard(here, callback, done - rows[n].start))
            here.add("made")
        done, mine = done + rows[n].stop - rows[n].start, mine + 1
        if callback:
            callback(done)
    return mine


def _index(folder: Path, digest: str) -> Index:
    """The index that the first process has written. Raises ShardError for another."""
    index = read_index(folder, ShardError)
    if index.digest != digest:
        raise ShardError(f"{folder} has another index here; give a folder on a file system that all processes share")
    return index


def _heard(here: Processes, callback: Callable[[float], None] | None, before: float) -> Callback:
    """What is told of the steps of a shard, as a count of samples that begins at `before`."""

    def update(now: Progress) -> None:
        here.check()
        if callback:
            callback(before + now.samples.start + len(now.samples) * now.share)

    return update


def _shard_size(given: int | None, model: Model, options: SolveOptions, total: int) -> int:
    """How many samples make a shard. Raises ShardError for as many as would cut a batch."""
    batch = options.batch_size or DEFAULT_BATCH
    if given is None:
        most = block_size(batch, prod(model.shape) * options.dtype.itemsize)
        return max(batch, min(most, total // ENOUGH // batch * batch))
    size = whole("shard_size", given, ShardError)
    if size % batch:
        near = max(batch, size // batch * batch)
        raise ShardError(
            f"shard_size={size} is no multiple of batch_size={batch}, and shards are whole batches"
            f"; use shard_size={near}, or another batch_size"
        )
    return size
