"""`ddim-ode sample`: from seeds to a folder of images."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ddim_ode.commands.cascade import refuse_stray, sample_cascade
from ddim_ode.commands.shared.display import note, progress, report
from ddim_ode.commands.shared.types import (
    MODEL,
    Augmentation,
    BatchSize,
    Device,
    Dtype,
    EtaRange,
    EtaScale,
    Fast,
    Force,
    GridOrProfile,
    Guidance,
    GuidanceRange,
    Json,
    MaxNfe,
    MethodName,
    On,
    Out,
    Png,
    Precision,
    Tol,
    given,
)
from ddim_ode.support.outputs import new_folder
from ddim_ode.support.processes import ProcessError, world_size

SHARDS = {"shards", "shard_size", "format"}  # what asks for them
ALONE = {"images": "--format png writes pictures", "trace": "a plain run draws it"}  # what has none


class Kind(str, Enum):
    safetensors = "safetensors"
    png = "png"
    npz = "npz"
    webdataset = "webdataset"


class FinalStep(str, Enum):
    denoise = "denoise"
    sigma_min = "sigma_min"


def sample(
    context: typer.Context,
    *,
    out: Out,
    model: Annotated[str | None, MODEL] = None,
    method: MethodName = "ddim",
    force: Force = False,
    nfe: Annotated[
        int | None,
        typer.Option(help="Most evaluations a sample may cost (adaptive methods: on average).", show_default="20"),
    ] = None,
    tol: Tol = None,
    max_nfe: MaxNfe = None,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="How many samples: seeds 0..N-1.", show_default="16")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="SEEDS", help="One a sample: 0-63, or 0,5,9, or 3.")] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Class, 'each' for all in turn, a FILE with one a line (or .npy), or proportions:FILE.",
            show_default="the null class",
        ),
    ] = None,
    guidance: Guidance = 1.0,
    guidance_range: GuidanceRange = None,
    stages: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of a cascade: METHOD:NFE or METHOD:tol=TOL for each stage, as in ddim:20,adams3:8.",
            show_default="as --method and --nfe say",
        ),
    ] = None,
    augmentation: Augmentation = None,
    eta: EtaScale = None,
    eta_range: EtaRange = None,
    grid: GridOrProfile = None,
    final: Annotated[
        FinalStep, typer.Option(help="Last step: evaluate the image at sigma_min, or stop there.")
    ] = FinalStep.denoise,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    fast: Fast = False,
    images: Png = False,
    shards: Annotated[
        bool,
        typer.Option("--shards", help="Write many files and an index, and go on where a run was; so does torchrun."),
    ] = False,
    shard_size: Annotated[
        int | None,
        typer.Option(help="Samples of a shard, a multiple of --batch-size.", show_default="1024, or 64 MB, or a 32nd"),
    ] = None,
    format: Annotated[
        Kind | None,
        typer.Option(
            "--format",
            help="Of shards: whole tensors, or pictures as the field keeps them.",
            show_default="safetensors",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Of torch in each process.", show_default="all, or 1 with --shards"),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Adaptive methods: write trace.png too, the steps of each sample.")
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recreate the samples of a manifest.json, bit for bit; no MODEL then."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the earlier run in DIR. With --shards it goes before this begins."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Draw samples into a folder: grid.png, samples.safetensors and a manifest.json that recreates them.

    With --shards, and under torchrun, there are many files of samples and an index.json; run again, it goes on.
    """
    told = given(context)
    sharded = bool(SHARDS & told.keys()) or world_size() > 1
    if manifest is None and model is None:
        context.fail("give a MODEL, or --manifest FILE to recreate samples")
    if manifest is not None:
        free = {"manifest", "out", "images", "trace", "overwrite", "as_json", *SHARDS}
        extra = [written for name, written in told.items() if name not in free]
        if extra:
            context.fail(f"--manifest says it all; leave out {', '.join(extra)}")
    from ddim_ode.cascade import is_cascade
    from ddim_ode.checkpoints import bundled, load
    from ddim_ode.checkpoints.hub import is_hub_id
    from ddim_ode.commands.shared import parsing
    from ddim_ode.commands.shared.cascades import is_cascade_run
    from ddim_ode.commands.shared.labels import parse_classes
    from ddim_ode.commands.shared.manifest import PROFILE, RunSettings, recall
    from ddim_ode.commands.shared.quick import COMPILING, tell
    from ddim_ode.commands.shared.runs import complete, draw
    from ddim_ode.commands.shared.sharded import layout_of, sample_into_shards
    from ddim_ode.data import is_picture
    from ddim_ode.planning.options import AUTO, DEFAULT_BATCH
    from ddim_ode.planning.tuned_schema import StoredMethod
    from ddim_ode.solvers import TUNED, Method

    of_cascade = is_cascade_run(manifest) if manifest is not None else is_cascade(str(model))
    refuse_stray(context, told, of_cascade)
    if of_cascade:
        if world_size() > 1:
            raise ProcessError(
                f"a cascade runs in one process, and this is one of {world_size()}; leave the launcher out"
            )
        sample_cascade(context)
        return
    record = profile = network = None
    if manifest is not None:
        network, record = recall(manifest)
        settings = record.arguments
    else:
        if method == TUNED:
            network = load(str(model))
        chosen = parsing.parse_method(method, network, force)
        if force:
            parsing.refuse_force([chosen])
        profile = parsing.parse_profile(grid)
        settings = RunSettings(
            model=str(model) if model in bundled() or is_hub_id(str(model)) else str(Path(str(model)).resolve()),
            method=TUNED if isinstance(chosen, Method) else chosen,
            tuned=StoredMethod.of(chosen) if isinstance(chosen, Method) else None,
            force=force,
            nfe=nfe,
            tol=tol,
            max_nfe=max_nfe,
            seeds=parsing.parse_seeds(seeds, count),
            label=parse_classes(label),
            guidance=guidance,
            guidance_range=parsing.parse_guidance_range(guidance_range),
            eta=parsing.parse_eta(eta),
            eta_range=parsing.parse_eta_range(eta_range),
            grid=AUTO if profile else parsing.parse_grid(grid),
            final=final.value,
            dtype=dtype.value,
            batch_size=DEFAULT_BATCH if batch_size is None else batch_size,
            device=parsing.pick_device(device.value),
            fast=fast,
        )
        assert settings.options  # which are checked before a model is loaded
        if isinstance(settings.grid, tuple) and "final" in told:
            context.fail("an explicit --grid ends where it says; leave --final out")
        network = network or load(str(model))
    if images and not is_picture(network.shape):
        context.fail(f"samples of shape {network.shape} are no pictures; leave --images out")
    row = settings.options.row
    if trace and not row.tells_steps:
        method = settings.method
        context.fail(f"{method} does not choose its steps, or not visibly; leave --trace out, or use --method adaptive")
    if sharded or (record and record.shards):
        if stray := [name for name in ALONE if name in told]:
            context.fail(f"shards take no --{stray[0]}: {ALONE[stray[0]]}; leave that out")
        layout = layout_of(format and format.value, shard_size, record)
        sample_into_shards(
            *(out, network, settings, layout),
            record=record,
            profile=profile,
            threads=threads or 1,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    searching = record is None and settings.nfe and row.adaptive
    status = COMPILING if settings.fast else "looking for the tolerance" if searching else ""
    status = "making the grid" if record is None and settings.grid == AUTO else status
    with new_folder(out, overwrite) as folder, progress(len(settings.seeds), status) as update:
        drawn = draw(folder, network, settings, record, images, update, profile=profile, threads=threads)
        record, count = complete(folder, network, settings, drawn, trace)
    if drawn.profile and not profile:
        spent = f"the profile of the model that the grid is made from took {drawn.profile.evaluations:,} evaluations"
        note(f"{spent}; --grid {out / PROFILE} spares them next time")
    tell(drawn.account)
    report(out, record, drawn.solution, as_json, count)
