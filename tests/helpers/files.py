"""Files that must not be: a pickle that runs code, and what is left half written."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path


class RunsCode:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def temporary_files(out: Path) -> list[Path]:
    return [file for file in out.rglob("*") if ".tmp" in file.name]


def no_file(kind: str, at: Path) -> Path:
    """Something at a path that is no regular file: a pipe, a device without an end, a link in a circle, ..."""
    if kind == "a pipe":
        os.mkfifo(at)
    elif kind == "a folder":
        at.mkdir()
    else:
        at.symlink_to({"a device": "/dev/zero", "a circle": at, "nothing": at.with_name("absent")}[kind])
    return at


def rewrite(
    archive: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED, more: int = 0
) -> None:
    """An archive of torch.save with other parts, of as many zeros more."""
    with zipfile.ZipFile(archive) as old:
        parts = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(archive, "w", compression) as new:
        for name, content in parts:
            new.writestr(name, change(name, content))
        if more:
            new.writestr("archive/zeros", bytes(more))
