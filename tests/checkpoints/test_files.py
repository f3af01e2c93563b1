"""A checkpoint of torch is read as tensors and plain containers; it runs no code and is whole, or it is refused."""

import pickle

import pytest
import torch

from ddim_ode import checkpoints
from ddim_ode.checkpoints import CheckpointError
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode
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
