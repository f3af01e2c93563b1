"""Arguments as strangers give them: each error is ours and names the argument. Folders as strangers have them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddim_ode import data
from ddim_ode.data import DataError, image_files, load_images, save_grid, save_images, to_float, to_uint8
from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line

SHAPE = (1, 4, 4)
HUGE = 10**5000


def image(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(file)
    return file


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (data.fashion_mnist, (3,), "split"),
        (data.fashion_mnist, (["train"],), "split"),
        (data.fashion_mnist, ("test", 3), "folder"),
        (data.image_folder, (3, SHAPE), "folder"),
        (data.image_folder, (None, SHAPE), "folder"),
        (load_images, ("x", SHAPE), "files"),
        (load_images, (Path("x"), SHAPE), "files"),
        (load_images, ([3], SHAPE), "files[0]"),
        (load_images, ([], SHAPE), "files"),
        (load_images, (["x"], 28), "shape"),
        (load_images, (["x"], "128"), "shape"),
        (load_images, (["x"], ("1", "2", "2")), "shape"),
        (load_images, (["x"], (2, 4, 4)), "shape"),
        (load_images, (["x"], (1, 0, 4)), "shape"),
        (load_images, (["x"], (1, 4)), "shape"),
        (load_images, (["x"], (1, 4.5, 4)), "shape"),
        (load_images, (["x"], (1, 10**5, 10**5)), "shape"),
        (load_images, (["x"], (1, HUGE, 1)), "shape"),
        (to_float, ([1],), "images"),
        (to_float, (None,), "images"),
        (to_float, (torch.zeros(1),), "images"),
        (to_uint8, ([0.0],), "x"),
        (to_uint8, (np.zeros(2),), "x"),
        (to_uint8, (torch.arange(3),), "x"),
        (to_uint8, (torch.zeros(2, dtype=torch.complex64),), "x"),
        (to_uint8, (torch.zeros(2, dtype=torch.bool),), "x"),
        (to_uint8, (torch.tensor([0, torch.nan]),), "x"),
        (to_uint8, (torch.zeros(2, device="meta"),), "x"),
    ],
)
def test_the_argument_is_named(call: Callable[..., Any], arguments: tuple[Any, ...], name: str) -> None:
    line = one_line(DDIMError, call, *arguments)
    assert name in line
    assert len(line) < 400


@pytest.mark.parametrize("save", [save_grid, save_images])
@pytest.mark.parametrize(
    "x",
    [
        None,
        [0.0],
        np.zeros((1, 1, 4, 4)),
        torch.zeros(0, *SHAPE),
        torch.zeros(1, 1, 0, 4),
        torch.zeros(2, *SHAPE, dtype=torch.int64),
        torch.zeros(2, *SHAPE, device="meta"),
        torch.zeros(2, *SHAPE).to_sparse(),
        torch.full((2, *SHAPE), torch.nan),
    ],
)
def test_what_is_no_image_is_not_saved(tmp_path: Path, save: Callable[..., Any], x: Any) -> None:
    assert one_line(DDIMError, save, x, tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["columns", "zoom", "margin"])
@pytest.mark.parametrize("value", [-1, 2.5, "x", None, True, 10**9, pytest.param(HUGE, id="huge")])
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    line = one_line(DataError, save_grid, torch.zeros(2, *SHAPE), tmp_path / "a.png", **{name: value})
    assert name in line
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("save", [save_grid, save_images])
def test_a_place_that_is_no_path_is_refused(save: Callable[..., Any]) -> None:
    assert one_line(ArgumentError, save, torch.zeros(2, *SHAPE), 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_is_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    x = torch.tensor([-1.0, 1.0, -torch.inf, torch.inf]).reshape(1, 1, 2, 2).to(dtype).requires_grad_()
    (file,) = save_images(x, tmp_path, first=7)
    assert file.name == "00007.png"
    assert [saved.name for saved in save_images(x, tmp_path, first=7, digits=7)] == ["0000007.png"]
    assert np.asarray(Image.open(file)).flatten().tolist() == [0, 255, 0, 255]
    assert save_grid(x, tmp_path / "grid.png") == 1


def test_bytes_survive_half_precision() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(bytes_).half()), bytes_)


@pytest.mark.parametrize("columns", [1, 3, 8])
@pytest.mark.parametrize(("pixels", "height"), [(20_000, 10**6), (10**6, 200), (20_000, 200)])
def test_a_sheet_of_many_shows_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, pixels: int, height: int
) -> None:
    monkeypatch.setattr(data, "SHEET", pixels)
    monkeypatch.setattr(data, "HIGHEST", height)
    x = torch.linspace(-1, 1, 1500).reshape(-1, 1, 1, 1).expand(-1, 1, 7, 9)
    found = save_grid(x, tmp_path / "a.png", columns=columns)
    assert 0 < found < len(x)
    assert found % columns == 0
    assert save_grid(x[:found], tmp_path / "b.png", columns=columns) == found
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (columns * 20 + 2, found // columns * 16 + 2)
        assert sheet.width * sheet.height <= pixels
        assert sheet.height <= height
        assert sheet.width * (sheet.height + 16) > pixels or sheet.height + 16 > height  # no room for a row more


def test_a_row_is_always_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHEET", 10)
    assert save_grid(torch.zeros(5, *SHAPE), tmp_path / "a.png", columns=2) == 2


def test_a_thousand_small_images_are_all_shown(tmp_path: Path) -> None:
    assert save_grid(torch.zeros(1000, 1, 28, 28), tmp_path / "a.png") == 1000


# --- folders


def test_a_name_that_is_no_text_is_read(tmp_path: Path) -> None:
    image(tmp_path / "good.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\n.png"))
    files = image_files(tmp_path)
    assert load_images(files, SHAPE).shape == (1, *SHAPE)
    files[0].write_bytes(b"")
    assert r"a\udcff" in one_line(DataError, load_images, files, SHAPE)


@pytest.mark.parametrize("link", ["..", ".", "../b"])
def test_a_link_that_would_count_images_twice_is_refused(tmp_path: Path, link: str) -> None:
    image(tmp_path / "b" / "a.png")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(link)
    assert "count twice" in one_line(DataError, image_files, tmp_path)


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    elsewhere = image(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to(elsewhere.parent)
    assert image_files(tmp_path / "images") == [tmp_path / "images" / "link" / "a.png"]


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda file: os.symlink(file, file), lambda file: os.symlink("-", file)]
)
def test_what_has_the_name_of_an_image_and_is_none_is_refused(tmp_path: Path, make: Callable[..., Any]) -> None:
    image(tmp_path / "good.png")
    make(tmp_path / "bad.png")
    assert f"{tmp_path / 'bad.png'} has the name of an image" in one_line(DataError, image_files, tmp_path)


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a" / "a.png")
    image(tmp_path / "shut" / "b.png")
    scan = os.scandir

    def closed(path: Any) -> Any:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert f"{tmp_path / 'shut'} cannot be read: Permission denied" in one_line(DataError, image_files, tmp_path)


@pytest.mark.parametrize("damage", [lambda good: good[:100], lambda good: b"", lambda good: b"x" * 1000, None])
def test_an_image_of_the_package_that_is_damaged_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes] | None
) -> None:
    name = "fashion-mnist-test.safetensors"
    if damage:
        (tmp_path / name).write_bytes(damage((data.ASSETS / name).read_bytes()))
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    line = one_line(DataError, data.bundled_images)
    assert str(tmp_path / name) in line
    assert "install ddim_ode again" in line
