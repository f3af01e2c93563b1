"""The command line: parse, call, print.

Whatever needs torch is imported inside the commands, so that `ddim-ode --help` answers at once. Bad input is one
line on stderr and exit code 2; a traceback is a bug of ours.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ddim_ode import __version__, cli_convert, cli_latents, cli_measures, cli_study
from ddim_ode.cli_options import (
    MODEL,
    BatchSize,
    Device,
    Dtype,
    EtaRange,
    EtaScale,
    Grid,
    Guidance,
    GuidanceRange,
    Json,
    MaxNfe,
    Method,
    Model,
    On,
    Out,
    Overwrite,
    Png,
    Precision,
    Tol,
)
from ddim_ode.display import explain, kind_of, plain_warnings, print_json, print_table, progress, report, text
from ddim_ode.outputs import new_folder

app = typer.Typer(
    help="Sample diffusion models by solving an ODE in the noise-to-signal ratio sigma, at a measured cost (NFE).",
    add_completion=False,
    no_args_is_help=True,
)


class Final(str, Enum):
    denoise = "denoise"
    sigma_min = "sigma_min"


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
def info(model: Model, as_json: Json = False) -> None:
    """Show what a model is: its shape, classes, schedule, range of sigma and weights."""
    from ddim_ode.checkpoints import describe, load

    facts = describe(load(model))
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


@app.command()
def sample(
    context: typer.Context,
    out: Out,
    model: Annotated[str | None, MODEL] = None,
    method: Method = "ddim",
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
        typer.Option(metavar="LABEL", help="Class, or 'each' for all in turn.", show_default="the null class"),
    ] = None,
    guidance: Guidance = 1.0,
    guidance_range: GuidanceRange = None,
    eta: EtaScale = None,
    eta_range: EtaRange = None,
    grid: Grid = None,
    final: Annotated[
        Final, typer.Option(help="Last step: evaluate the image at sigma_min, or stop there.")
    ] = Final.denoise,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    images: Png = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Adaptive methods: write trace.png too, the steps of each sample.")
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recreate the samples of a manifest.json, bit for bit; no MODEL then."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw samples into a folder: grid.png, samples.safetensors and a manifest.json that recreates them."""
    given = _given(context)
    if manifest is None and model is None:
        context.fail("give a MODEL, or --manifest FILE to recreate samples")
    if manifest is not None:
        free = {"manifest", "out", "images", "trace", "overwrite", "as_json"}
        extra = [written for name, written in given.items() if name not in free]
        if extra:
            context.fail(f"--manifest says it all; leave out {', '.join(extra)}")
    from ddim_ode import options, runs
    from ddim_ode.checkpoints import bundled, load
    from ddim_ode.checkpoints.hub import is_hub_id
    from ddim_ode.jobs import DEFAULT_BATCH
    from ddim_ode.solvers import get_method

    record = None
    if manifest is not None:
        network, record = runs.recall(manifest)
        settings = record.arguments
    else:
        get_method(method)
        settings = runs.Settings(
            model=str(model) if model in bundled() or is_hub_id(str(model)) else str(Path(str(model)).resolve()),
            method=method,
            nfe=nfe,
            tol=tol,
            max_nfe=max_nfe,
            seeds=options.parse_seeds(seeds, count),
            label=options.parse_label(label),
            guidance=guidance,
            guidance_range=options.parse_guidance_range(guidance_range),
            eta=options.parse_eta(eta),
            eta_range=options.parse_eta_range(eta_range),
            grid=options.parse_grid(grid),
            final=final.value,
            dtype=dtype.value,
            batch_size=DEFAULT_BATCH if batch_size is None else batch_size,
            device=options.pick_device(device.value),
        )
        if isinstance(settings.grid, tuple) and "final" in given:
            context.fail("an explicit --grid ends where it says; leave --final out")
        network = load(str(model))
    if images and not runs.has_pictures(network):
        context.fail(f"samples of shape {network.shape} are no pictures; leave --images out")
    if trace and not runs.has_trace(settings.method):
        method = settings.method
        context.fail(f"{method} does not choose its steps, or not visibly; leave --trace out, or use --method adaptive")
    search = "looking for the tolerance" if record is None and settings.nfe and get_method(method).adaptive else ""
    with new_folder(out, overwrite) as folder, progress(len(settings.seeds), search) as update:
        drawn = runs.draw(network, settings, record, update)
        record = runs.write(folder, network, settings, drawn, images, trace)
    report(out, record, drawn.solution, as_json)


def _given(context: typer.Context) -> dict[str, str]:
    """The arguments on the command line: parameter -> how the user writes it."""
    written = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = parameter.opts[0]
            written[name] = option if option.startswith("-") else name.upper()
    return written


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
