"""A file that is wrong gives one line that names the file, the key and what would be right."""

import pytest
import yaml

from ddim_ode.models.config import ModelConfig, ScheduleConfig
from ddim_ode.models.unet import UNetConfig
from ddim_ode.support.validation import ConfigError, parse, read_yaml
from ddim_ode.training.config import TrainConfig
from tests.helpers.configs import fault, values


def test_what_is_written_is_what_is_read(tmp_path):
    config = parse(TrainConfig, values(learning_rate=1e-3, betas=[0.8, 0.9]), "")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_yaml(TrainConfig, tmp_path / "a.yaml") == config


@pytest.mark.parametrize("value", ["1e-3", "1.0e-3", "0.001"])
def test_a_number_may_be_written_as_one_likes(tmp_path, value):
    # `1e-3` is a string to YAML 1.1
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values()) + f"learning_rate: {value}\n")
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
    text = fault(values(**{key: 1}))
    assert f"unknown key {key.replace('__', '.')!r}; valid keys are {', '.join(kind.model_fields)}" in text


def test_missing_keys_are_named():
    assert "model: Field required; steps: Field required" in fault({})


@pytest.mark.parametrize("values", [None, [], "text", 3, [{"steps": 1}]])
def test_something_else_than_a_mapping_is_refused(values):
    assert "the top level: " in fault(values)


def test_all_faults_are_told_at_once():
    text = fault(values(steps=0, clip=-1, model__network__blocks=0))
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
