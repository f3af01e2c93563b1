"""What several test files share: tables and networks made without the library's schedules and loaders, small runs of
training, and a command line to call.
"""

import csv
import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch import Tensor

from ddim_ode import checkpoints, paths
from ddim_ode.checkpoints import bundled, load
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.support.validation import parse
from ddim_ode.training.config import TrainConfig

PATHS = {
    "noise": paths.noise,
    "data": paths.data,
    "angle": paths.angle,
    "flow": paths.flow,
    "linear": paths.DiscreteVP.linear(),
    "cosine": paths.DiscreteVP.cosine(),
    "seven": paths.DiscreteVP([0.99, 0.9, 0.7, 0.5, 0.2, 0.1, 0.004]),
}


def linear_table(timesteps: int = 1000) -> list[float]:
    """DDPM's alphas_cumprod by a plain loop over its betas."""
    table, product = [], 1.0
    for t in range(timesteps):
        beta = 1e-4 + (0.02 - 1e-4) * t / (timesteps - 1)
        product *= 1 - beta
        table.append(product)
    return table


def cosine_table(timesteps: int = 1000) -> list[float]:
    """Nichol & Dhariwal's alphas_cumprod by a plain loop."""

    def f(t: int) -> float:
        return math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2

    table, product = [], 1.0
    for t in range(timesteps):
        product *= 1 - min(1 - f(t + 1) / f(t), 0.999)
        table.append(product)
    return table


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def two_modes() -> GaussianMixture:
    """In one dimension, lopsided, so that nothing cancels by symmetry."""
    return GaussianMixture(f64([[-1.0], [0.6]]), [0.2, 0.3], [0.4, 0.6])


def labelled(shape: tuple[int, ...] = (2, 3), components: int = 5, classes: int = 3, seed: int = 0) -> GaussianMixture:
    """A mixture of unequal components spread over some classes."""
    means = normal(components, *shape, seed=seed)
    k = torch.arange(components, dtype=torch.float64)
    return GaussianMixture(means, 0.1 + 0.05 * k, 1 + k, torch.arange(components) % classes)


def rms(x: Tensor) -> Tensor:
    """Of each sample, (B,)."""
    return x.double().flatten(1).square().mean(1).sqrt()


def f64(x: object) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


MIXTURES = {
    "labelled": labelled(),
    "two modes": two_modes(),
    "tight": GaussianMixture(normal(20, 1, 4, 4, seed=3), 0.1),
}


def randomise(net: UNet, seed: int) -> UNet:
    """Weights that leave nothing at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 / math.sqrt(max(p[0].numel(), 1))))
    return net.eval().requires_grad_(False)


def tiny_unet(**choices: object) -> UNet:
    config = {"shape": (1, 8, 8), "channels": (8, 16), "groups": 4, "blocks": 1, "attention": (1,), "num_classes": 3}
    return randomise(UNet(UNetConfig(**(config | choices))), seed=1)


@cache
def network() -> Denoiser:
    """The network that ships, or a small random one where there is none."""
    if "fashion" in bundled():
        return load("fashion")
    return random_network()


def random_network() -> Denoiser:
    """Small, with weights that mean nothing."""
    net = tiny_unet()
    return Denoiser(net, paths.DiscreteVP(linear_table()), "noise", net.config.shape, net.config.num_classes)


class Counting:
    """A net that counts the rows it has seen: with B samples, rows / B is the passes each of them cost."""

    def __init__(self, net):
        self.net, self.rows = net, 0

    def __call__(self, x, t, *condition):
        self.rows += len(x)
        return self.net(x, t, *condition)


class Recording:
    """A net that returns zeros and keeps its inputs."""

    def __init__(self):
        self.calls: list[tuple[Tensor, ...]] = []

    def __call__(self, *inputs):
        self.calls.append(inputs)
        return torch.zeros_like(inputs[0])


def one_line(error: type[Exception], call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message that a call must fail with, on one line."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class RunsCode:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


# --- training

NETWORK: dict[str, Any] = {"shape": [1, 8, 8], "channels": [32], "blocks": 1}
STEPS = 12


def settings(**changes: Any) -> TrainConfig:
    """A run of seconds: 24 images of 8 x 8 or, with data="fashion-mnist", 28 x 28 in 10 classes."""
    values: dict[str, Any] = {
        "model": {"network": NETWORK, "schedule": {"name": "cosine", "timesteps": 10}},
        "data": "set by data_folder",
        "steps": STEPS,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup": 2,
        "compile": False,
        "precision": "float32",
        "save_every": 4,
        "sample_every": 1000,
        "log_every": 2,
    }
    return parse(TrainConfig, {**values, **changes}, "settings")


KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"precision": "bf16", "cooldown": 5},
    "labels and dropout": {
        "model": {
            "network": {"shape": [1, 28, 28], "channels": [32], "blocks": 1, "patch": 4, "num_classes": 10}
            | {"dropout": 0.2},
            "predicts": "velocity",
        },
        "data": "fashion-mnist",
        "label_dropout": 0.3,
    },
}


def folder_of(config: TrainConfig, folders: dict[str, Path]) -> Path:
    return folders.get(config.data, folders["images"])


def write_settings(file: Path, config: TrainConfig) -> Path:
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file


def environment() -> dict[str, str]:
    """As many threads as here: sums are in another order with another number."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONWARNINGS": "default"}


def state(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def logged(out: Path) -> list[list[str]]:
    """The rows of log.csv without the speed."""
    with (out / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def temporary_files(out: Path) -> list[Path]:
    return [file for file in out.rglob("*") if ".tmp" in file.name]


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, whatever they are made of."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


# --- the command line


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


def make_model(folder: Path, seed: int = 0, num_classes: int = 10, shape: tuple[int, ...] = (1, 8, 8)) -> Path:
    """Save a network of random weights in a folder."""
    network = {"shape": shape, "channels": [32], "blocks": 1, "num_classes": num_classes}
    config = ModelConfig.model_validate({"network": network, "schedule": {"name": "cosine", "timesteps": 50}})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(config.network)
        for weight in net.parameters():  # the last layers start at zero, and would hide the rest
            torch.nn.init.normal_(weight, std=0.05)
    checkpoints.save(folder, config, net.state_dict())
    return folder
