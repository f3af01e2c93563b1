"""The command line: parse, call, print.

Whatever needs torch is imported inside the commands, so that `ddim-ode --help` answers at once. Bad input is one
line on stderr and exit code 2; a traceback is a bug of ours.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ddim_ode import __version__
from ddim_ode.commands import convert, latents, measures, models, sample, study, train
from ddim_ode.commands.shared.display import explain, plain_warnings

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


for command in (
    *(models.models, models.info, models.methods),
    *(sample.sample, latents.encode, latents.decode, measures.reconstruct, latents.interpolate, measures.likelihood),
    *(convert.convert, study.compare, study.recommend, train.train),
):
    app.command()(command)
