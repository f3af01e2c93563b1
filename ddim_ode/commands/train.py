"""`ddim-ode train`: from a configuration to a model, or to a classifier that guides one."""

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

    A CONFIG that says 'classifier' in place of 'model' makes a classifier of noisy images, in DIR/classifier.

    On several GPUs: accelerate launch -m ddim_ode train CONFIG --out DIR
    """
    file = _file(config)
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):  # the progress bar; stdout is for the result
        kind, made, steps = _trained(file, out, data)
    seconds = time.perf_counter() - started
    if os.environ.get("RANK", "0") != "0":  # set by accelerate launch and torchrun
        return
    if as_json:
        print_json({kind: str(made), "steps": steps, "seconds": seconds})
    else:
        say(f"{made}: {steps} steps done, {seconds:.0f} s this time")


def _file(config: str) -> Path:
    """A YAML file, by where it is or by the name of a bundled one."""
    from ddim_ode.support.validation import ConfigError

    bundled = {file.stem: file for file in CONFIGS.glob("*.yaml")}
    if Path(config).is_file():
        return Path(config)
    if config not in bundled:
        raise ConfigError(f"there is no config {config!r}; give a YAML file, or one of: {', '.join(sorted(bundled))}")
    return bundled[config]


def _trained(file: Path, out: Path, data: Path | None) -> tuple[str, Path, int]:
    """What a configuration is of, the folder that was made, and the steps that it has seen."""
    from ddim_ode.support.reading import read_yaml_values
    from ddim_ode.support.validation import ConfigError, read_yaml

    values = read_yaml_values(file, ConfigError)
    if isinstance(values, dict) and "classifier" in values and "model" not in values:
        from ddim_ode.training.classifier import ClassifierTraining, train_classifier

        of_classifier = read_yaml(ClassifierTraining, file)
        return "classifier", train_classifier(of_classifier, out, data), of_classifier.steps

    from ddim_ode.training.config import TrainConfig
    from ddim_ode.training.train import train as train_model

    settings = read_yaml(TrainConfig, file)
    return "model", train_model(settings, out, data), settings.steps
