"""A run of `ddim-ode sample`: samples are drawn in blocks, of which one is in memory, and go to disk as they come."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from ddim_ode.commands.shared.manifest import PROFILE, SAMPLES, Manifest, RunSettings, weights_of
from ddim_ode.data import is_picture, save_grid, save_images
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import AUTO
from ddim_ode.planning.plan import Callback, Progress, prepare
from ddim_ode.planning.profile import Profile, profile_of
from ddim_ode.planning.tolerance import ends_for
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import Solution
from ddim_ode.support.counts import spread
from ddim_ode.support.outputs import finish
from ddim_ode.support.process import computing
from ddim_ode.support.tensors import writing
from ddim_ode.support.versions import circumstances

BLOCK = 1024  # samples that are in memory at once, or fewer large ones, or a batch
BYTES = 2**26  # that they take
COUNTS = ("nfe", "steps", "rejected", "converged")


@dataclass(frozen=True)
class Drawn:
    """Samples that are on disk, and how they came to be."""

    solution: Solution  # whose x are those of the first block alone
    sigmas: tuple[float, ...]  # as in Manifest
    labels: list[int] | None
    seconds: float
    threads: int
    profile: Profile | None = None  # that the grid was made from


def draw(
    folder: Path,
    model: Denoiser,
    settings: RunSettings,
    record: Manifest | None = None,
    images: bool = False,
    callback: Callback | None = None,
    profile: Profile | None = None,
) -> Drawn:
    """Draw the samples that the settings ask for into samples.safetensors and, if asked for, images/.

    They are drawn in blocks of some batches, of which one is in memory. With an earlier run's record it is done by that
    run's grid or tolerance, and threads. A grid for this model is made from the profile, or from one that is measured
    first; the folder keeps it.

    Raises as `sample` does.
    """
    options, seeds = settings.options, settings.seeds
    if record:
        options = replace(options, nfe=None, grid=record.sigmas, tol=record.tol)
    labels = _labels(settings, model.num_classes)
    if options.guidance != 1 and model.num_classes and settings.label is None:
        raise GuidanceError(f"guidance={settings.guidance:g} has no label to guide to; give --label 0 or --label each")
    seconds, parts = 0.0, list[Solution]()
    with computing(record.threads if record else None), writing(folder / SAMPLES) as file:
        moved = model.to(settings.device, options.dtype)
        if settings.fast:
            moved = moved.fast()
            warm_up(moved, min(settings.batch_size, len(seeds)))
        if options.grid == AUTO:
            plan = prepare(moved, replace(options, grid=profile or AUTO), len(seeds), labels=labels)
            profile = profile or profile_of(plan.model, plan.labels is not None)  # which is known by now
            options = replace(options, nfe=None, grid=plan.sigmas)  # once, for all blocks
            profile.save(folder / PROFILE)
        file.reserve("x", options.dtype, (len(seeds), *model.shape))
        for rows in _blocks(len(seeds), settings.batch_size, math.prod(model.shape) * options.dtype.itemsize):
            started = time.perf_counter()
            told, watch = labels and labels[rows], _watching(callback, rows.start)
            try:
                part = sample_with(moved, options, seeds=seeds[rows], labels=told, callback=watch)
            except NonFiniteError as error:
                error.sample += rows.start
                raise
            part = replace(part, x=part.x.cpu())
            seconds += time.perf_counter() - started
            file.put("x", part.x, rows.start)
            if images:
                save_images(part.x, folder / "images", rows.start)
            parts.append(part if not parts else replace(part, x=part.x.new_empty(0, *model.shape)))
            options = replace(options, nfe=None, tol=part.tol) if part.tol else options  # found once, for all
        solution = _joined(parts)
        file.add("seeds", torch.tensor(seeds))
        file.add("sigmas", solution.sigmas)
        if labels is not None:
            file.add("labels", torch.tensor(labels))
        if options.row.adaptive:
            file.add("nfe", solution.nfe)
            file.add("converged", solution.converged)
        threads = torch.get_num_threads()
    sigmas = ends_for(moved, options) if options.row.adaptive else solution.sigmas
    return Drawn(solution, tuple(sigmas.tolist()), labels, seconds, threads, profile)


def complete(
    folder: Path, model: Denoiser, settings: RunSettings, drawn: Drawn, trace: bool = False
) -> tuple[Manifest, int]:
    """Add grid.png, trace.png if asked for, and manifest.json to samples; returns the manifest, and how many are shown.

    None is shown of samples that are no pictures.
    """
    count = 0
    if is_picture(model.shape):
        columns = model.num_classes if settings.label == "each" else 8
        count = save_grid(drawn.solution.x, folder / "grid.png", columns=min(columns, len(drawn.solution.x)))
    if trace:
        from ddim_ode.commands.shared.pictures import save_trace

        save_trace(drawn.solution, settings.method, folder / "trace.png")
    record = _manifest(model, settings, drawn)
    finish(folder, "sample", record.model_dump(mode="json", exclude={"files"}))
    return record, count


def _manifest(model: Denoiser, settings: RunSettings, drawn: Drawn) -> Manifest:
    """All that it takes to draw these samples again."""
    return Manifest(
        arguments=settings,
        model=weights_of(model),
        labels=None if drawn.labels is None else tuple(drawn.labels),
        sigmas=drawn.sigmas,
        tol=drawn.solution.tol,
        nfe=spread(drawn.solution.nfe),
        seconds=drawn.seconds,
        **circumstances() | {"threads": drawn.threads},
    )


def _blocks(total: int, batch_size: int, each: int) -> Iterator[slice]:
    """The samples, of so many bytes each, in blocks of whole batches: every batch is what it would be in one run."""
    size = max(1, min(BLOCK, BYTES // each) // batch_size) * batch_size
    return (slice(first, min(first + size, total)) for first in range(0, total, size))


def _watching(callback: Callback | None, first: int) -> Callback | None:
    """The callback, told of samples that begin at another place."""
    if callback is None:
        return None

    def update(now: Progress) -> None:
        callback(now._replace(samples=range(first + now.samples.start, first + now.samples.stop)))

    return update


def _joined(parts: Sequence[Solution]) -> Solution:
    """The parts of a run in one."""
    first = parts[0]
    each: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("x", *COUNTS)}
    sigmas = first.sigmas
    if sigmas.ndim == 2:  # where each sample was
        widest = max(part.sigmas.shape[1] for part in parts)
        sigmas = torch.cat([pad(p.sigmas, (0, widest - p.sigmas.shape[1]), value=math.nan) for p in parts])
    return replace(first, **each, sigmas=sigmas)


@torch.no_grad()  # as in a run: with gradients it would be compiled for again
def warm_up(model: Denoiser, count: int) -> None:
    """Compile a fast model by a pass of `count` samples, so that the time of a run is that of sampling."""
    labels = torch.zeros(count, dtype=torch.int64, device=model.device) if model.num_classes else None
    model(torch.zeros(count, *model.shape, device=model.device), 1.0, labels)


def _labels(settings: RunSettings, num_classes: int) -> list[int] | None:
    if settings.label is None:
        return None
    if not num_classes:
        raise SampleError("this model has no classes; leave --label out")
    return [i % num_classes if settings.label == "each" else settings.label for i in range(len(settings.seeds))]
