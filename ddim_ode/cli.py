"""The command line: parse, call, print.

Whatever needs torch is imported inside the commands, so that `ddim-ode --help` answers at once. Bad input is one
line on stderr and exit code 2; a traceback is a bug of ours.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

import ddim_ode
from ddim_ode.commands import (
    comfyui,
    convert,
    edit,
    evaluate,
    latents,
    measures,
    models,
    restore,
    sample,
    study,
    train,
    tune,
    upscale,
)
from ddim_ode.commands.shared.display import plain_warnings
from ddim_ode.commands.shared.explanations import explain
from ddim_ode.errors import one_line
from ddim_ode.support import interrupts
from ddim_ode.support.processes import FAILING, OtherFailedError, ProcessError, fail, speaks, world_size

SHARED = ("sample", "evaluate", "compare", "likelihood", "reconstruct", "train")  # by the processes of torchrun

app = typer.Typer(
    help="Sample diffusion models by solving an ODE in the noise-to-signal ratio sigma, at a measured cost (NFE).",
    add_completion=False,
    no_args_is_help=True,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); returns the exit code."""
    _open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with interrupts.working():
            code = _run(given)
            _flush()
    except BrokenPipeError:  # as in `ddim-ode methods | head -1`: no one is left to print to
        code = 1
    except KeyboardInterrupt:
        code = interrupts.CODE
    except Exception as error:
        message = explain(error)
        if interrupts.happened():  # and a library has made another error of it
            code = interrupts.CODE
        elif message is None:
            fail()
            raise
        else:
            code = 2
            fail()
            if not isinstance(error, OtherFailedError) and speaks(message, FAILING):
                _say(f"error: {one_line(message)}")
    if code == interrupts.CODE or interrupts.happened():
        code = interrupts.CODE
        fail()
        if speaks("interrupted", FAILING):
            _say("interrupted")
    _close_broken()
    return code


def _run(given: list[str]) -> int:
    # Not app(): that prints usage errors as boxes of many lines.
    command = typer.main.get_command(app)
    try:
        with plain_warnings(), command.make_context("ddim-ode", given) as context:
            command.invoke(context)
    except typer.Exit as exit:
        return exit.exit_code
    return 0


def _open_streams() -> None:
    """Standard streams that take any text; for one that was closed, one that goes nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # as after `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        elif hasattr(stream, "reconfigure"):  # what the terminal's encoding does not have is shown as an escape
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _say(line: str) -> None:
    with suppress(OSError):  # no one is left to tell
        print(line, file=sys.stderr, flush=True)


def _close_broken() -> None:
    """Send what a stream still holds, and cannot write, nowhere, so that the end of the program does not complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ddim-ode {ddim_ode.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")] = (
        False
    ),
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the Hugging Face hub for a model.")] = False,
) -> None:
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if world_size() > 1 and context.invoked_subcommand not in SHARED:
        alone = f"{context.invoked_subcommand} runs in one process, and this is one of {world_size()}"
        raise ProcessError(f"{alone}; leave the launcher out (several share the work of {', '.join(SHARED)})")


for command in (
    *(models.models, models.info, models.methods),
    *(sample.sample, latents.encode, latents.decode, measures.reconstruct, latents.interpolate, measures.likelihood),
    edit.edit,
    upscale.upscale,
    restore.restore,
    *(convert.convert, evaluate.evaluate, study.compare, study.recommend, tune.tune, train.train, comfyui.comfyui),
):
    app.command()(command)
