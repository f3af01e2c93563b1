"""Arguments of `load` and `convert` that cannot be, and places where no model is: one line that names them."""

import os
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline

import ddim_ode
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.checkpoints.convert import convert
from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.command_line import make_model
from tests.helpers.files import no_file
from tests.helpers.foreign import LAYOUTS, pipeline, unet2d


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"fashion"


@pytest.mark.parametrize(
    "what", [3, None, b"fashion", [], 1.5, True, object(), Path, BytesPath()], ids=lambda what: type(what).__name__
)
def test_what_is_no_path_is_named(tmp_path, what):
    text = one_line(ArgumentError, ddim_ode.load, what)
    assert text.startswith("what is ")
    assert text.endswith("; give a name or a path, as a str or a Path")
    assert one_line(ArgumentError, convert, what, tmp_path / "a").startswith("source is ")
    assert one_line(ArgumentError, convert, "fashion", what).startswith("out is ")
    if what is not None:
        assert one_line(ArgumentError, ddim_ode.load, "fashion", config=what).startswith("config is ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ema", "check", "offline"])
@pytest.mark.parametrize("value", ["x", 1, None, 0.0])
def test_what_is_neither_true_nor_false_is_named(name, value):
    assert one_line(ArgumentError, ddim_ode.load, "fashion", **{name: value}).startswith(f"{name} is ")


@pytest.mark.parametrize("what", ["", "a\0b", "\0"])
def test_what_no_path_can_be_is_named(tmp_path, what):
    for call in (
        lambda: ddim_ode.load(what),
        lambda: ddim_ode.load("fashion", config=what),
        lambda: convert(what, tmp_path / "a"),
        lambda: convert("fashion", what),
    ):
        assert "is no path" in one_line(CheckpointError, call)


@pytest.mark.parametrize("what", ["\udc80", "\ud800a", "x" * 5000, "a\nb", "\x1b[31m", "a/" * 3000 + "b", "ä" * 200])
def test_names_of_any_letters_give_one_short_line(tmp_path, what):
    text = one_line(CheckpointError, ddim_ode.load, what)
    assert len(text) <= 1000
    assert text.isprintable()
    with pytest.raises(DDIMError) as caught:
        convert(what, tmp_path / "a")
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("to", "error"), [("x", CheckpointError), ("", CheckpointError), (3, ArgumentError), (b"x", ArgumentError)]
)
def test_another_kind_of_folder_is_named(tmp_path, to, error):
    text = one_line(error, convert, "fashion", tmp_path / "a", to=to)
    assert "ddim_ode, diffusers" in text
    assert text.startswith(("to is ", "unknown to "))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a circle", "nothing"])
def test_a_place_that_is_no_model_is_refused_without_a_wait(tmp_path, kind):
    text = one_line(CheckpointError, ddim_ode.load, no_file(kind, tmp_path / "a"))
    assert str(tmp_path / "a") in text
    assert kind in text or "cannot be read: " in text or "there is no model" in text


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a circle", "nothing", "a folder"])
@pytest.mark.parametrize("part", ["config.yaml", "model.safetensors"])
def test_a_part_that_is_no_file_is_refused_without_a_wait(tmp_path, part, kind):
    folder = make_model(tmp_path / "a")
    (folder / part).unlink()
    no_file(kind, folder / part)
    text = one_line(DDIMError, ddim_ode.load, folder)
    assert text.startswith(f"{folder / part} ")


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_configuration_that_is_no_file_is_refused_without_a_wait(tmp_path, kind):
    torch.save({"x": torch.ones(1)}, tmp_path / "ckpt.pth")
    config = no_file(kind, tmp_path / "config.yml")
    for given in (None, config):
        text = one_line(ConfigError, ddim_ode.load, tmp_path, config=given)
        assert text == f"{config} is {kind}, and no file; give an existing YAML file"


def test_files_of_folders_are_sent_to_their_folder(tmp_path):
    pipeline(tmp_path / "a", unet2d(LAYOUTS["no attention"]))
    ours = make_model(tmp_path / "b") / "model.safetensors"
    for file in (tmp_path / "a/unet/diffusion_pytorch_model.safetensors", ours):
        assert "is a file; give the folder of a model" in one_line(CheckpointError, ddim_ode.load, file)
    assert DDIMPipeline.from_pretrained(tmp_path / "a").unet.config.in_channels == 3


def test_an_image_is_no_model(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "is a file; give the folder of a model" in one_line(CheckpointError, ddim_ode.load, tmp_path / "a.png")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path):
    folder = make_model(tmp_path / "a")
    folder.chmod(0)
    try:
        assert "Permission denied" in one_line(DDIMError, ddim_ode.load, folder)
        assert "Permission denied" in one_line(DDIMError, ddim_ode.load, folder / "x")
    finally:
        folder.chmod(0o700)
