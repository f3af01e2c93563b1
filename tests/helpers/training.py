"""Runs of training that take seconds, and what they leave."""

import csv
import os
from pathlib import Path
from typing import Any

import torch
import yaml

from ddim_ode.support.validation import parse
from ddim_ode.training.config import TrainConfig

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
    "flow and folders": {
        "model": {
            "network": {**NETWORK, "num_classes": 3, "time_scale": 1000.0},
            "schedule": {"name": "flow"},
            "predicts": "flow",
        },
        "data": "classes",
    },
    "upscaling, shrunk": {
        "model": {"network": {**NETWORK, "condition": {"image": [1, 4, 2], "noise": True}}},
        "shrink": 2,
        "augmentation": (0.1, 0.6),
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
