"""A checkpoint of torch is read as tensors and plain containers; it runs no code and is whole, or it is refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ddim_ode import checkpoints
from ddim_ode.checkpoints import CheckpointError, files
from ddim_ode.checkpoints.files import is_pickle, read_weights, shards
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode, no_file
from tests.helpers.networks import tiny_unet


@pytest.mark.parametrize("form", ["torch", "torch legacy", "pickle", "pickle inside"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, form):
    mark, file = tmp_path / "ran", tmp_path / "a.pt"
    payload = RunsCode(mark)
    if form == "torch":
        torch.save(payload, file)
    elif form == "torch legacy":
        torch.save(payload, file, _use_new_zipfile_serialization=False)
    elif form == "pickle":
        file.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save({"net": {"weight": torch.zeros(2)}, "step": payload}, file)
    text = one_line(CheckpointError, checkpoints.load_torch, file)
    assert "a.pt is a pickle that would run code when loaded, so it was refused" in text
    assert not mark.exists()
    if form.startswith("pickle"):
        return
    torch.load(file, weights_only=False)
    assert mark.exists()  # the pickle is a live one


def test_tensors_and_plain_containers_are_read(tmp_path):
    state = {"step": 3, "net": {"w": torch.arange(4.0)}, "names": ["a"], "rate": 0.5, "none": None}
    torch.save(state, tmp_path / "a.pt")
    loaded = checkpoints.load_torch(tmp_path / "a.pt")
    assert torch.equal(loaded["net"].pop("w"), state["net"].pop("w"))
    assert loaded == state


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_cut_checkpoint_is_damaged_not_dangerous(tmp_path, share, legacy):
    file = tmp_path / "a.pt"
    torch.save({"net": tiny_unet().state_dict(), "step": 3}, file, _use_new_zipfile_serialization=not legacy)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    text = one_line(CheckpointError, checkpoints.load_torch, file)
    assert "a.pt is damaged" in text


@pytest.mark.parametrize("content", [b"hello", b"<html>404</html>", b"\x00" * 100, b"PK\x03\x04" + b"\x00" * 50])
def test_a_file_of_another_kind_is_damaged_not_dangerous(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    text = one_line(CheckpointError, checkpoints.load_torch, tmp_path / "a.pt")
    assert "a.pt is damaged" in text


@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bytes_never_escape_as_another_error(tmp_path, legacy):
    file = tmp_path / "a.pt"
    state = {"net": {"w": torch.arange(8.0)}, "step": 3}
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    data = file.read_bytes()
    messages = []
    for k in range(0, len(data), 7):
        file.write_bytes(data[:k] + bytes([data[k] ^ 0x55]) + data[k + 1 :])
        try:
            checkpoints.load_torch(file)
        except CheckpointError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


def test_a_missing_checkpoint_is_called_missing(tmp_path):
    text = one_line(CheckpointError, checkpoints.load_torch, tmp_path / "absent.pt")
    assert "absent.pt" in text
    assert "No such file" in text


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a circle", "a folder"])
def test_what_is_no_file_is_refused_without_a_wait(tmp_path, kind):
    file = no_file(kind, tmp_path / "a.safetensors")
    for read in (checkpoints.load_safetensors, read_weights):
        assert one_line(CheckpointError, read, file).startswith(f"{file} ")
    (tmp_path / "a.index.json").symlink_to(file)
    assert "a.index.json " in one_line(CheckpointError, read_weights, tmp_path / "a.index.json")


def index(folder: Path, where: Any) -> Path:
    """Two shards, and an index that says so of them."""
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, folder / "1.safetensors")
    save_file({"c": torch.ones(4)}, folder / "2.safetensors")
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": where}))
    return file


WHERE = {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}


@pytest.mark.parametrize("variant", ["", "fp16."])
def test_shards_are_read_together(tmp_path, variant):
    file = index(tmp_path, WHERE).rename(tmp_path / f"model.safetensors.index.{variant}json")
    assert {name: len(value) for name, value in read_weights(file).items()} == {"a": 2, "b": 3, "c": 4}
    assert shards(file) == [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (WHERE | {"d": "2.safetensors"}, "2.safetensors lacks d, which "),
        ({name: shard for name, shard in WHERE.items() if name != "b"}, "1.safetensors holds b, which "),
        (WHERE | {"b": "2.safetensors"}, "1.safetensors holds b, which "),
        (WHERE | {"c": "3.safetensors"}, "3.safetensors is missing"),
        *((WHERE | {"c": name}, "is not a file beside it") for name in ("../2", "/etc/passwd", "..", ".", "", "a/b")),
        (WHERE | {"c": "..\\2.safetensors"}, "is not a file beside it"),
        (WHERE | {"c": "2\0.safetensors"}, "2\\x00.safetensors"),
        (WHERE | {"c": 3}, "has no weight_map"),
        ([], "has no weight_map"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_index_that_does_not_fit_is_named(tmp_path, where, message):
    text = one_line(CheckpointError, read_weights, index(tmp_path, where))
    assert message in text
    assert len(text) <= 1000


def test_an_index_of_more_weights_than_any_network_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_WEIGHTS", 2)
    assert "lists 3 weights; no network here has more than 2" in one_line(
        CheckpointError, read_weights, index(tmp_path, WHERE)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"weight_map": {"a": "1", "a": "2"}}', "the key 'a' is there twice"),
        ("[" * 100_000, "too deep"),
        ('{"weight_map": {"a": ' + "9" * 5000 + "}}", "is not valid JSON"),
        ("\ufeff[]", "is not a JSON object"),
        ("\x00", "is not valid JSON"),
    ],
    ids=lambda _: "",
)
def test_an_index_that_nobody_means_is_named(tmp_path, text, message):
    (tmp_path / "a.index.json").write_text(text)
    assert message in one_line(CheckpointError, read_weights, tmp_path / "a.index.json")


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_as_long_as_a_pickle_begins_is_that_of_safetensors(tmp_path, length):
    file = tmp_path / "a.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(length)
    file.write_bytes(length.to_bytes(8, "little") + header + torch.tensor([1.0, 2.0]).numpy().tobytes())
    assert is_pickle(file)
    assert checkpoints.load_safetensors(file)["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("size", [2**62, 10**9, 100])
def test_a_header_that_claims_more_than_there_is_is_damage(tmp_path, size):
    header = json.dumps({"a": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(40))
    assert "a.safetensors is damaged" in one_line(
        CheckpointError, checkpoints.load_safetensors, tmp_path / "a.safetensors"
    )


def test_what_memory_cannot_hold_is_not_read(tmp_path, monkeypatch):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    monkeypatch.setenv("DDIM_ODE_MEMORY", "10")
    text = one_line(CheckpointError, checkpoints.load_safetensors, tmp_path / "a.safetensors")
    assert "a.safetensors would take " in text
