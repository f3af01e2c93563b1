"""Files of tensors that any reader of safetensors takes, and that say a digest of themselves."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddim_ode.errors import DDIMError
from ddim_ode.support.tensors import KINDS, metadata_of, read_tensors, write_tensors, writing
from tests.helpers.assertions import one_line


def some() -> dict[str, torch.Tensor]:
    """One tensor of each kind, odd sizes and odd strides among them."""
    numbers = torch.arange(15).reshape(3, 5)
    found = {str(dtype): (numbers % 2).to(dtype) for dtype in KINDS}
    return found | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "turned": numbers.float().t()}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted
    )


def test_other_readers_read_what_is_written(tmp_path):
    write_tensors(tmp_path / "a.safetensors", some(), {"format": "pt"})
    assert same(load_file(tmp_path / "a.safetensors"), some())
    found, metadata = read_tensors(tmp_path / "a.safetensors", DDIMError, "write it again")
    assert same(found, some())
    assert metadata["format"] == "pt"


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    for name in "ab":
        write_tensors(
            tmp_path / name, dict(reversed(some().items())) if name == "b" else some(), {"x": "y", "format": "pt"}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("count", [1, 3, 7])  # of odd sizes, so that what follows is not aligned
def test_rows_that_come_in_turn(count, tmp_path):
    x, n = torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), torch.arange(count)
    with writing(tmp_path / "a.safetensors") as file:
        file.reserve("x", x.dtype, x.shape)
        for row in reversed(range(count)):
            file.put("x", x[row : row + 1], row)
        file.add("n", n)
    assert same(load_file(tmp_path / "a.safetensors"), {"x": x, "n": n})
    assert same(read_tensors(tmp_path / "a.safetensors", DDIMError, "write it again")[0], {"x": x, "n": n})


@pytest.mark.parametrize("sealed", [True, False])
def test_a_bit_that_flips_is_found(sealed, tmp_path):
    file, tensors = tmp_path / "a.safetensors", {"x": torch.arange(5.0), "n": torch.arange(3)}
    write_tensors(file, tensors, {"format": "pt"})
    written = file.read_bytes()
    for bit in range(0, 8 * len(written), 5):
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            found = read_tensors(file, DDIMError, "write it again", sealed)[0]
        except DDIMError:
            continue
        assert not sealed
        assert same(found, tensors)  # of one that has lost the mark of its digest


def test_files_of_other_programs_are_read_unless_they_must_be_sealed(tmp_path):
    save_file({"x": torch.arange(3)}, tmp_path / "a.safetensors", {"format": "pt", "sha256": "0" * 64})
    found, metadata = read_tensors(tmp_path / "a.safetensors", DDIMError, "write it again", sealed=False)
    assert same(found, {"x": torch.arange(3)})
    assert metadata == {"format": "pt", "sha256": "0" * 64}
    line = one_line(DDIMError, read_tensors, tmp_path / "a.safetensors", DDIMError, "write it again")
    assert "it has no digest of itself; write it again" in line


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 200, b"\x08\0\0\0\0\0\0\0{}      ", b"\x10\0\0\0\0\0\0\0" + b"[" * 16]
)
def test_what_is_no_such_file_is_one_line(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    if content.endswith(b"{}      "):
        assert read_tensors(tmp_path / "a.safetensors", DDIMError, "x", sealed=False) == ({}, {})
    else:
        line = one_line(DDIMError, read_tensors, tmp_path / "a.safetensors", DDIMError, "write it again", sealed=False)
        assert str(tmp_path) in line


def test_a_disk_with_too_little_room_is_found_out_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10**9}))

    def reserve() -> None:
        with writing(Path(tmp_path / "a.safetensors")) as file:
            file.reserve("x", torch.float32, (10**6, 1000))

    assert "4.0 GB are needed on the disk, and 1.0 GB are free" in one_line(DDIMError, reserve)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_utf8(tmp_path):
    write_tensors(tmp_path / "a\udcff", some(), {"format": "pt"})
    assert same(read_tensors(tmp_path / "a\udcff", DDIMError, "write it again")[0], some())
    assert metadata_of(tmp_path / "a\udcff", DDIMError, "write it again")["format"] == "pt"
