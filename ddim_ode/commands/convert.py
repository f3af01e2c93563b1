"""`ddim-ode convert`: a model from one kind of folder to another."""

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ddim_ode.commands.shared.display import print_json, say
from ddim_ode.commands.shared.types import ConfigFile, Json, ModelName, NoEma


class To(str, Enum):
    ddim_ode = "ddim_ode"
    diffusers = "diffusers"


def convert(
    *,
    model: ModelName,
    out: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.", show_default=False)],
    to: Annotated[
        To | None, typer.Option(help="Kind of folder to write.", show_default="the one that MODEL is not")
    ] = None,
    config: ConfigFile = None,
    no_ema: NoEma = False,
    as_json: Json = False,
) -> None:
    """Write a model as a folder of diffusers, or one of diffusers (or of the DDIM code) as a folder of ours.

    Weights keep the precision they are stored in. The other commands take a MODEL as it is: convert a checkpoint that
    needs --config or --no-ema, and give them the result.
    """
    from ddim_ode.checkpoints.convert import convert as run

    done = run(str(model), out, None if to is None else to.value, config, not no_ema)
    if as_json:
        print_json({"out": str(out), **asdict(done)})
    else:
        say(f"{out}: a folder of {done.kind}, weights in {done.dtype} as they were stored (averaged: {done.ema})")
        if done.dropped:
            say(f"left behind: {', '.join(done.dropped)}")
