"""The commands that compare methods: parse, call, print. `cli` registers them."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.types import BatchSize, Device, Dtype, Force, Guidance, Json, ModelName, On, Precision

if TYPE_CHECKING:
    from torch import Tensor

    from ddim_ode.models.denoiser import Denoiser
    from ddim_ode.study.comparison import StudyProgress
    from ddim_ode.study.recommendation import Recommendation
    from ddim_ode.study.results import Study
    from ddim_ode.study.rows import Row

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
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare solvers at equal measured NFE: error against a reference solution, time, pictures, and a page of it all.

    Every cell starts from the same noise. What is measured is kept in DIR: a run that was cut short goes on, and one
    more method costs its own cells alone.
    """
    from ddim_ode.commands.shared import parsing
    from ddim_ode.study import comparison

    network, precision = parsing.open_model(model, device.value, dtype.value)
    numbers = parsing.parse_seeds(seeds, 64 if count is None and seeds is None else count)
    names = comparison.COMPARED if methods is None else parsing.names_in(methods)
    chosen = {name: parsing.parse_method(name, network, force) for name in names}
    if force:
        parsing.refuse_force(chosen.values())
    with bar() as update:
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
    files = found.save(out)
    if as_json:
        display.print_json({"out": str(out), "files": [str(file) for file in files], **found.results})
    else:
        _print_rows(found)
        _print_verdict(found)
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
    with bar() as update:
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


@contextmanager
def bar() -> Iterator[Callable[["StudyProgress"], None]]:
    """Show how far a study is on stderr, where that is a terminal; the callback moves the bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeElapsedColumn

    columns = ("cell {task.fields[cell]}", BarColumn(), "{task.fields[what]}", TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=None, cell="", what="")

        def update(now: "StudyProgress") -> None:
            cell = f"{now.done + 1}/{now.total}"
            shown.update(task, total=now.total, completed=now.done + now.share, cell=cell, what=now.what)

        yield update


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


def _print_rows(found: "Study") -> None:
    columns = ("method", "grid", "asked", "NFE", "median error", "95% interval", "RMS", "> 0.1", "images/s")
    display.print_table(columns, [dict.fromkeys(columns, "") | _texts(row) for row in found.rows])
    for row in found.rows:
        if row.reason:
            display.say(f"{row.key} {row.status}: {row.reason}")
        if row.not_converged:
            print(f"{row.key}: {row.not_converged} of {len(found.settings.seeds)} did not converge")


def _texts(row: "Row") -> dict[str, str]:
    """The texts of a row by the titles of the table; a title that it has nothing for is missing."""
    asked = f"nfe {row.nfe}" if row.tol is None else f"tol {row.tol:g}"
    texts = {"method": row.method + (f" eta {row.eta}" if row.eta else ""), "grid": row.grid or "", "asked": asked}
    if row.status != "done":
        texts["median error"] = row.status
    if row.measured_nfe:
        texts["NFE"] = f"{row.measured_nfe.mean:.4g}"
    if row.timing:
        texts["images/s"] = f"{row.timing.images_per_second:.3g}"
    if row.error:
        e, mark = row.error, "" if row.resolved else " *"
        texts |= {"median error": f"{e.median:.2g}{mark}", "95% interval": f"{e.median_low:.2g} to {e.median_high:.2g}"}
        texts |= {"RMS": f"{e.rms:.2g}", "> 0.1": f"{e.share:.0%}"}
    return texts


def _print_verdict(found: "Study") -> None:
    from ddim_ode.study.report.words import chosen_on, grids_made, names_of

    reference, timing, results = found.reference, found.timing, found.results
    own = f"its own error about {reference.error.median:.1g} (RMS {reference.error.rms:.1g})"
    print(f"reference: {reference.method}, {reference.nfe_mean:.4g} evaluations a sample, {own}")
    if not reference.agreed:
        display.warn(f"the reference did not settle to {reference.wanted:g}; errors near its own mean nothing")
    if any(row.resolved is False for row in found.rows):
        print("* not well above the reference's own error; a smaller --reference-tol tells more")
    for best in found.best:
        row, tied = found.row(best["key"]), ", ".join(names_of(results, best["tied"], best["key"]))
        assert row.error
        where, others = f" on {row.grid}" if row.grid else "", f" (not told apart: {tied})" if tied else ""
        display.say(f"best at {best['nfe']:>3} evaluations: {row.method}{where}, error {row.error.median:.2g}{others}")
    display.say(*filter(None, (grids_made(results["rows"]), chosen_on(results) if found.best else None)))
    if timing.ratio is not None:
        print(f"{timing.seconds:.0f} s, {timing.ratio:.2f} times what the network alone took", file=sys.stderr)
