"""What a torch.save file may hold besides weights, and what its archive may claim."""

import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddim_ode
from ddim_ode.checkpoints import CheckpointError, load_torch
from ddim_ode.checkpoints.torch_files import is_pickle
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode, no_file, rewrite

WEIGHTS = {"w": torch.arange(1000.0), "b": torch.ones(3)}


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (np.float64(2e-4), 2e-4),
        (np.float32(0.5), 0.5),
        (np.float16(-2), -2.0),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.float64("inf"), float("inf")),
        (np.dtype(">f8").type(1.5), 1.5),
    ],
    ids=lambda value: repr(value),
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_number_of_numpy_is_read(tmp_path, number, value, legacy):
    file = tmp_path / "a.pt"
    torch.save([WEIGHTS, {"rate": number}], file, _use_new_zipfile_serialization=not legacy)
    found = load_torch(file)[1]["rate"]
    assert found == value
    assert type(found) is type(value)


def test_an_array_of_numpy_is_left_out(tmp_path):
    """As the state of a random generator is in the checkpoints of some."""
    torch.save({"net": WEIGHTS, "rng": np.random.RandomState(0).get_state()}, tmp_path / "a.pt")
    assert torch.equal(load_torch(tmp_path / "a.pt")["net"]["w"], WEIGHTS["w"])


@pytest.mark.parametrize("kind", [np.dtype("O"), np.dtype("V8"), np.dtype([("a", "O")]), np.dtype("U3")], ids=str)
def test_of_the_kinds_of_numpy_only_numbers_are(tmp_path, kind):
    torch.save({"net": WEIGHTS, "kind": kind}, tmp_path / "a.pt")
    assert "a.pt is a pickle that would run code" in one_line(CheckpointError, load_torch, tmp_path / "a.pt")


def test_the_refusal_names_what_it_would_run_and_never_how_to_run_it(tmp_path):
    torch.save({"net": WEIGHTS, "step": RunsCode(tmp_path / "ran")}, tmp_path / "a.pt")
    text = one_line(CheckpointError, load_torch, tmp_path / "a.pt")
    assert "(it names getattr)" in text
    assert "save its tensors as safetensors (safetensors.torch.save_file) and give that file" in text
    assert "weights_only" not in text
    assert not (tmp_path / "ran").exists()


def test_a_program_of_torch_is_named(tmp_path):
    file = tmp_path / "a.pt"
    torch.save(WEIGHTS, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("a/constants.pkl", b"\x80\x02).")
    text = one_line(CheckpointError, load_torch, file)
    assert text == f"{file} is a TorchScript program; save the state_dict of the network instead"


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a circle", "nothing", "a folder"])
def test_what_is_no_file_is_refused_without_a_wait(tmp_path, kind):
    text = one_line(CheckpointError, load_torch, no_file(kind, tmp_path / "a.pt"))
    assert text.startswith(f"{tmp_path / 'a.pt'} ")
    assert kind in text or "cannot be read: " in text


def test_a_bit_that_flips_anywhere_in_the_weights_is_found(tmp_path):
    file = tmp_path / "a.pt"
    torch.save(WEIGHTS, file)
    data = file.read_bytes()
    start = data.index(WEIGHTS["w"].numpy().tobytes())
    for k in range(start, start + 4000, 97):
        file.write_bytes(data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1 :])
        assert "a.pt is damaged (the checksum of " in one_line(CheckpointError, load_torch, file)


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_torch(tmp_path / "a.pt")["w"], WEIGHTS["w"])


def test_a_compressed_archive_is_read_unless_it_is_a_bomb(tmp_path):
    file = tmp_path / "a.pt"
    torch.save(WEIGHTS, file)
    rewrite(file, lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert torch.equal(load_torch(file)["w"], WEIGHTS["w"])
    rewrite(file, lambda name, content: content, zipfile.ZIP_DEFLATED, more=2_000_000)
    assert "a.pt would unpack to 2 MB, and holds " in one_line(CheckpointError, load_torch, file)


def test_an_archive_whose_parts_overlap_is_refused(tmp_path):
    """Each entry of its directory says the whole file: a bomb without compression."""
    file = tmp_path / "a.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", bytes(100_000))
        for k in range(50):
            info = archive.infolist()[0]
            copy = zipfile.ZipInfo(f"a/{k}")
            copy.header_offset, copy.CRC = info.header_offset, info.CRC
            copy.file_size = copy.compress_size = info.file_size
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    assert "a.pt would unpack to 5.1 MB, and holds " in one_line(CheckpointError, load_torch, file)


def test_two_parts_of_one_name_are_refused(tmp_path):
    file = tmp_path / "a.pt"
    torch.save(WEIGHTS, file)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data.pkl", b"\x80\x02).")
    assert "two of its parts have one name" in one_line(CheckpointError, load_torch, file)


def test_a_part_that_is_shorter_than_its_tensor_is_damage(tmp_path):
    file = tmp_path / "a.pt"
    torch.save(WEIGHTS, file)
    rewrite(file, lambda name, content: content[:40] if name.endswith("data/0") else content)
    assert "a.pt is damaged" in one_line(CheckpointError, load_torch, file)


def test_an_old_file_that_claims_more_than_it_holds_is_damaged(tmp_path):
    file = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(77)}, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    assert data.count(b"KM") >= 2  # BININT1 77: of the storage and of the shape
    file.write_bytes(data.replace(b"KM", b"J\xff\xff\xff\x7f"))  # BININT 2**31 - 1, which would be 8 GB
    text = one_line(CheckpointError, load_torch, file)
    assert "a.pt is damaged" in text or "of memory" in text


@pytest.mark.parametrize("name", ["pickle", "\x80\x02a"])
def test_a_tar_does_not_reach_torch(tmp_path, monkeypatch, name):
    """The oldest form of torch.save, whose reader was another; a tar begins with the name of its first part."""
    file = tmp_path / "a.pt"
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert is_pickle(file) == (name != "pickle")
    monkeypatch.setattr(torch, "load", None)
    text = one_line(CheckpointError, load_torch, file)
    assert text == f"{file} is damaged, or of another kind: no archive of torch.save, no pickle; use another checkpoint"


def test_what_memory_cannot_hold_is_not_read(tmp_path, monkeypatch):
    torch.save(WEIGHTS, tmp_path / "a.pt")
    monkeypatch.setenv("DDIM_ODE_MEMORY", "1K")
    assert f"{tmp_path / 'a.pt'} would take " in one_line(CheckpointError, load_torch, tmp_path / "a.pt")


def test_ordered_dicts_and_parameters_are_read(tmp_path):
    state: Any = OrderedDict(w=torch.nn.Parameter(torch.ones(2)))
    torch.save(state, tmp_path / "a.pt")
    assert torch.equal(load_torch(tmp_path / "a.pt")["w"], torch.ones(2))


def test_torch_is_left_as_it_was(tmp_path):
    """Nobody else's torch.load reads more afterwards."""
    torch.save({"rate": np.float64(2e-4)}, tmp_path / "a.pt")
    before = set(torch.serialization.get_safe_globals())
    load_torch(tmp_path / "a.pt")
    assert set(torch.serialization.get_safe_globals()) == before


def test_no_message_of_the_library_tells_to_run_code():
    """torch's own does."""
    package = Path(sys.modules["ddim_ode"].__file__ or "").parent
    assert ddim_ode.__file__
    assert not [file for file in package.rglob("*.py") if "weights_only=False" in file.read_text()]
