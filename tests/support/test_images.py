"""Image files that are not what they seem: each is refused in one line that names it, before anything big is made."""

import os
import struct
import subprocess
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ddim_ode.data import DataError
from ddim_ode.support.images import FORMATS, MOST_PIXELS, read_picture
from tests.helpers.assertions import one_line


def picture(mode: str = "RGB", size: tuple[int, int] = (12, 8)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    """A grey PNG that says a size, whatever it holds."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: os.symlink("/dev/zero", file)])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_refused_without_a_wait(tmp_path: Path, make: Callable, linked: bool) -> None:
    file = tmp_path / "a.png"
    make(tmp_path / "b.png" if linked else file)
    if linked:
        file.symlink_to("b.png")
    line = one_line(DataError, read_picture, file, DataError)
    assert str(file) in line
    assert any(words in line for words in ("is a pipe", "is a folder", "is a device"))


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.symlink_to("a.png")
    assert str(file) in one_line(DataError, read_picture, file, DataError)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "PostScript"),
        (b"\n%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"II*\0" + bytes(20), "TIFF"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "AVIF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"PK\3\4" + bytes(20), "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"some words", "no image"),
        (b"", "0 bytes"),
    ],
)
def test_another_format_is_named_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, found: str
) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "check_call"):
        monkeypatch.setattr(subprocess, name, start)
    file = tmp_path / "a.png"
    file.write_bytes(content)
    line = one_line(DataError, read_picture, file, DataError)
    assert found in line
    assert "expected PNG, JPEG, WEBP or BMP" in line


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO"])
def test_a_good_file_of_another_format_is_refused(tmp_path: Path, kind: str) -> None:
    picture().save(tmp_path / "a.png", format=kind)
    assert "no readable image" in one_line(DataError, read_picture, tmp_path / "a.png", DataError)


@pytest.mark.parametrize("size", [(10_001, 10_000), (13_400, 13_300), (2**31 - 1, 1), (60_000, 60_000)])
def test_a_size_is_bounded_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    def load(_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert size[0] * size[1] > MOST_PIXELS
    (tmp_path / "a.png").write_bytes(png(*size))
    line = one_line(DataError, read_picture, tmp_path / "a.png", DataError)
    assert "pixels" in line
    assert "decoded" not in line


def test_a_large_image_gives_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # above which Pillow warns of a bomb
    picture().save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", DataError).size == (12, 8)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_that_unpacks_to_more_is_refused(tmp_path: Path, kind: bytes) -> None:
    bomb = zlib.compress(bytes(3 * 2**20), 9)
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    (tmp_path / "a.png").write_bytes(png(4, 1, chunk(kind, head + bomb), pixels=bytes(5)))
    try:
        image = read_picture(tmp_path / "a.png", DataError)
    except DataError as error:
        assert "a.png" in str(error)  # noqa: PT017  # either is right: refused, or read without the text
    else:
        assert image.tobytes() == bytes(4)
        assert not image.info.get("icc_profile")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.png", format=kind, save_all=True, append_images=frames[1:])
    assert "an animation of 3 frames" in one_line(DataError, read_picture, tmp_path / "a.png", DataError)


def test_of_the_pictures_of_a_phone_the_first_counts(tmp_path: Path) -> None:
    picture("L").save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("L", (12, 8))])
    picture("L").save(tmp_path / "b.jpg", format="JPEG")
    first, alone = (np.asarray(read_picture(tmp_path / name, DataError)) for name in ("a.jpg", "b.jpg"))
    assert np.array_equal(first, alone)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_it_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(tmp_path / "a.png", exif=exif)
    stored = np.asarray(picture())
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(stored, 1),
    }[orientation]
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png", DataError)), upright)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_damage_is_an_error_of_the_file_or_none_at_all(tmp_path: Path, kind: str, seed: int) -> None:
    file, generator = tmp_path / "a.png", np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x010E] = "words" * 20
    picture().save(file, format=kind, **({} if kind == "BMP" else {"exif": exif}))
    good = np.frombuffer(file.read_bytes(), np.uint8)
    errors = []
    for _ in range(40):
        bad = good.copy()
        at = generator.integers(0, len(bad), 6)
        bad[at] = generator.integers(0, 256, 6)
        file.write_bytes(bad[: generator.integers(1, len(bad) + 1)].tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read_picture(file, DataError)
            except DataError as error:
                errors.append(str(error))
    assert len(errors) > 5
    assert not [line for line in errors if "\n" in line or str(file) not in line]
