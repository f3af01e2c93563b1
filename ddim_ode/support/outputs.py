"""Results that appear complete or not at all, a folder or a file: made beside their place and renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ddim_ode.errors import DDIMError


class OutputError(DDIMError):
    """A folder that cannot be written, or must not be; what was there before is still there."""


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place on success and vanishes on failure.

    It is made at once, so that an `out` that cannot be written is found out before anything is computed.

    Raises:
        OutputError: `out` cannot be written, or holds something that must not be replaced.
    """
    out = Path(os.path.realpath(out))
    try:
        _check_replaceable(out, overwrite)
        with _scratch(out.with_name(f".{out.name}.{uuid4().hex[:12]}.tmp")) as folder:
            yield folder
            _check_replaceable(out, overwrite)
            _replace(folder, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}; what was there is unchanged") from None


@contextmanager
def new_file(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Where to write what is to be the file `out`; it takes its place on success and vanishes on failure.

    Raises:
        OutputError: `out` cannot be written, or must not be replaced. That is found out at once, too.
    """
    out = Path(os.path.realpath(out))
    try:
        _check_file(out, overwrite)
        with _scratch(out.with_name(f".{out.name}.{uuid4().hex[:12]}.tmp")) as folder:
            yield folder / out.name
            _check_file(out, overwrite)
            os.replace(folder / out.name, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}; what was there is unchanged") from None


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:  # the innermost first; one that is not empty stays
            with suppress(OSError):
                parent.rmdir()


def _check_file(out: Path, overwrite: bool) -> None:
    _check_above(out)
    if out.exists() and not out.is_file():
        raise OutputError(f"{out} is {'a folder' if out.is_dir() else 'no file'}; choose another --out")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; choose another --out, or replace it with --overwrite")


def _check_above(out: Path) -> None:
    above = next((parent for parent in out.parents if parent.exists()), out)
    if above != out and not above.is_dir():
        raise OutputError(f"{out} cannot be written: {above} is a file; choose another --out")


def _check_replaceable(out: Path, overwrite: bool) -> None:
    _check_above(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file; choose another --out")
    if out.samefile(Path.cwd()):
        raise OutputError(f"{out} is the current folder, which cannot be replaced; choose another --out")
    if os.path.ismount(out):
        raise OutputError(f"{out} is a mount point, which cannot be replaced; use a folder inside it")
    if not any(out.iterdir()):
        return
    if not (out / "manifest.json").is_file():
        raise OutputError(f"{out} is not empty and not a run of this program (no manifest.json); choose another --out")
    if not overwrite:
        raise OutputError(f"{out} is not empty; choose another --out, or replace it with --overwrite")


def _replace(tmp: Path, out: Path) -> None:
    """Put `tmp` where `out` is; until that has succeeded, `out` can be put back."""
    if not out.exists() or not any(out.iterdir()):
        os.rename(tmp, out)
        return
    old = out.with_name(f".{out.name}.{uuid4().hex[:12]}.old")
    try:
        os.rename(out, old)
        os.rename(tmp, out)
    except BaseException:
        if old.exists() and not out.exists():
            os.rename(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)
