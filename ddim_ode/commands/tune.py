"""`ddim-ode tune`: the best method for a model at some budgets, into a file."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.types import BatchSize, Device, Dtype, Fast, Guidance, GuidanceRange, Json, ModelName, On

if TYPE_CHECKING:
    from ddim_ode.solvers.origin import Result
    from ddim_ode.tuning import TuneProgress


def tune(
    *,
    model: ModelName,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The file to write; one that was cut short goes on.", show_default=False
        ),
    ],
    nfe: Annotated[str, typer.Option(metavar="NUMBERS", help="Budgets to tune for, between commas.")] = "5,8,10",
    label: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Class, 'each' for all in turn, or 'none'.",
            show_default="each, where there are classes",
        ),
    ] = None,
    guidance: Guidance = 1.0,
    guidance_range: GuidanceRange = None,
    no_refine: Annotated[
        bool, typer.Option("--no-refine", help="Stop after the search, for a tenth of the price.")
    ] = False,
    grid_only: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Tune the grid of this method alone, which can then encode, too."),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="To tune on, as in 1000-1047.")] = "1000-1047",
    held_out: Annotated[str, typer.Option(metavar="SEEDS", help="To judge on, others.")] = "0-63",
    budget: Annotated[int, typer.Option(help="Evaluations to spend on each budget, at most.")] = 100_000,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    fast: Fast = False,
    as_json: Json = False,
) -> None:
    """Tune a method to a model: all numbers of a multistep method, from forward passes alone, for each budget.

    Give the file to --method, or put it beside the model as tuned.json, where --method tuned finds it. With --fast the
    search asks the compiled network, and nothing is refined.
    """
    from ddim_ode.commands.shared import parsing
    from ddim_ode.commands.shared.quick import Batches, quickened
    from ddim_ode.planning.options import DEFAULT_BATCH
    from ddim_ode.tuning import TuneError
    from ddim_ode.tuning import tune as find

    if fast and not no_refine:
        raise TuneError("--fast rounds away the small changes that refining looks at; add --no-refine, or leave it out")
    interval = parsing.parse_guidance_range(guidance_range)
    network, _ = parsing.open_model(model, device.value, Dtype.float32.value)
    own, others = parsing.parse_seeds(seeds, None), parsing.parse_seeds(held_out, None)
    left = len(others) % (batch_size or DEFAULT_BATCH) == 1  # a single one
    with quickened(network, fast, len(own), Batches(batch_size, guidance != 1, left)) as network, _bar() as update:
        found = find(
            network,
            parsing.parse_numbers("nfe", nfe, int),
            seeds=own,
            held_out=others,
            labels=parsing.label_for(network, label),
            guidance=guidance,
            guidance_range=interval and (interval[0], math.inf if interval[1] is None else interval[1]),
            refine=not no_refine,
            grid_only=grid_only,
            budget=budget,
            batch_size=batch_size,
            out=out,
            callback=update,
        )
    assert found.origin
    if as_json:
        display.print_json({"out": str(out), "results": [_record(result) for result in found.origin.results]})
        return
    rows = [_texts(result) for result in found.origin.results]
    display.print_table(tuple(dict.fromkeys(title for row in rows for title in row)), rows)
    for result in found.origin.results:
        for name, errors in result.others:
            if errors.median < result.errors.median or errors.rms < result.errors.rms:
                display.warn(f"with {result.predictions} predictions {name} misses less, in the median or in RMS")
    display.say(out)


def _record(result: "Result") -> dict[str, Any]:
    others = {name: errors._asdict() for name, errors in result.others}
    return asdict(result) | {"errors": result.errors._asdict(), "others": others}


def _texts(result: "Result") -> dict[str, str]:
    """A row of the table: errors on the held-out seeds, median and RMS."""
    how = "refined" if result.refined else "greedy"
    told = {"predictions": str(result.predictions), "tuned": _pair(result.errors), "how": how}
    return told | {name: _pair(errors) for name, errors in result.others} | {"evaluations": f"{result.evaluations:,}"}


def _pair(errors: tuple[float, float]) -> str:
    return f"{errors[0]:.2g} / {errors[1]:.2g}"


@contextmanager
def _bar() -> Iterator[Callable[["TuneProgress"], None]]:
    """Say on stderr what is being done; where that is no terminal, a line for each budget."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:

        def update(now: "TuneProgress") -> None:
            where = f"nfe {now.nfe}: " if now.nfe else "images to compare with: "
            error = "" if now.error is None else f", median error {now.error:.3g}"
            line = f"{where}{now.doing}, {now.evaluations:,} evaluations{error}"
            if now.doing == "done":
                console.print(line, highlight=False)
            status.update(line)

        yield update
