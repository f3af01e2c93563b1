"""A run of `ddim-ode sample` into shards, by one process or several."""

import warnings
from dataclasses import replace
from pathlib import Path

from ddim_ode.commands.shared.display import cost, files_in, many, print_json, say, warn_short
from ddim_ode.commands.shared.manifest import Manifest, RunSettings, Shards, read_manifest, weights_of
from ddim_ode.commands.shared.overall import overall
from ddim_ode.commands.shared.quick import account_of, tell
from ddim_ode.commands.shared.runs import labels_of, ready, recorded
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.plan import prepare
from ddim_ode.planning.profile import Profile
from ddim_ode.shards.jobs import ShardWarning
from ddim_ode.shards.listed import GRID
from ddim_ode.shards.samples import Layout, Sharded, draw_shards
from ddim_ode.support.files import reported
from ddim_ode.support.outputs import MANIFEST, finish
from ddim_ode.support.process import computing
from ddim_ode.support.processes import processes
from ddim_ode.support.shards import INDEX
from ddim_ode.support.validation import ConfigError
from ddim_ode.support.versions import circumstances


def layout_of(format: str | None, shard_size: int | None, record: Manifest | None) -> Layout:
    """How to keep samples, where nothing else is said as an earlier run did."""
    asked = {"format": format, "shard_size": shard_size}
    before = record.shards.model_dump() if record and record.shards else {}
    return Layout(**before | {name: value for name, value in asked.items() if value is not None})


def sample_into_shards(
    out: Path,
    model: Denoiser,
    settings: RunSettings,
    layout: Layout,
    *,
    record: Manifest | None = None,
    profile: Profile | None = None,
    threads: int = 1,
    overwrite: bool = False,
    as_json: bool = False,
) -> None:
    """Draw the samples that the settings ask for, add a manifest, and say what they cost.

    With an earlier run's record it is done by that run's grid or tolerance, and threads.

    Raises as `draw_shards`.
    """
    here, options, total = processes(), settings.options, len(settings.seeds)
    if record:
        options, threads = recorded(options, record), record.threads
    elif profile:
        options = replace(options, grid=profile)
    labels = labels_of(settings, model.num_classes, record)
    with computing(threads):  # for which the network is compiled
        moved = ready(model, settings)
    weights = weights_of(model)

    def add_manifest(done: Sharded) -> None:
        plan = prepare(moved, done.options, 1, labels=labels and labels[:1])
        written = Manifest(
            arguments=settings,
            model=weights,
            labels=None if labels is None else tuple(labels),
            sigmas=tuple(plan.sigmas.tolist()),
            tol=plan.tol,
            nfe=done.nfe,
            seconds=done.seconds,
            shards=Shards(format=done.layout.format, shard_size=done.layout.shard_size),
            **circumstances(),
        )
        if done.made or not _says(out / MANIFEST, written):
            with reported(out):
                (out / MANIFEST).unlink(missing_ok=True)
            finish(out, "sample", written.model_dump(mode="json", exclude={"files"}))

    with overall(here, total) as progress:
        done = draw_shards(
            moved,
            options,
            out,
            seeds=settings.seeds,
            labels=labels,
            layout=layout,
            threads=threads,
            facts={"model": weights.sha256, "config": weights.model_dump(mode="json")["config"], "fast": settings.fast},
            overwrite=overwrite,
            here=here,
            callback=progress.update,
            idle=progress.idle,
            finish=add_manifest,
        )
        progress.finished(f"{done.mine} of {many(len(done.index.shards), 'shards')}")
    if here.main:
        tell(account_of(moved))
        _report(out, done, as_json)


def _says(file: Path, written: Manifest) -> bool:
    """Whether a manifest is there, as it was written, and recreates the same, whenever and wherever that was drawn."""
    if not file.is_file():
        return False
    try:
        found = read_manifest(file)
    except ConfigError:
        warnings.warn(f"{file} is not as it was written; it is made again", ShardWarning, stacklevel=2)
        return False
    then = {"seconds", "versions", "platform", "files"}
    return found.model_dump(exclude=then) == written.model_dump(exclude=then)


def _report(out: Path, done: Sharded, as_json: bool) -> None:
    """What a run has written, and what it cost."""
    index, nfe, shards = done.index, done.nfe, len(done.index.shards)
    speed = index.made / done.seconds
    if as_json:
        print_json(
            {
                "out": str(out),
                **files_in(out),
                "index": str(out / INDEX),
                "count": index.made,
                "shards": shards,
                "made": done.made,
                "format": index.format,
                "digest": index.digest,
                "nfe": nfe.model_dump(),
                "tol": done.options.tol,
                "not_converged": done.not_converged,
                "seconds": done.seconds,
                "images_per_second_and_process": speed,
            }
        )
    else:
        say(out / GRID if (out / GRID).is_file() else out)
        if not done.made:
            say(f"{many(shards, 'shards')} of {index.made:,} samples were there already, and are as they were written")
        elif done.made < shards:
            say(f"{shards - done.made} of {many(shards, 'shards')} were there already, and are as they were written")
        time = f"{done.seconds:.2f} s of all processes together, {speed:.1f} images/s each"
        say(f"{index.made:,} samples in {many(shards, 'shards')}, measured NFE {cost(nfe)}, {time}")
        if done.options.tol is not None:
            say(f"tol {done.options.tol:.4g}")
        say(f"digest {index.digest}")
    warn_short(done.not_converged, index.made)
