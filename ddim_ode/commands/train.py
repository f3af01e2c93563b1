"""`ddim-ode train`: from a configuration to a model."""

import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ddim_ode.commands.shared.display import print_json, say
from ddim_ode.commands.shared.types import Json, Out

CONFIGS = Path(__file__).parents[1] / "configs"


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
    from ddim_ode.support.validation import ConfigError, read_yaml
    from ddim_ode.training.config import TrainConfig
    from ddim_ode.training.train import train as run

    bundled = {file.stem: file for file in CONFIGS.glob("*.yaml")}
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
        say(f"{model}: {settings.steps} steps done, {seconds:.0f} s this time")
