"""Image files as strangers give them: few formats, bounded before they are decoded, upright, and nothing but a picture.

Pillow knows many more formats than an image of data has, some of which start other programs, and believes the bytes
whatever the file's name says. So the formats are listed, and what else is found is refused by name.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from ddim_ode.errors import DDIMError, one_line
from ddim_ode.support.reading import open_regular

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_PIXELS = 100_000_000  # of a file; each takes 4 bytes or more while it is read
OTHERS = (  # how files begin that are called images as well
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"jP  ", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "HTML"),
    (0, b"<html", "HTML"),
    (0, b"PK\3\4", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"version https://git-lfs", "a pointer of Git LFS"),
)
EXPECTED = f"expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def read_picture(file: str | os.PathLike[str], error: type[DDIMError]) -> Image.Image:
    """The picture of a file, decoded, in the mode that the file has, and turned as the file says.

    Raises `error`: the file cannot be read or is no regular file, has another format, more than `MOST_PIXELS` or
    several frames, or is damaged. Of the pictures in a JPEG, such as a phone's, the first counts.
    """
    with open_regular(file, error, "give an image file") as opened:
        return picture_in(opened, str(file), error)


def picture_in(opened: BinaryIO, where: str, error: type[DDIMError]) -> Image.Image:
    """The picture of a file that is open, or of one inside another. `where` names it. Raises as `read_picture`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about what is bounded here, or does not matter
            return _decoded(opened)
    except MemoryError:
        raise
    except Exception as fault:  # the decoders fail in any way at what is no such file
        reason = _format_of(opened) if isinstance(fault, UnidentifiedImageError) else ""
        reason = reason or one_line(str(fault), 200) or type(fault).__name__
        raise error(f"{where}: found no readable image ({reason}), {EXPECTED}") from None


def pictures_below(top: Path, error: type[DDIMError]) -> Iterator[Path]:
    """The files in a folder and those below it that are called images, in no order; links to folders are followed.

    Raises `error`: a folder cannot be read, or is there twice; or what is called an image is no file.
    """
    seen: dict[tuple[int, int], Path] = {}
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                found = {Path(e.path): e.is_dir(follow_symlinks=False) or os.path.isdir(e.path) for e in entries}
        except OSError as fault:
            raise error(f"{folder} cannot be read: {fault.strerror}; make it readable or leave it out") from None
        place = (status.st_dev, status.st_ino)
        if place in seen and status.st_ino:  # which Windows may not know
            raise error(f"{folder} is {seen[place]} again, whose images would count twice; leave the link out")
        seen[place] = folder
        for path, is_folder in found.items():
            if path.suffix.lower() in SUFFIXES:
                if not os.path.isfile(path):
                    what = "a folder" if is_folder else "a link to nothing" if path.is_symlink() else "no regular file"
                    raise error(f"{path} has the name of an image and is {what}; leave it out")
                yield path
        folders += sorted((path for path, is_folder in found.items() if is_folder), reverse=True)


def _decoded(opened: BinaryIO) -> Image.Image:
    with Image.open(opened, formats=FORMATS) as image:  # reads the header only
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels, which are more than {MOST_PIXELS:,}; make it smaller")
        if image.format in ("PNG", "WEBP") and (frames := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"an animation of {frames} frames; save the one that is meant")
        found: Any = ImageOps.exif_transpose(image)  # a copy that is loaded
        assert isinstance(found, Image.Image)
        return found


def _format_of(opened: BinaryIO) -> str:
    """What a file is that is none of `FORMATS`, in words; "" if that is not known."""
    opened.seek(0)
    head = opened.read(64)
    if not head:
        return "0 bytes"
    names = (name for at, begin, name in OTHERS if head.lstrip(b"\xef\xbb\xbf \r\n\t")[at:].startswith(begin))
    return next(names, "no image")
