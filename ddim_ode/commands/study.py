"""The commands that compare methods: parse, call, print. `cli` registers them."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddim_ode.commands.shared import display, studies
from ddim_ode.commands.shared.types import (
    BatchSize,
    Device,
    Dtype,
    Fast,
    Force,
    Guidance,
    Json,
    ModelName,
    On,
    Precision,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ddim_ode.models.denoiser import Denoiser
    from ddim_ode.study.recommendation import Recommendation

Seeds = Annotated[str | None, typer.Option(metavar="SEEDS", help="One a sample: 0-63, or 0,5,9, or 3.")]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL", help="Class, 'each' for all in turn, or 'none'.", show_default="each, where there are classes"
    ),
]


def compare(
    context: typer.Context,
    *,
    model: ModelName,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the study; one that was cut short goes on.", show_default=False
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Solvers, between commas; `ddim-ode methods` lists them. 'tuned' is the one beside the model,"
            " FILE.json one that was saved.",
            show_default="ten of them",
        ),
    ] = None,
    nfe: Annotated[str, typer.Option(metavar="NUMBERS", help="Budgets, between commas.")] = "5,10,20,50",
    tols: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Tolerances of adaptive methods, instead of the budgets.")
    ] = None,
    grids: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Grids of sigma: 'own' is each method's, 'all' is every one, 'auto' made for each."
        ),
    ] = "own",
    etas: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Scales of noise to try each method with, as in 0,0.5,1.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="How many samples: seeds 0..N-1.", show_default="64")
    ] = None,
    seeds: Seeds = None,
    label: Label = None,
    guidance: Guidance = 1.0,
    reference_tol: Annotated[
        float, typer.Option(help="To which two resolutions of the reference must agree, RMS over an image.")
    ] = 1e-3,
    real: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES", help="Real images for distances: a folder of them, 'fashion-mnist' or 'bundled'."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Where those are measured: fashion, pixels or inception.", show_default="as fits the model"),
    ] = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    fast: Fast = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare solvers at equal measured NFE: error against a reference solution, time, pictures, and a page of it all.

    Every cell starts from the same noise. What is measured is kept in DIR: a run that was cut short goes on, and one
    more method costs its own cells alone. With --fast the reference is that of the network as it is, so that errors
    count what --fast rounds.
    """
    from ddim_ode.commands.shared import parsing
    from ddim_ode.commands.shared.quick import Batches, quickened
    from ddim_ode.solvers import get_method
    from ddim_ode.study import comparison
    from ddim_ode.support.processes import is_main

    network, precision = parsing.open_model(model, device.value, dtype.value)
    numbers = parsing.parse_seeds(seeds, 64 if count is None and seeds is None else count)
    names = comparison.COMPARED if methods is None else parsing.names_in(methods)
    chosen = {name: parsing.parse_method(name, network, force) for name in names}
    if force:
        parsing.refuse_force(chosen.values())
    shrinks = tols is not None or any(get_method(method).adaptive for method in chosen.values())
    batches = Batches(batch_size, guidance != 1, shrinks)
    with quickened(network, fast, len(numbers), batches) as network, studies.bar() as update:
        found = comparison.compare(
            network,
            methods=chosen if any(name != method for name, method in chosen.items()) else names,
            nfe=parsing.parse_numbers("nfe", nfe, int),
            seeds=numbers,
            labels=parsing.label_for(network, label),
            guidance=guidance,
            grids=parsing.names_in(grids),
            etas=[] if etas is None else [parsing.parse_eta(part) for part in parsing.names_in(etas)],
            tols=[] if tols is None else parsing.parse_numbers("tols", tols, float),
            dtype=precision,
            batch_size=batch_size,
            reference_tol=reference_tol,
            real=None if real is None else _real(real, network),
            features=features,
            out=out,
            callback=update,
            command=_command(context),
        )
    if is_main():
        files = found.save(out)
        if as_json:
            display.print_json({"out": str(out), "files": [str(file) for file in files], **found.results})
        else:
            studies.print_rows(found)
            studies.print_verdict(found)
            display.say(*files)
    if not any(row.status == "done" for row in found.rows):
        raise typer.Exit(1)


def recommend(
    *,
    model: ModelName,
    nfe: Annotated[int | None, typer.Option(help="The most evaluations a sample may cost.")] = None,
    tol: Annotated[float | None, typer.Option(help="Or: the error to accept, RMS over an image in [-1, 1].")] = None,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="How many samples to try with.", show_default="16")
    ] = None,
    seeds: Seeds = None,
    label: Label = None,
    guidance: Guidance = 1.0,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    as_json: Json = False,
) -> None:
    """Say which method to take at a budget, or for an error to accept: a small study, and the command that won it."""
    from ddim_ode.commands.shared import parsing
    from ddim_ode.study.recommendation import recommend as ask
    from ddim_ode.study.report.words import chosen_on, grids_made, names_of

    network, precision = parsing.open_model(model, device.value, dtype.value)
    numbers = parsing.parse_seeds(seeds, count)
    classes = parsing.label_for(network, label)
    with studies.bar() as update:
        found = ask(
            network,
            nfe,
            tol,
            seeds=numbers,
            labels=classes,
            guidance=guidance,
            dtype=precision,
            batch_size=batch_size,
            callback=update,
        )
    command = _sampling(model, found, guidance, classes)
    row = found.row
    if as_json:
        record = {"command": command, "reached": found.reached, "row": row.to_dict(), "tied": found.tied}
        display.print_json(record | {"reference": found.study.results["reference"]})
        return
    display.say(command)
    assert row.error
    assert row.measured_nfe
    spread = f"{row.error.median:.2g} (95% interval {row.error.median_low:.2g} to {row.error.median_high:.2g})"
    samples = display.many(len(numbers), "samples")
    print(f"expected error {spread}, median over {samples}, at {row.measured_nfe.mean:.3g} evaluations each")
    if not found.study.reference.agreed:
        display.warn("the reference did not settle, so the error may be its own")
    if tied := names_of(found.study.results, found.tied, row.key):
        display.say(f"not told apart from it: {', '.join(tied)}")
    display.say(*filter(None, (grids_made([row.to_dict()]), chosen_on(found.study.results))))
    if not found.reached:
        display.warn(f"no method tried came within tol={tol:g} at 50 evaluations; this one came closest")


def _real(what: str, network: "Denoiser") -> "Tensor":
    from ddim_ode import data

    if what == "bundled":
        return data.bundled_images()[0]
    if what == "fashion-mnist":
        return data.fashion_mnist("test")[0]
    channels, height, width = network.shape
    return data.image_folder(Path(what), (channels, height, width))[0]


def _command(context: typer.Context) -> str:
    """Repeat the command line, without how it answers, and with a folder of its own."""
    words = ["ddim-ode", "compare"]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is None or source.name == "DEFAULT" or name in ("out", "as_json"):
            continue
        value = context.params[name]
        option = [] if name == "model" else [parameter.opts[0]]
        words += option if value is True else [*option, str(getattr(value, "value", value))]
    return shlex.join([*words, "--out", "study"])


def _sampling(model: str, found: "Recommendation", guidance: float, label: int | str | None) -> str:
    row = found.row
    words = ["ddim-ode", "sample", model, "--method", row.method]
    tol = row.tol or row.found_tol
    words += ["--nfe", str(row.nfe)] if tol is None else ["--tol", f"{tol:.4g}"]
    words += [] if row.grid is None else ["--grid", row.grid]
    words += [] if label is None else ["--label", str(label)]
    words += [] if guidance == 1 else ["--guidance", f"{guidance:g}"]
    return shlex.join([*words, "--out", "samples"])
