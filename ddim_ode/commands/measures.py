"""The commands that measure images along the flow, and back: parse, call, print. `cli` registers them."""

import time
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.display import progress
from ddim_ode.commands.shared.types import (
    BatchSize,
    Count,
    Deterministic,
    Device,
    Dtype,
    Fast,
    GridUpText,
    Guidance,
    Images,
    Json,
    Keep,
    LabelsText,
    MaxNfe,
    ModelName,
    Nfe,
    On,
    Overwrite,
    OverwriteFile,
    Precision,
    Resize,
    Threads,
    Tol,
    arguments,
)
from ddim_ode.support.outputs import finish, new_file, new_folder
from ddim_ode.support.processes import world_size


def reconstruct(
    context: typer.Context,
    *,
    model: ModelName,
    images: Images = None,
    count: Count = None,
    resize: Resize = False,
    method: Annotated[
        str, typer.Option(metavar="METHODS", help="Solvers: one, or several between commas.")
    ] = "exact_heun,leapfrog,adams3,ddim",
    nfe: Nfe = None,
    tol: Tol = None,
    max_nfe: MaxNfe = None,
    label: LabelsText = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Scale of classifier-free guidance, tried after 1; costs two evaluations.", show_default="1"),
    ] = None,
    grid: GridUpText = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    deterministic: Deterministic = False,
    device: On = Device.cpu,
    fast: Fast = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for results.json and a picture of each method."),
    ] = None,
    overwrite: Overwrite = False,
    keep: Keep = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Encode images, decode them, and say what came back: a row each method.

    Errors are in data units, of images in [-1, 1]; MSE and PSNR are those of images in [0, 1]. With --keep, over a
    whole set of images, by all processes that torchrun has started.
    """
    from ddim_ode.commands.shared import input_images, parsing, roundtrips, whole_sets
    from ddim_ode.commands.shared.manifest import account
    from ddim_ode.commands.shared.quick import Batches, quickened
    from ddim_ode.solvers import get_method
    from ddim_ode.support.process import computing
    from ddim_ode.support.records import finite, write_json

    names = roundtrips.parse_methods(method, nfe, tol, max_nfe)
    network, precision = parsing.open_model(model, device.value, dtype.value)
    how: dict[str, Any] = {"nfe": nfe, "tol": tol, "max_nfe": max_nfe, "grid": parsing.parse_grid(grid)}
    how |= {"dtype": precision, "batch_size": batch_size, "deterministic": deterministic}
    scales = [1.0] if guidance in (None, 1) else [1.0, float(guidance)]
    batches = Batches(batch_size, len(scales) > 1, any(get_method(name).adaptive for name in names))
    if keep is not None or world_size() > 1:
        whole_sets.check_kept(keep, {"--out": out is not None, "--overwrite": overwrite})
        given_set = whole_sets.open_set(network, images, count, label, resize)
        how["threads"] = threads or whole_sets.THREADS
        with quickened(network, fast, given_set.total, batches, how["threads"], deterministic) as network:
            whole_sets.reconstruct(network, given_set, keep, names, how, guidances=scales, as_json=as_json)
        return
    given = input_images.gather(network, images, count, label, resize)
    how["labels"] = given.labels
    attempts = []
    with (
        nullcontext() if out is None else new_folder(out, overwrite) as folder,
        quickened(network, fast, len(given.x), batches, threads, deterministic) as network,
    ):
        for name, scale in product(names, scales):
            with progress(len(given.x), what=name) as update, computing(threads):
                attempts.append(roundtrips.attempt(network, given.x, name, scale, callback=update, **how))
        roundtrips.check_any(attempts)
        if folder:
            results = {"images": given.names, "labels": given.labels}
            results |= {"methods": finite([roundtrips.details(attempt) for attempt in attempts])}
            write_json(folder / "results.json", results)
            pictures = [file.name for file in roundtrips.draw_pictures(attempts, folder)]
            seconds = sum(attempt.seconds for attempt in attempts)
            finish(folder, "reconstruct", account(network, "reconstruct", arguments(context), seconds=seconds))
    rows = [roundtrips.summary(attempt) for attempt in attempts]
    if as_json:
        files = {"out": str(out), "pictures": [str(out / name) for name in pictures]} if out else {}
        display.print_json({**files, "count": len(given.x), "methods": rows})
    else:
        print(f"{display.many(len(given.x), given.what)}, {dtype.value}")
        display.print_attempts(rows)
        if out:
            display.say(*(out / name for name in ["results.json", *pictures]))


def likelihood(
    *,
    model: ModelName,
    images: Images = None,
    count: Count = None,
    resize: Resize = False,
    method: Annotated[str, typer.Option(help="Solver: a Runge-Kutta method, on a grid or adaptive.")] = "dopri5",
    nfe: Annotated[
        int | None,
        typer.Option(help="Methods on a grid: most passes a sample may cost.", show_default="those of 20 slopes"),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Adaptive methods: error to accept, in data units and nats a dimension.", show_default="0.001"
        ),
    ] = None,
    max_nfe: Annotated[
        int | None,
        typer.Option(help="Adaptive methods: passes after which to give up.", show_default="those of 1000 slopes"),
    ] = None,
    probes: Annotated[int, typer.Option(help="Probes of the trace an image; their error needs 2 or more.")] = 1,
    exact: Annotated[bool, typer.Option("--exact", help="The exact trace instead: a product a dimension.")] = False,
    seed: Annotated[int, typer.Option(help="Of the probes and the dequantisation.")] = 0,
    centre: Annotated[bool, typer.Option("--centre", help="Bytes as they are, without uniform noise.")] = False,
    label: LabelsText = None,
    guidance: Guidance = 1.0,
    grid: GridUpText = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="CSV file to write, a row an image.")
    ] = None,
    overwrite: OverwriteFile = False,
    keep: Keep = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the log-likelihood of images, in bits per dimension of their bytes, along the probability flow.

    The NFE counts passes forward and vector-Jacobian products: 1 + probes a slope, twice that under guidance. With
    --keep, of a whole set of images, by all processes that torchrun has started.
    """
    from ddim_ode.commands.shared import input_images, likelihoods, parsing, whole_sets
    from ddim_ode.likelihood import log_likelihood
    from ddim_ode.support.process import computing

    network, precision = parsing.open_model(model, device.value, dtype.value)
    how: dict[str, Any] = {"method": method, "nfe": nfe, "tol": tol, "max_nfe": max_nfe}
    how |= {"grid": parsing.parse_grid(grid), "trace": "exact" if exact else "hutchinson", "probes": probes}
    how |= {"seed": seed, "dequantize": not centre, "dtype": precision, "batch_size": batch_size, "guidance": guidance}
    if keep is not None or world_size() > 1:
        whole_sets.check_kept(keep)
        given_set = whole_sets.open_set(network, images, count, label, resize)
        how["threads"] = threads or whole_sets.THREADS
        whole_sets.likelihood(network, given_set, keep, how, out=out, overwrite=overwrite, as_json=as_json)
        return
    given = input_images.gather(network, images, count, label, resize)
    with nullcontext() if out is None else new_file(out, overwrite) as file:
        started = time.perf_counter()
        with progress(len(given.x), what="measuring") as update, computing(threads):
            found = log_likelihood(network, given.x, given.labels, callback=update, **how)
        told = likelihoods.summary(found, given.x[0].numel(), time.perf_counter() - started)
        rows = likelihoods.rows_of(given.names, given.labels, found)
        if file:
            likelihoods.write_rows(file, rows)
    files = {"out": None if out is None else str(out)}
    heading = display.many(len(given.x), given.what)
    likelihoods.report(heading, method, found, told, rows, files, as_json)
