"""`ddim-ode restore`: images from what was measured of them."""

import time
from enum import Enum
from typing import Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.types import (
    BatchSize,
    Count,
    Device,
    Dtype,
    Force,
    GridText,
    Guidance,
    GuidanceRange,
    Images,
    Json,
    LabelsText,
    MaxNfe,
    ModelName,
    Nfe,
    On,
    Out,
    Overwrite,
    Png,
    Precision,
    Resize,
    SeedsText,
    Tol,
    arguments,
)
from ddim_ode.support.outputs import finish, new_folder

PICTURE = "restored.png"


class Way(str, Enum):
    mmps = "mmps"
    pigdm = "pigdm"
    ddnm = "ddnm"
    dps = "dps"
    repaint = "repaint"


def restore(
    context: typer.Context,
    *,
    model: ModelName,
    operator: Annotated[
        str,
        typer.Option(
            metavar="OPERATOR",
            help="What is measured: mask:half, mask:random:0.7 (missing), mask:box:14, FILE.png (white is known),"
            " down:4, blur:1.5, grey.",
            show_default=False,
        ),
    ],
    out: Out,
    images: Images = None,
    measured: Annotated[
        bool, typer.Option("--measured", help="IMAGES are measurements themselves, and are not measured here.")
    ] = False,
    noise: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the measurement's noise, of images in [-1, 1].",
            show_default="0; of --measured images without a mask, that of rounding to bytes",
        ),
    ] = None,
    count: Count = None,
    resize: Resize = False,
    method: Annotated[Way, typer.Option(help="How the measurement enters.")] = Way.mmps,
    solver: Annotated[
        str,
        typer.Option(
            help="Solver; `ddim-ode methods` lists them. 'tuned', the one beside the model, and FILE.json need --force:"
            " they were tuned to the model without a measurement."
        ),
    ] = "dpmpp_2m",
    force: Force = False,
    nfe: Nfe = None,
    tol: Tol = None,
    max_nfe: MaxNfe = None,
    seeds: SeedsText = None,
    label: LabelsText = None,
    guidance: Guidance = 1.0,
    guidance_range: GuidanceRange = None,
    grid: GridText = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    png: Png = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Restore images of which little was measured: restored.png shows truth, measurement, answer and difference.

    IMAGES, or those of the package, are measured here, so that the answer can be compared; with --measured they are
    what was measured. A prediction of mmps, pigdm and dps costs two evaluations.
    """
    import torch

    from ddim_ode import inverse
    from ddim_ode.commands.shared import measurements, parsing
    from ddim_ode.commands.shared.manifest import account, write_samples
    from ddim_ode.commands.shared.pictures import save_columns
    from ddim_ode.data import is_picture
    from ddim_ode.support.counts import spread

    network, precision = parsing.open_model(model, device.value, dtype.value)
    if not is_picture(network.shape):
        context.fail(f"samples of shape {network.shape} are no pictures; use ddim_ode.restore for them")
    what = measurements.parse_operator(operator, network.shape)
    if measured:
        if resize:
            context.fail("--measured images are taken as they are; leave --resize out")
        given = measurements.measured_already(network, what, noise, paths=images, count=count, label=label)
    else:
        from ddim_ode.commands.shared.input_images import gather

        given = measurements.simulated(what, noise, gather(network, images, count, label, resize))
    numbers = parsing.parse_seeds(seeds, len(given.y))
    chosen = parsing.parse_method(solver, network, force)
    if force:
        parsing.refuse_force([chosen])
    how: dict[str, Any] = {
        "method": method.value,
        "solver": chosen,
        "nfe": nfe,
        "tol": tol,
        "max_nfe": max_nfe,
        "noise_std": given.noise_std,
        "labels": given.images.labels,
        "guidance": guidance,
        "guidance_range": parsing.parse_guidance_range(guidance_range),
        "grid": parsing.parse_grid(grid),
        "dtype": precision,
        "batch_size": batch_size,
    }
    with new_folder(out, overwrite) as folder:
        started = time.perf_counter()
        with display.progress(len(given.y), what="restoring") as update:
            found = inverse.restore(network, given.y, what, seeds=numbers, callback=update, **how)
        seconds, x = time.perf_counter() - started, found.x.cpu()
        tensors = {"x": x, "y": given.y, "seeds": torch.tensor(numbers), "nfe": found.nfe, "residual": found.residual}
        if given.images.labels is not None:
            tensors["labels"] = torch.tensor(given.images.labels)
        if given.truth is not None:
            tensors["truth"] = given.truth
        write_samples(folder, tensors, images=png)
        facts, spent = measurements.compared(what, given, found), spread(found.nfe)
        title = f"{operator}, noise {given.noise_std:.3g}: {method.value} with {solver}, NFE {display.cost(spent)}"
        columns, beside = measurements.columns(what, given, x, facts)
        save_columns(columns, title, folder / PICTURE, beside=beside)
        record = {"nfe": spent.model_dump(), **facts, "images": given.images.names, "labels": given.images.labels}
        record |= {"not_converged": int((~found.converged).sum()), "seconds": seconds}
        finish(folder, "restore", account(network, "restore", arguments(context), **record))
    if as_json:
        files = {"picture": str(out / PICTURE), **display.files_in(out)}
        display.print_json({"out": str(out), **files, "count": len(x), **record})
    else:
        display.say(out / PICTURE)
        who = display.many(len(x), given.images.what)
        print(f"{who} restored by {method.value} with {solver}, measured NFE {display.cost(spent)}, {seconds:.2f} s")
        display.say(*measurements.in_words(facts))
    display.warn_short(record["not_converged"], len(x))
