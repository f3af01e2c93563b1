"""The command line: parse, call, print.

Whatever needs torch is imported inside the commands, so that `ddim-ode --help` answers at once. Bad input is one
line on stderr and exit code 2; a traceback is a bug of ours.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ddim_ode import __version__, cli_convert, cli_latents, cli_measures, cli_sample, cli_study
from ddim_ode.cli_options import Config, Json, Model, NoEma, Out
from ddim_ode.display import explain, kind_of, plain_warnings, print_json, print_table, text

app = typer.Typer(
    help="Sample diffusion models by solving an ODE in the noise-to-signal ratio sigma, at a measured cost (NFE).",
    add_completion=False,
    no_args_is_help=True,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); returns the exit code."""
    command = typer.main.get_command(app)
    try:
        # Not app(): that prints usage errors as boxes of many lines.
        given = list(sys.argv[1:] if arguments is None else arguments)
        with plain_warnings(), command.make_context("ddim-ode", given) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as exit:
        return exit.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `ddim-ode methods | head -1`: no one is left to print to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print("error:", " ".join(message.split()), file=sys.stderr)
        return 2


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ddim-ode {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")] = (
        False
    ),
) -> None: ...


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that come with the package."""
    from ddim_ode.checkpoints import bundled, describe, load

    keys = ("name", "shape", "classes", "parameters", "description")
    rows = [{"name": name, **describe(load(name))} for name in bundled()]
    rows = [{key: row[key] for key in keys} for row in rows]
    if as_json:
        print_json({"models": rows})
    elif rows:
        print_table(keys, rows)
    else:
        print("no models are bundled; give the folder of a model instead")


@app.command()
def info(model: Model, config: Config = None, no_ema: NoEma = False, as_json: Json = False) -> None:
    """Show what a model is: its shape, classes, schedule, range of sigma and weights."""
    from ddim_ode.checkpoints import describe, load

    facts = describe(load(model, config, not no_ema))
    if as_json:
        print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key.replace('_', ' '):<12} {text(value)}")


@app.command()
def methods(as_json: Json = False) -> None:
    """List the sampling methods and the grids of sigma they run on.

    The order is that of the error, start and end included: a first or last step of Euler limits many methods to 2.

    An adaptive method takes --tol and chooses its steps, for each sample its own. Where they are coupled a batch shares
    them, and a sample depends on its companions.
    """
    from ddim_ode.grids import GRIDS
    from ddim_ode.solvers import METHODS

    columns = ("order", "evaluations", "deterministic", "adaptive", "per_sample", "invertible", "grid", "summary")
    rows = [{"name": name, **{column: getattr(m, column) for column in columns}} for name, m in METHODS.items()]
    grids = [{"grid": name, "summary": (rule.__doc__ or "").partition("\n")[0]} for name, rule in GRIDS.items()]
    if as_json:
        print_json({"methods": rows, "grids": grids})
    else:
        kinds = [{**row, "nfe/step": row["evaluations"], "kind": kind_of(row)} for row in rows]
        print_table(("name", "order", "nfe/step", "kind", "grid", "summary"), kinds)
        print_table(("grid", "summary"), grids)


app.command()(cli_sample.sample)
app.command()(cli_latents.encode)
app.command()(cli_latents.decode)
app.command()(cli_measures.reconstruct)
app.command()(cli_latents.interpolate)
app.command()(cli_measures.likelihood)
app.command()(cli_convert.convert)
app.command()(cli_study.compare)
app.command()(cli_study.recommend)


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a bundled one's name: fashion.")],
    out: Out,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the training data.", show_default="as CONFIG says")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model, or go on with the run that DIR holds; the result is in DIR/model.

    On several GPUs: accelerate launch -m ddim_ode train CONFIG --out DIR
    """
    from ddim_ode.config import ConfigError, TrainConfig, read_yaml
    from ddim_ode.train import train as run

    bundled = {file.stem: file for file in (Path(__file__).parent / "configs").glob("*.yaml")}
    file = Path(config)
    if not file.is_file():
        if config not in bundled:
            raise ConfigError(
                f"there is no config {config!r}; give a YAML file, or one of: {', '.join(sorted(bundled))}"
            )
        file = bundled[config]
    settings = read_yaml(TrainConfig, file)
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):  # the progress bar; stdout is for the result
        model = run(settings, out, data)
    seconds = time.perf_counter() - started
    if os.environ.get("RANK", "0") != "0":  # set by accelerate launch and torchrun
        return
    if as_json:
        print_json({"model": str(model), "steps": settings.steps, "seconds": seconds})
    else:
        print(f"{model}: {settings.steps} steps done, {seconds:.0f} s this time")
