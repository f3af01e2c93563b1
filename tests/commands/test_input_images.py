"""The images that a command begins with: files that fit, and files of every other kind."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddim_ode.commands.shared.input_images import gather
from ddim_ode.data import DataError
from tests.helpers.assertions import one_line

MODEL: Any = SimpleNamespace(shape=(1, 8, 8), num_classes=0)


def test_files_and_folders_are_read_in_order(images: Path) -> None:
    given = gather(MODEL, [images / "2.png", images])
    assert given.names == [str(images / name) for name in ("2.png", "0.png", "1.png", "2.png", "3.png")]
    assert np.array_equal(given.x[0, 0].numpy(), np.asarray(Image.open(images / "2.png")))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is a pipe"),
        (lambda file: os.symlink("/dev/zero", file), "is a device"),
        (lambda file: os.symlink(file, file), "cannot be read"),
        (lambda file: os.symlink("none", file), "cannot be read"),
        (os.mkdir, "found no images"),
        (lambda file: Path(file).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0"), "PostScript"),
        (lambda file: None, "no such file or folder"),
    ],
)
@pytest.mark.parametrize("resize", [False, True])
def test_what_is_no_image_is_refused_without_a_wait(
    tmp_path: Path, make: Callable[[Path], Any], words: str, resize: bool
) -> None:
    make(tmp_path / "a.png")
    line = one_line(DataError, gather, MODEL, [tmp_path / "a.png"], resize=resize)
    assert str(tmp_path / "a.png") in line
    assert words in line


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16", "CMYK"])
def test_another_mode_is_taken_only_to_be_converted(tmp_path: Path, mode: str) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.new("L", (8, 8), 77).convert("RGB" if mode in ("CMYK", "P") else "L").convert(mode).save(tmp_path / name)
    assert "--resize makes it fit" in one_line(DataError, gather, MODEL, [tmp_path / name])
    assert gather(MODEL, [tmp_path], resize=True).x.shape == (1, 1, 8, 8)


def test_a_turned_image_fits_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (8, 4)).save(tmp_path / "a.png", exif=exif)
    tall: Any = SimpleNamespace(shape=(1, 8, 4), num_classes=0)
    assert gather(tall, [tmp_path]).x.shape == (1, 1, 8, 4)
    assert "found 4 x 8 pixels" in one_line(DataError, gather, MODEL, [tmp_path])
