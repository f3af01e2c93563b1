"""The settings of a training run: those that are bundled, and every wrong value with its rule."""

from pathlib import Path

import pytest
import torch

import ddim_ode
from ddim_ode.support.validation import ConfigError, parse, read_yaml
from ddim_ode.training.config import TrainConfig
from ddim_ode.training.train import Batches, learning_rate
from tests.helpers.configs import fault, values

FILES = sorted((Path(ddim_ode.__file__).parent / "configs").glob("*.yaml"))
CONFIGS = [file for file in FILES if "classifier" not in file.stem]  # which is no model


def test_there_are_bundled_settings():
    assert "fashion.yaml" in [file.name for file in CONFIGS]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_bundled_settings_are_valid(file):
    assert isinstance(read_yaml(TrainConfig, file), TrainConfig)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": "many"}, "steps: .*integer"),
        ({"steps": 10.5}, "steps: .*integer"),
        ({"steps": 0}, "steps: .*greater than or equal to 1"),
        ({"steps": None}, "steps: .*integer"),
        ({"seed": 0.5}, "seed: .*integer"),
        ({"learning_rate": 0}, "learning_rate: .*greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: .*"),
        ({"learning_rate": float("inf")}, "learning_rate: .*"),
        ({"label_dropout": 1.5}, "label_dropout: .*less than or equal to 1"),
        ({"ema": 1}, "ema: .*less than 1"),
        ({"betas": [0.9]}, "betas.*"),
        ({"betas": [0.9, 1.5]}, "betas.*"),
        ({"precision": "fp16"}, "precision: .*'float32' or 'bf16'"),
        ({"compile": "perhaps"}, "compile: .*boolean"),
        ({"shrink": 0}, "shrink: .*greater than or equal to 1"),
        ({"augmentation": [0.0, 1.5]}, "augmentation.1: .*less than or equal to 1"),
        ({"augmentation": [0.0, 0.5]}, "augmentation=.* needs a network with condition.noise: true"),
        ({"model__network__condition": {"image": [1, 3, 4]}}, "condition.image=.*does not divide into it"),
        ({"model__network__condition": {"image": [3, 4, 4]}}, "condition.image=.*does not divide into it"),
        ({"model__network__condition": {"image": [1, 4, 4], "blur": 1}}, "unknown key 'model.network.condition.blur'"),
        (
            {"model__network__condition": {"image": [1, 4, 4], "noise": True}, "augmentation": [0.5, 0.1]},
            "augmentation=.0.5, 0.1. goes down; give the least first",
        ),
        ({"model": 3}, "model: .*dictionary"),
        ({"model__network": [1, 2]}, "model.network: .*dictionary"),
        ({"model__predicts": "x0"}, "model.predicts: .*'noise', 'data', 'velocity', 'flow' or 'score'"),
        (
            {"model__schedule__name": "sigmoid"},
            "model.schedule.name: .*'linear', 'scaled_linear', 'cosine', 'betas' or 'flow'",
        ),
        ({"model__schedule__timesteps": 1}, "model.schedule.timesteps: .*greater than or equal to 2"),
        ({"model__schedule__betas": [0.1, 0.2]}, "model.schedule: .*give betas with name: betas, and only then"),
        ({"model__schedule__name": "betas"}, "model.schedule: .*give betas with name: betas, and only then"),
        (
            {"model__schedule": {"name": "betas", "betas": [0.1, 0.2]}},
            "model.schedule: .*there are 2 betas for timesteps=1000; give one a timestep",
        ),
        (
            {"model__schedule": {"name": "betas", "betas": [0.1, -0.2], "timesteps": 2}},
            "model.schedule.betas.1: Input should be greater than 0",
        ),
        ({"model__schedule__beta_end": 1.5}, "model.schedule.beta_end: .*less than 1"),
        ({"model__network__shape": [8, 8]}, r"model.network.shape.*"),
        ({"model__network__shape": [1, 0, 8]}, r"model.network.*shape.*"),
        ({"model__network__shape": [0, 8, 8]}, r"model.network.*shape.*"),
        ({"model__network__shape": [1, 9, 9], "model__network__channels": [32, 32]}, "9.*not divisible by 2"),
        ({"model__network__channels": []}, "model.network.channels: .*"),
        ({"model__network__channels": [0]}, "model.network.*channels.*"),
        ({"model__network__channels": [-32]}, "model.network.*channels.*"),
        ({"model__network__channels": [48]}, "48 is not a multiple of groups=32"),
        ({"model__network__channels": [33], "model__network__groups": 3}, "model.network.*channels.*"),
        ({"model__network__channels": [2], "model__network__groups": 1}, "model.network.*channels.*"),
        ({"model__network__attention": [1]}, "attention=.*outside 0..0"),
        ({"model__network__head_channels": 5}, "not a multiple of head_channels"),
        ({"model__network__head_channels": -8}, "head_channels"),
        ({"model__network__head_channels": 0}, "head_channels"),
        ({"model__schedule__zero_snr": True}, "can be sampled, not trained, here; leave zero_snr out"),
        (
            {"model__network__num_classes": 3, "model__network__null_class": False},
            "label_dropout trains the null class, and null_class is false; set label_dropout: 0",
        ),
        ({"model__network__heads": 5}, "32 is not a multiple of heads=5"),
        ({"model__network__heads": 2, "model__network__head_channels": 16}, "give one of the two"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_its_rule(changes, expected):
    with pytest.raises(ConfigError, match=expected):
        parse(TrainConfig, values(**changes), "settings.yaml")
    fault(values(**changes))


def test_a_config_is_frozen():
    config = parse(TrainConfig, values(), "")
    for key in TrainConfig.model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(config, key, 3)


@pytest.mark.parametrize("seed", [0, 1, 2**22 - 1, 20241121, -1, 2**31 - 1, 2**40])
def test_every_whole_number_is_a_seed(seed):
    config = parse(TrainConfig, values(seed=seed, batch_size=2), "settings.yaml")
    batches = Batches(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), config)
    assert len(batches(config.steps).x0) == 2


def test_the_learning_rate_of_the_bundled_settings_rises_and_falls():
    for file in CONFIGS:
        config = read_yaml(TrainConfig, file)
        rates = [learning_rate(config, step) for step in range(0, config.steps, 50)]
        assert max(rates) == config.learning_rate
        assert all(rate > 0 for rate in rates)
