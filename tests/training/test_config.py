"""A file that is wrong gives one line that names the file, the key and what would be right."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ddim_ode
from ddim_ode.models.config import ModelConfig, ScheduleConfig
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.support.validation import ConfigError, parse, read_yaml
from ddim_ode.training.config import TrainConfig
from ddim_ode.training.train import Batches, learning_rate

CONFIGS = sorted((Path(ddim_ode.__file__).parent / "configs").glob("*.yaml"))


def settings(**changes: Any) -> dict[str, Any]:
    """The least that a training run must say, with changes; a dotted key reaches inside."""
    values: dict[str, Any] = {"model": {"network": {"shape": [1, 8, 8], "channels": [32]}}, "steps": 10}
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = values
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return values


def message(values: Any, kind: Any = TrainConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(kind, values, "settings.yaml")
    text = str(caught.value)
    assert text.startswith("settings.yaml: ")
    assert "\n" not in text
    return text


def test_there_are_bundled_settings():
    assert "fashion.yaml" in [file.name for file in CONFIGS]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_bundled_settings_are_valid(file):
    assert isinstance(read_yaml(TrainConfig, file), TrainConfig)


def test_what_is_written_is_what_is_read(tmp_path):
    config = parse(TrainConfig, settings(learning_rate=1e-3, betas=[0.8, 0.9]), "")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_yaml(TrainConfig, tmp_path / "a.yaml") == config


@pytest.mark.parametrize("value", ["1e-3", "1.0e-3", "0.001"])
def test_a_number_may_be_written_as_one_likes(tmp_path, value):
    # `1e-3` is a string to YAML 1.1
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(settings()) + f"learning_rate: {value}\n")
    assert read_yaml(TrainConfig, tmp_path / "a.yaml").learning_rate == 1e-3


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("learing_rate", TrainConfig),
        ("model__predict", ModelConfig),
        ("model__network__chanels", UNetConfig),
        ("model__schedule__steps", ScheduleConfig),
    ],
)
def test_an_unknown_key_lists_the_valid_ones(key, kind):
    text = message(settings(**{key: 1}))
    assert f"unknown key {key.replace('__', '.')!r}; valid keys are {', '.join(kind.model_fields)}" in text


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
        ({"model": 3}, "model: .*dictionary"),
        ({"model__network": [1, 2]}, "model.network: .*dictionary"),
        ({"model__predicts": "x0"}, "model.predicts: .*'noise', 'data', 'velocity', 'flow' or 'score'"),
        ({"model__schedule__name": "sigmoid"}, "model.schedule.name: .*'linear', 'scaled_linear', 'cosine' or 'betas'"),
        ({"model__schedule__timesteps": 1}, "model.schedule.timesteps: .*greater than or equal to 2"),
        ({"model__schedule__betas": [0.1, 0.2]}, "model.schedule: .*give betas with name: betas, and only then"),
        ({"model__schedule__name": "betas"}, "model.schedule: .*give betas with name: betas, and only then"),
        (
            {"model__schedule": {"name": "betas", "betas": [0.1, 0.2]}},
            "model.schedule: .*there are 2 betas for timesteps=1000; give one a timestep",
        ),
        (
            {"model__schedule": {"name": "betas", "betas": [0.1, -0.2], "timesteps": 2}},
            "model.schedule: .*must decrease strictly",
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
        parse(TrainConfig, settings(**changes), "settings.yaml")
    message(settings(**changes))


def test_missing_keys_are_named():
    assert "model: Field required; steps: Field required" in message({})


@pytest.mark.parametrize("values", [None, [], "text", 3, [{"steps": 1}]])
def test_something_else_than_a_mapping_is_refused(values):
    assert "the top level: " in message(values)


def test_all_faults_are_told_at_once():
    text = message(settings(steps=0, clip=-1, model__network__blocks=0))
    for key in ("steps", "clip", "model.network.blocks"):
        assert f"{key}: " in text


@pytest.mark.parametrize(
    "content", [b"steps: [1, 2", b"a: b: c", b"\tsteps: 1", b"\xff\xfe\x00", b"!!python/object/apply:os.getcwd []"]
)
def test_what_is_not_yaml_is_named(tmp_path, content):
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.yaml is not valid YAML: ") as caught:
        read_yaml(TrainConfig, file)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.yaml").touch()
    with pytest.raises(ConfigError, match=r"a\.yaml: the top level"):
        read_yaml(TrainConfig, tmp_path / "a.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read: No such file or directory; give an existing"):
        read_yaml(TrainConfig, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(TrainConfig, tmp_path)


def test_a_config_is_frozen():
    config = parse(TrainConfig, settings(), "")
    for key in TrainConfig.model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(config, key, 3)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_schedule_has_its_timesteps(name):
    path = ScheduleConfig(name=name, timesteps=7).path()
    assert path.num_timesteps == 7
    assert 0 < path.sigma_min < path.sigma_max


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 16)])
@pytest.mark.parametrize("patch", [1, 2])
def test_an_accepted_network_can_be_built_and_run(shape, patch):
    config = parse(UNetConfig, {"shape": shape, "channels": [32, 64], "patch": patch, "blocks": 1}, "")
    with torch.random.fork_rng():
        net = UNet(config)
    assert net(torch.zeros(2, *shape), torch.zeros(2)).shape == (2, *shape)


@pytest.mark.parametrize("seed", [0, 1, 2**22 - 1, 20241121, -1, 2**31 - 1, 2**40])
def test_every_whole_number_is_a_seed(seed):
    config = parse(TrainConfig, settings(seed=seed, batch_size=2), "settings.yaml")
    batches = Batches(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), config)
    assert len(batches(config.steps)[0]) == 2


def test_the_learning_rate_of_the_bundled_settings_rises_and_falls():
    for file in CONFIGS:
        config = read_yaml(TrainConfig, file)
        rates = [learning_rate(config, step) for step in range(0, config.steps, 50)]
        assert max(rates) == config.learning_rate
        assert all(rate > 0 for rate in rates)
