"""A command line to call, a model to give it, and what is in a folder that it wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim_ode import checkpoints
from ddim_ode.data import load_images
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.unet import UNet


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


def pixels_of(folder: Path) -> Tensor:
    """The images of 8 x 8 bytes in a folder."""
    return load_images(sorted(folder.glob("*.png")), (1, 8, 8))


def unsealed(file: Path) -> dict[str, Any]:
    """What a manifest says, without the seal: as somebody who changes it must leave it."""
    return {name: value for name, value in json.loads(file.read_text()).items() if name != "sha256"}


def changed(file: Path, **changes: Any) -> None:
    """Change a manifest as its error says how to."""
    file.write_text(json.dumps(unsealed(file) | changes))
