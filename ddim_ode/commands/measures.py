"""The commands that measure images along the flow, and back: parse, call, print. `cli` registers them."""

import csv
import time
from collections.abc import Sequence
from contextlib import nullcontext
from io import StringIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.display import progress
from ddim_ode.commands.shared.types import (
    BatchSize,
    Count,
    Deterministic,
    Device,
    Dtype,
    GridUpText,
    Guidance,
    Images,
    Json,
    LabelsText,
    MaxNfe,
    ModelName,
    Nfe,
    On,
    Overwrite,
    OverwriteFile,
    Precision,
    Resize,
    Tol,
    arguments,
)
from ddim_ode.support.files import replacing
from ddim_ode.support.outputs import finish, new_file, new_folder

if TYPE_CHECKING:
    from ddim_ode.commands.shared.input_images import InputImages
    from ddim_ode.likelihood import Likelihood


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
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for results.json and a picture of each method."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode images, decode them, and say what came back: a row each method.

    Errors are in data units, of images in [-1, 1]; MSE and PSNR are those of images in [0, 1].
    """
    from ddim_ode.commands.shared import input_images, parsing, roundtrips
    from ddim_ode.commands.shared.manifest import account
    from ddim_ode.support.records import finite, write_json

    names = roundtrips.parse_methods(method, nfe, tol, max_nfe)
    network, precision = parsing.open_model(model, device.value, dtype.value)
    given = input_images.gather(network, images, count, label, resize)
    how: dict[str, Any] = {
        "nfe": nfe,
        "tol": tol,
        "max_nfe": max_nfe,
        "labels": given.labels,
        "grid": parsing.parse_grid(grid),
    }
    how |= {"dtype": precision, "batch_size": batch_size, "deterministic": deterministic}
    scales = [1.0] if guidance in (None, 1) else [1.0, float(guidance)]
    attempts = []
    with nullcontext() if out is None else new_folder(out, overwrite) as folder:
        for name, scale in product(names, scales):
            with progress(len(given.x), what=name) as update:
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
    as_json: Json = False,
) -> None:
    """Measure the log-likelihood of images, in bits per dimension of their bytes, along the probability flow.

    The NFE counts passes forward and vector-Jacobian products: 1 + probes a slope, twice that under guidance.
    """
    from ddim_ode.commands.shared import input_images, parsing
    from ddim_ode.likelihood import log_likelihood

    network, precision = parsing.open_model(model, device.value, dtype.value)
    given = input_images.gather(network, images, count, label, resize)
    sigmas = parsing.parse_grid(grid)
    with nullcontext() if out is None else new_file(out, overwrite) as file:
        started = time.perf_counter()
        with progress(len(given.x), what="measuring") as update:
            found = log_likelihood(
                network,
                given.x,
                labels=given.labels,
                method=method,
                nfe=nfe,
                tol=tol,
                max_nfe=max_nfe,
                grid=sigmas,
                trace="exact" if exact else "hutchinson",
                probes=probes,
                seed=seed,
                dequantize=not centre,
                dtype=precision,
                batch_size=batch_size,
                guidance=guidance,
                callback=update,
            )
        seconds = time.perf_counter() - started
        rows = _rows(given, found)
        if file:
            text = StringIO(newline="")
            writer = csv.DictWriter(text, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            with replacing(file) as new:
                new.write(text.getvalue().encode(errors="backslashreplace"))
    display.report_likelihood(given.what, method, found, seconds, rows, out, as_json)


def _rows(given: "InputImages", found: "Likelihood") -> list[dict[str, Any]]:
    labels: Sequence[int | None] = given.labels or [None] * len(given.names)
    return [
        {"image": name, "label": label, "bits_per_dim": bits, "nats": nats, "standard_error": error, "nfe": nfe}
        for name, label, bits, nats, error, nfe in zip(
            given.names,
            labels,
            found.bits_per_dim.tolist(),
            found.nats.tolist(),
            found.standard_error.tolist(),
            found.nfe.tolist(),
            strict=True,
        )
    ]
