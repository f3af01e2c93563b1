"""How fast the shipped configurations train, on pictures that are made up and held in memory."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError, Values
from benchmarks.gpu_sections.clocks import in_turns
from ddim_ode.commands.train import CONFIGS
from ddim_ode.support.validation import read_yaml
from ddim_ode.training.config import TrainConfig
from ddim_ode.training.train import TrainingRun

NAMES = ("fashion", "emoji", "fashion-upscale", "fashion-14", "fashion-ddpm")
UPDATES = 10  # that are timed together


def made_up(config: TrainConfig, folder: Path) -> Path:
    """A batch of random pictures in as many classes as the network knows, a folder of each."""
    network, generator = config.model.network, torch.Generator().manual_seed(0)
    channels, height, width = network.shape[0], network.shape[1] * config.shrink, network.shape[2] * config.shrink
    for k in range(config.batch_size):
        pixels = torch.randint(256, (height * width * channels,), generator=generator, dtype=torch.uint8)
        kind = folder / f"{k % max(network.num_classes, 1):02d}"
        kind.mkdir(exist_ok=True)
        mode = "L" if channels == 1 else "RGB"
        Image.frombytes(mode, (width, height), pixels.numpy().tobytes()).save(kind / f"{k}.png")
    return folder


def updates(setting: Setting, name: str, compiled: bool) -> Values:
    """Steps of the optimizer: a batch made on the CPU, forwards, backwards, the average."""
    config = read_yaml(TrainConfig, CONFIGS / f"{name}.yaml")
    size = setting.pick(config.batch_size, config.model.network.num_classes)  # a picture of each class at least
    count = setting.pick(UPDATES, 1)
    with tempfile.TemporaryDirectory() as made, torch.enable_grad():
        config = config.model_copy(update={"data": made, "batch_size": size, "compile": compiled})
        folder = made_up(config, Path(made))
        run = TrainingRun(config, folder / "run", folder)
        if run.accelerator.device.type != setting.device.type:
            raise SkippedError(f"training takes {run.accelerator.device} where there is one")
        if setting.cuda:
            torch.cuda.reset_peak_memory_stats()

        def work() -> None:
            for _ in range(count):
                run.update()

        turns = in_turns(setting, {"work": work}, most=3.0)
    found = {
        "batch": size,
        "steps/s": count / turns["work"],
        "images/s": size * count / turns["work"],
        "first call, s": turns.first["work"],
    }
    return {**found, "MB at most": torch.cuda.max_memory_allocated() / 1e6} if setting.cuda else found


def cases(setting: Setting) -> Iterator[Case]:
    def measure(name: str, compiled: bool) -> Callable[[], Values]:
        return lambda: updates(setting, name, compiled)

    for name in setting.pick(NAMES, NAMES[2:3]):
        yield Case({"config": name, "network": "eager"}, measure(name, False))
    if not setting.small:
        yield Case({"config": "fashion", "network": "compiled"}, measure("fashion", True))


SECTION = Section(
    "training",
    "Updates of the shipped configurations at their batch size and precision (bfloat16 autocast). `fashion` and"
    f" `fashion-ddpm` come compiled. The first call is {UPDATES} updates, compiling included."
    " `fashion-classifier` trains on the CPU alone and is left out.",
    60,
    cases,
)
