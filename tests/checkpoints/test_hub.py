"""A name of the hub is fetched by huggingface_hub if it is there, and only if there is no such folder."""

import sys
from types import SimpleNamespace

import pytest

import ddim_ode
from ddim_ode.checkpoints import CheckpointError
from tests.helpers.assertions import one_line
from tests.helpers.foreign import LAYOUTS, pipeline, unet2d


def test_a_name_of_the_hub_is_fetched(tmp_path, monkeypatch):
    pipeline(tmp_path, unet2d(LAYOUTS["no attention"]))
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert ddim_ode.load("someone/a-model").provenance.folder == str(tmp_path)
    ((name, patterns),) = asked
    assert name == "someone/a-model"
    assert "unet/diffusion_pytorch_model*" in patterns


def test_a_folder_comes_first(tmp_path, monkeypatch):
    pipeline(tmp_path / "someone/a-model", unet2d(LAYOUTS["no attention"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert ddim_ode.load("someone/a-model").provenance.folder == "someone/a-model"


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    text = one_line(CheckpointError, ddim_ode.load, "someone/a-model")
    assert "there is no folder 'someone/a-model'" in text
    assert "pip install huggingface_hub" in text


def test_what_the_hub_says_is_passed_on_in_one_line(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise OSError("Cannot find an appropriate cached snapshot.\nYou are offline.")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    text = one_line(CheckpointError, ddim_ode.load, "someone/a-model")
    assert "could not be fetched from the hub (Cannot find an appropriate cached snapshot.); give a folder" in text


@pytest.mark.parametrize("name", ["a/b/c", "/a/b", "../b", "./b", "fashoin", "a/.b", "a\\b"])
def test_other_names_are_not_looked_for_there(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "there is no model" in one_line(CheckpointError, ddim_ode.load, name)
