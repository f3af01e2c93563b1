"""A file that is wrong gives one line that names the file, the key and what would be right."""

import datetime
import hashlib
from typing import Annotated

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ddim_ode.models.config import ModelConfig, ScheduleConfig
from ddim_ode.models.unet import UNetConfig
from ddim_ode.support.validation import ConfigError, parse, read_yaml, write_yaml
from ddim_ode.training.config import TrainConfig
from tests.helpers.assertions import one_line
from tests.helpers.configs import fault, values
from tests.helpers.files import no_file


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
    "content", [b"steps: [1, 2", b"a: b: c", b"\tsteps: 1", b"a: \x00", b"!!python/object/apply:os.getcwd []"]
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
    with pytest.raises(ConfigError, match="is a folder, and no file"):
        read_yaml(TrainConfig, tmp_path)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1


class Other(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


class Nest(BaseModel):
    """Of every form that an annotation may have around a model."""

    model_config = ConfigDict(extra="forbid")

    optional: Part | None = None
    several: Part | Other | None = None
    many: list[Part] = []
    named: dict[str, Part] = {}
    pair: tuple[Part, int] | None = None
    noted: Annotated[Part | None, Field(description="a note")] = None
    deep: dict[str, list[Part | None]] = {}
    plain: dict[str, int] = {}


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({"optional": {"sise": 1}}, "size"),
        ({"several": {"sise": 1}}, "size"),
        ({"many": [{}, {"sise": 1}]}, "size"),
        ({"named": {"a": {"sise": 1}}}, "size"),
        ({"pair": [{"sise": 1}, 1]}, "size"),
        ({"noted": {"sise": 1}}, "size"),
        ({"deep": {"a": [None, {"sise": 1}]}}, "size"),
        ({"sise": 1}, "optional, several, many, named"),
    ],
)
def test_an_unknown_key_inside_anything_lists_the_valid_ones(given, keys):
    text = fault(given, Nest)
    assert "sise'; valid keys are " in text
    assert f"; valid keys are {keys}" in text


@pytest.mark.parametrize("many", [20, 3000])
def test_a_message_is_short_however_much_is_wrong(many):
    text = fault({"plain": {f"key{'x' * many}{k}": "y" for k in range(many)}}, Nest)
    assert f"and {many - 8} more faults" in text
    assert len(text) <= 1000


HUGE = 16**20_000  # which has more digits than Python writes


@pytest.mark.parametrize(
    "given",
    [
        {"many": HUGE},
        {"plain": {HUGE: 1}},
        {HUGE: 1},
        {"plain": {"a": float("inf")}},
        {"plain": {"a": float("nan")}},
        {"plain": {"a": 1e300}},
        {"plain": {"a": "9" * 5000}},
        {"plain": {"a": datetime.date(2020, 1, 1)}},
        {"optional": {3: 4}},
        {b"x": 1},
        {None: 1},
        {(1, 2): 1},
    ],
    ids=lambda _: "",
)
def test_values_of_every_kind_give_one_line(given):
    assert len(fault(given, Nest)) <= 1000


@pytest.mark.parametrize(
    "content",
    [
        "model: 2020-01-01",
        "steps: !!binary aGk=",
        "steps: !!set {a, b}",
        "steps: !!omap [a: 1]",
        "steps: !!timestamp x",
        "steps: !mine 3",
        "steps: !!int x",
        "a: &a {steps: 1}\n<<: *a\n<<: 3",
        "<<: [1]",
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "steps: " + "[" * 2000,
        "steps: " + "{a: " * 2000,
        "steps: " + "9" * 5000,
        "steps: 0x" + "f" * 20_000,
        "steps: 1\nsteps: 2",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [" + "*b, " * 30 + "]",
        "--- 1\n--- 2",
        "a: *b",
        "%YAML 9.9\n---\na: 1",
        "steps: .nan",
        "model: .inf",
        "\n".join(f"k{k}: 1" for k in range(2000)),
    ],
    ids=lambda _: "",
)
def test_yaml_that_nobody_means_gives_one_line(tmp_path, content):
    (tmp_path / "a.yaml").write_text(content)
    text = one_line(ConfigError, read_yaml, TrainConfig, tmp_path / "a.yaml")
    assert text.startswith(f"{tmp_path / 'a.yaml'}")
    assert len(text) <= 1000


def test_text_in_other_encodings(tmp_path):
    text = yaml.safe_dump(values())
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8-sig"))
    assert read_yaml(TrainConfig, tmp_path / "a.yaml").steps == 10
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-16"))
    assert "a.yaml is not text: " in one_line(ConfigError, read_yaml, TrainConfig, tmp_path / "a.yaml")


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a circle", "nothing", "a folder"])
def test_what_is_no_file_is_refused_without_a_wait(tmp_path, kind):
    text = one_line(ConfigError, read_yaml, TrainConfig, no_file(kind, tmp_path / "a.yaml"))
    assert text.startswith(f"{tmp_path / 'a.yaml'} ")


# --- sealed


def test_what_is_sealed_is_what_any_reader_reads(tmp_path):
    file = tmp_path / "a.yaml"
    write_yaml(file, values())
    first, rest = file.read_text().split("\n", 1)
    assert first == f"# sha256 {hashlib.sha256(rest.encode()).hexdigest()}"
    assert yaml.safe_load(file.read_text()) == values()
    assert read_yaml(TrainConfig, file) == parse(TrainConfig, values(), "")
    file.write_text(rest)
    assert read_yaml(TrainConfig, file).steps == 10
    file.write_bytes(f"{first}\n{rest}".replace("\n", "\r\n").encode())  # as some editors and git do
    assert read_yaml(TrainConfig, file).steps == 10


def test_a_bit_that_flips_anywhere_changes_nothing_or_is_found(tmp_path):
    file = tmp_path / "a.yaml"
    write_yaml(file, values())
    data, found, messages = file.read_bytes(), read_yaml(TrainConfig, file), []
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            assert read_yaml(TrainConfig, file) == found
        except ConfigError as error:
            messages.append(str(error))
    assert len(messages) > 0.9 * len(range(0, 8 * len(data), 3))
    assert all(message.startswith(str(file)) and "\n" not in message for message in messages)


def test_a_value_that_was_changed_is_told_how_to_be_taken(tmp_path):
    file = tmp_path / "a.yaml"
    write_yaml(file, values())
    file.write_text(file.read_text().replace("steps: 10", "steps: 11"))
    text = one_line(ConfigError, read_yaml, TrainConfig, file)
    assert text == (
        f"{file} is not as it was written, by its first line"
        "; put the original back or, if the change is meant, delete that line"
    )
    file.write_text(file.read_text().split("\n", 1)[1])
    assert read_yaml(TrainConfig, file).steps == 11
