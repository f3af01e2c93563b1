"""Files that must not be: a pickle that runs code, and what is left half written."""

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
