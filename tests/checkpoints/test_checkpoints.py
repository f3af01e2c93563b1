"""A model comes back as it was saved, up to half precision; a damaged one gives one line that names the file."""

import errno
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ddim_ode
from ddim_ode import checkpoints
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.errors import DDIMError
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.support.files import OutputError
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode

CONFIG = ModelConfig(
    network=UNetConfig(shape=(1, 8, 8), channels=(32, 64), blocks=1, attention=(1,), num_classes=3),
    predicts="velocity",
)


def weights(seed: int = 0, config: ModelConfig = CONFIG) -> dict[str, torch.Tensor]:
    """Random weights of every size that training produces, and some that half precision holds badly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        names = UNet(config.network).state_dict()
    return {
        name: 0.1 * torch.randn(value.shape, generator=generator) * 10.0 ** -(k % 7)
        for k, (name, value) in enumerate(names.items())
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    checkpoints.save(tmp_path / "model", CONFIG, weights())
    return tmp_path / "model"


def test_weights_come_back_within_half_precision(folder):
    loaded = ddim_ode.load(folder).net.state_dict()
    saved = weights()
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        assert loaded[name].dtype == torch.float32
        # 11 significant bits, and 2^-24 as the smallest number there is
        bound = torch.maximum(value.abs() * 2.0**-11, torch.tensor(2.0**-25))
        assert ((loaded[name] - value).abs() <= bound).all(), name


def test_a_second_round_trip_changes_nothing(folder, tmp_path):
    first = ddim_ode.load(folder)
    checkpoints.save(tmp_path / "again", CONFIG, first.net.state_dict())
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "again/config.yaml").read_bytes() == (folder / "config.yaml").read_bytes()


def test_the_model_is_what_its_config_says(folder):
    model = ddim_ode.load(folder)
    assert (model.shape, model.num_classes, model.predicts) == ((1, 8, 8), 3, "velocity")
    assert model.path.num_timesteps == CONFIG.schedule.timesteps
    assert model.provenance.config == CONFIG
    assert model.provenance.file == str(folder / "model.safetensors")
    assert len(model.provenance.sha256) == 64
    assert not model.net.training
    assert not any(p.requires_grad for p in model.net.parameters())
    assert model.device == torch.device("cpu")


def test_the_network_computes_what_the_saved_one_did(folder):
    with torch.random.fork_rng():
        net = UNet(CONFIG.network).eval()
    net.load_state_dict({name: value.half().float() for name, value in weights().items()})
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    t, labels = torch.tensor([0.0, 500.5, 999.0]), torch.tensor([0, 2, 3])
    with torch.no_grad():
        expected = net(x, t, labels)
        assert expected.std() > 1e-6
        assert torch.equal(ddim_ode.load(folder).net(x, t, labels), expected)


def test_the_files_are_what_others_can_read(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    assert all(value.dtype == torch.float16 for value in load_file(folder / "model.safetensors").values())
    assert yaml.safe_load((folder / "config.yaml").read_text())["network"]["channels"] == [32, 64]
    (folder.parent / "other").touch()
    assert {file.stat().st_mode for file in folder.iterdir()} == {(folder.parent / "other").stat().st_mode}


def test_a_str_works_as_a_path_does(folder):
    assert ddim_ode.load(str(folder)).shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["a\udcff", "two\nlines", "\x1b[31m", "a b", "\u202e", "-o"])
def test_a_folder_may_have_any_name(folder, name):
    folder = folder.rename(folder.with_name(name))
    found = ddim_ode.load(folder).net.state_dict()
    assert all(torch.allclose(found[k], value, atol=1e-3) for k, value in weights().items())


def test_build_makes_a_copy():
    ours = weights()
    before = {name: value.clone() for name, value in ours.items()}
    model = checkpoints.build(CONFIG, ours)
    with torch.no_grad():
        for p in model.net.parameters():
            p.zero_()
    assert all(torch.equal(ours[name], before[name]) for name in ours)
    assert not any(value.requires_grad for value in ours.values())


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: ddim_ode.load(folder),
        lambda folder: checkpoints.build(CONFIG, weights()),
        lambda folder: checkpoints.save(folder, CONFIG, weights()),
    ],
    ids=["load", "build", "save"],
)
def test_global_random_state_is_left_alone(folder, make):
    torch.manual_seed(7)
    states = torch.get_rng_state(), np.random.get_bit_generator().state, random.getstate()
    make(folder)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_equal(np.random.get_bit_generator().state, states[1])
    assert random.getstate() == states[2]


def test_a_model_that_half_precision_cannot_hold_is_not_written(tmp_path):
    large = weights()
    large["conv_in.bias"][3] = 7e4  # half precision ends at 65504
    text = one_line(CheckpointError, checkpoints.save, tmp_path / "model", CONFIG, large)
    assert "conv_in.bias" in text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(folder, share):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert f"{file} is damaged" in one_line(CheckpointError, ddim_ode.load, folder)


def test_a_bit_that_flips_anywhere_is_found(folder):
    for name in ("config.yaml", "model.safetensors"):
        file = folder / name
        data = file.read_bytes()
        for bit in (8 * len("# sha256 "), 700, 4 * len(data), 8 * len(data) - 3):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            assert str(file) in one_line(DDIMError, ddim_ode.load, folder)
        file.write_bytes(data)
    assert ddim_ode.load(folder).shape == (1, 8, 8)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_is_one_line_and_leaves_what_was_there(folder, monkeypatch, number):
    def fails(descriptor):
        raise OSError(number, os.strerror(number))

    before = {file: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(os, "fsync", fails)
    text = one_line(OutputError, checkpoints.save, folder, CONFIG, weights(seed=1))
    assert text.startswith(f"{folder / 'model.safetensors'} cannot be written: {os.strerror(number)}")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("where", ["/dev/null/a", "/proc/a", "{tmp}/file/a", "{tmp}/file"])
def test_a_folder_that_cannot_be_is_named(tmp_path, where):
    (tmp_path / "file").touch()
    where = where.format(tmp=tmp_path)
    assert f"{where} cannot be written: " in one_line(OutputError, checkpoints.save, where, CONFIG, weights())


@pytest.mark.parametrize("content", [b"not safetensors at all", b"\xff" * 64, b"\0" * 64])
def test_another_kind_of_file_is_named(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is damaged" in one_line(CheckpointError, ddim_ode.load, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(folder, value):
    ours = load_file(folder / "model.safetensors")
    ours["mid.0.conv1.weight"][1, 2, 0, 0] = value
    save_file(ours, folder / "model.safetensors")
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert "model.safetensors" in text
    assert "mid.0.conv1.weight" in text
    assert "NaN or infinity" in text


def test_weights_of_another_network_are_refused(folder, tmp_path):
    other = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update={"channels": (64, 64)})})
    checkpoints.save(tmp_path / "other", other, weights(config=other))
    (tmp_path / "other/model.safetensors").replace(folder / "model.safetensors")
    assert "was written with another config.yaml; put that one back" in one_line(CheckpointError, ddim_ode.load, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().partition("\n")[2])  # as somebody does who means a change
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert f"{folder / 'model.safetensors'} does not fit {folder / 'config.yaml'}: " in text
    assert "size mismatch" in text


@pytest.mark.parametrize("change", ["one more", "one less", "none"])
def test_missing_and_surplus_weights_are_refused(folder, change):
    ours = load_file(folder / "model.safetensors")
    if change == "one more":
        ours["extra.weight"] = torch.zeros(3)
    elif change == "one less":
        del ours["conv_out.bias"]
    else:
        ours = {"x": torch.zeros(1)}
    save_file(ours, folder / "model.safetensors")
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert {"one more": "extra.weight", "one less": "conv_out.bias", "none": "Missing key"}[change] in text
    assert len(text) < 1000  # hundreds of names help nobody


def test_an_unknown_key_in_the_config_is_named(folder):
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["network"]["chanels"] = [32]
    (folder / "config.yaml").write_text(yaml.safe_dump(values))  # without the line that seals it
    text = one_line(ConfigError, ddim_ode.load, folder)
    assert f"{folder / 'config.yaml'}: unknown key 'network.chanels'; valid keys are shape, channels" in text


def test_missing_files_are_named(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in one_line(CheckpointError, ddim_ode.load, folder)
    (folder / "config.yaml").unlink()
    assert "config.yaml cannot be read" in one_line(ConfigError, ddim_ode.load, folder)


@pytest.mark.parametrize("what", ["fashoin", "no/such/folder"])
def test_a_missing_model_lists_those_there_are(what, monkeypatch, folder):
    monkeypatch.setattr(checkpoints, "ASSETS", folder.parent)
    text = one_line(CheckpointError, ddim_ode.load, what)
    assert f"no model {what!r}" in text
    assert text.endswith("one of: model")


def test_a_file_where_a_folder_is_meant_is_refused(folder):
    assert "give the folder of a model" in one_line(CheckpointError, ddim_ode.load, folder / "model.safetensors")


def test_a_configuration_given_for_nothing_is_refused(folder):
    text = one_line(CheckpointError, ddim_ode.load, folder, config="config.yml")
    assert text == f"{folder} says itself what it is; leave config='config.yml' (--config) out"


def test_a_bundled_model_is_loaded_by_name(monkeypatch, folder, tmp_path):
    monkeypatch.setattr(checkpoints, "ASSETS", folder.parent)
    monkeypatch.chdir(tmp_path.parent)
    assert checkpoints.bundled() == ["model"]
    assert ddim_ode.load("model").provenance.folder == str(folder)


def test_the_bundled_models_load():
    assert "fashion" in checkpoints.bundled()
    for name in checkpoints.bundled():
        model = ddim_ode.load(name)
        sample = ddim_ode.sample(model, nfe=2, seeds=[0, 1])
        assert sample.x.shape == (2, *model.shape)


@pytest.mark.parametrize("where", ["a file", "instead of the weights"])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_load_never_runs_a_pickle(folder, tmp_path, form, where):
    mark = tmp_path / "ran"
    file = tmp_path / "a.pt" if where == "a file" else folder / "model.safetensors"
    if form == "torch":
        torch.save(RunsCode(mark), file)
    else:
        file.write_bytes(pickle.dumps(RunsCode(mark), protocol=2))
    text = one_line(CheckpointError, ddim_ode.load, file if where == "a file" else folder)
    assert f"{file} is a pickle" in text
    assert "refused" in text
    assert not mark.exists()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert checkpoints.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
