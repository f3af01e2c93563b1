"""A run of `ddim-ode sample`: samples are drawn in blocks, of which one is in memory, and go to disk as they come."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from ddim_ode.commands.shared.labels import EACH, labels_for
from ddim_ode.commands.shared.manifest import PROFILE, SAMPLES, Manifest, RunSettings, weights_of
from ddim_ode.commands.shared.quick import Batches, account_of, made_fast
from ddim_ode.data import is_picture, save_grid, save_images
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import check_told
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.planning.profile import Profile
from ddim_ode.planning.tolerance import ends_for
from ddim_ode.shards.blocks import block_size, blocks, draw_block, settled
from ddim_ode.solvers import Solution
from ddim_ode.support.counts import spread
from ddim_ode.support.outputs import finish
from ddim_ode.support.process import computing
from ddim_ode.support.tensors import writing
from ddim_ode.support.versions import circumstances

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
    account: str | None = None  # of what made the network fast


def draw(
    folder: Path,
    model: Denoiser,
    settings: RunSettings,
    record: Manifest | None = None,
    images: bool = False,
    callback: Callback | None = None,
    *,
    profile: Profile | None = None,
    threads: int | None = None,
) -> Drawn:
    """Draw the samples that the settings ask for into samples.safetensors and, if asked for, images/.

    They are drawn in blocks of some batches, of which one is in memory. With an earlier run's record it is done by that
    run's grid or tolerance, and threads. A grid for this model is made from the profile, or from one that is measured
    first; the folder keeps it. threads: of torch (default: as many as there are).

    Raises as `sample` does.
    """
    options, seeds = settings.options, settings.seeds
    if record:
        options = recorded(options, record)
    elif profile:
        options = replace(options, grid=profile)
    labels = labels_of(settings, model.num_classes, record)
    seconds, parts = 0.0, list[Solution]()
    with computing(record.threads if record else threads), writing(folder / SAMPLES) as file:
        moved = ready(model, settings)
        rows = list(
            blocks(len(seeds), block_size(settings.batch_size, math.prod(model.shape) * options.dtype.itemsize))
        )
        told = check_told(moved, labels, len(seeds))
        found = settled(moved, options, told if told is None else told[rows[0]], rows[0].stop)
        options = found.options
        if found.profile:
            found.profile.save(folder / PROFILE)
        file.reserve("x", options.dtype, (len(seeds), *model.shape))
        for part_of in rows:
            started = time.perf_counter()
            part = draw_block(moved, options, seeds, told, part_of, callback)
            seconds += time.perf_counter() - started
            file.put("x", part.x, part_of.start)
            if images:
                save_images(part.x, folder / "images", part_of.start, max(5, len(str(len(seeds) - 1))))
            parts.append(part if not parts else replace(part, x=part.x.new_empty(0, *model.shape)))
        solution = _joined(parts)
        file.add("seeds", torch.tensor(seeds))
        file.add("sigmas", solution.sigmas)
        if labels is not None:
            file.add("labels", torch.tensor(labels))
        if options.row.adaptive:
            file.add("nfe", solution.nfe)
            file.add("converged", solution.converged)
        used = torch.get_num_threads()
    sigmas = ends_for(moved, options) if options.row.adaptive else solution.sigmas
    return Drawn(solution, tuple(sigmas.tolist()), labels, seconds, used, found.profile, account_of(moved))


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
    finish(folder, "sample", record.model_dump(mode="json", exclude={"files", "shards"}))
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


def _joined(parts: Sequence[Solution]) -> Solution:
    """The parts of a run in one."""
    first = parts[0]
    each: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("x", *COUNTS)}
    sigmas = first.sigmas
    if sigmas.ndim == 2:  # where each sample was
        widest = max(part.sigmas.shape[1] for part in parts)
        sigmas = torch.cat([pad(p.sigmas, (0, widest - p.sigmas.shape[1]), value=math.nan) for p in parts])
    return replace(first, **each, sigmas=sigmas)


def ready(model: Denoiser, settings: RunSettings) -> Denoiser:
    """The model where it is to run, compiled if it is to be fast."""
    moved = model.to(settings.device, settings.options.dtype)
    return made_fast(moved, len(settings.seeds), Batches.of(settings.options)) if settings.fast else moved


def recorded(options: SolveOptions, record: Manifest) -> SolveOptions:
    """The options with the grid or the tolerance that a run had."""
    return replace(options, nfe=None, grid=record.sigmas, tol=record.tol)


def labels_of(settings: RunSettings, num_classes: int, record: Manifest | None = None) -> list[int] | None:
    """The class of each sample: with a record those that a run had, whatever has become of the file that says them.

    Raises GuidanceError where there is none to guide to, SampleError, and DataError for a file.
    """
    if settings.options.guidance != 1 and num_classes and settings.label is None:
        raise GuidanceError(f"guidance={settings.guidance:g} has no label to guide to; give --label 0 or --label each")
    if record and record.labels and settings.label != EACH and isinstance(settings.label, str):
        return list(record.labels)
    return labels_for(settings.label, num_classes, len(settings.seeds))
