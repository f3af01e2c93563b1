"""Writing so that a kill or a full disk leaves either the old file or the new one, never half of one, and nothing else
for good: what a killed process has left is swept away by the next that writes the same.

A process holds what it is writing by a lock of the system, which ends with it. Where there are no such locks (Windows,
some network file systems), nothing is held and nothing is swept.
"""

import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import as_path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

LONGEST = 200  # bytes of a name that are in the name of what is to become it; systems allow 255 in all
TRIES = 100  # at a name that nobody else takes for left behind


class OutputError(DDIMError):
    """A file or a folder that cannot be written, or must not be."""

    passing = True


class _Written(io.FileIO):
    """A file that remembers why it could not be written: torch and others make errors of their own of it."""

    refused: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.refused = error
            raise


@contextmanager
def replacing(file: Path, one_of_many: bool = False) -> Iterator[BinaryIO]:
    """A new file, open for bytes, that takes the place of `file` on success and vanishes on failure.

    A link stays one, and what it leads to is replaced; permissions stay what they were. `one_of_many` in a folder that
    is made as a whole, or was swept, is neither swept nor synchronised by itself.

    Raises:
        OutputError: the disk is full, the folder is missing or cannot be written, or `file` is no regular file.
    """
    if not as_path("file", file).name:
        raise OutputError(f"{str(file)!r} is no name of a file; give another")
    file = Path(os.path.realpath(file))
    with reported(file):
        mode = os.stat(file).st_mode if os.path.exists(file) else None
        if mode is not None and not stat.S_ISREG(mode):
            raise OutputError(f"{file} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}; choose another")
        if not one_of_many:
            sweep(file)
        tmp, descriptor = _made(file, lambda name: os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666))
    raw = _Written(descriptor, "r+b")
    raw.name = str(tmp)  # type: ignore[misc]  # of a file that was opened by its number
    new = io.BufferedWriter(raw)
    try:
        yield cast(BinaryIO, new)
        with reported(file):
            new.flush()
            if not one_of_many:
                os.fsync(descriptor)
            if mode is not None:
                os.chmod(tmp, stat.S_IMODE(mode))
            if os.name != "posix":  # where what is open cannot be moved
                new.close()
            os.replace(tmp, file)  # while it is held
    except Exception:
        if raw.refused:
            with reported(file):
                raise raw.refused from None
        raise
    finally:
        with suppress(OSError):
            new.close()
        with suppress(OSError):
            tmp.unlink()


_BINARY = getattr(os, "O_BINARY", 0)


@contextmanager
def reported(out: Path) -> Iterator[None]:
    """What the system refuses while `out` is written, as an OutputError that names it and says why."""
    try:
        yield
    except OSError as error:
        inside = f" ({error.filename})" if error.filename and not str(error.filename).startswith(str(out)) else ""
        why = f"{error.strerror or error}{inside}"
        raise OutputError(f"{out} cannot be written: {why}; what was there is unchanged") from None


def new_scratch(out: Path) -> tuple[Path, int]:
    """An empty folder beside `out`, and the descriptor by which this process holds it (-1: nobody can)."""

    def make(name: Path) -> int | None:
        name.mkdir()
        with suppress(FileNotFoundError):
            return os.open(name, os.O_RDONLY) if os.name == "posix" else -1
        return None  # it was swept already

    return _made(out, make)


def _made(out: Path, make: Callable[[Path], int | None]) -> tuple[Path, int]:
    """A temporary file or folder of `out` that this process holds, by `make(name)`, which opens it.

    Between its making and its holding another process may take it for left behind, and sweep it: then it is made anew.
    """
    for _ in range(TRIES):
        name = temporary(out)
        descriptor = make(name)
        if descriptor is None:
            continue
        if descriptor < 0 or (hold(descriptor) and _is_at(descriptor, name)):
            return name, descriptor
        os.close(descriptor)
    raise OutputError(f"{out} cannot be written: other processes are at work on it all the time; wait for them")


def _is_at(descriptor: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(name))
    except FileNotFoundError:
        return False


def temporary(out: Path, end: str = "tmp") -> Path:
    """A name beside `out`, of no file yet, that `sweep` knows."""
    return out.with_name(f".{_stem(out.name)}.{uuid4().hex[:12]}.{end}")


def _stem(name: str) -> str:
    """The name or, of one that would become too long, its start and a digest."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST:
        return name
    return f"{os.fsdecode(whole[: LONGEST - 20])}~{hashlib.sha256(whole).hexdigest()[:16]}"


def hold(descriptor: int) -> bool:
    """Hold an open file or folder, as long as it is open or until this process ends. False: another process does."""
    with suppress(OSError):  # there are no locks here
        try:
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def sweep(out: Path) -> bool:
    """Remove the temporary files and folders of `out` that nobody holds: those of processes that were killed.

    A folder that was about to be replaced is put back if there is none in its place. Returns whether there are others,
    which a process holds.
    """
    return _sweep(out.parent, re.escape(_stem(out.name)), out)


def sweep_all(folder: Path) -> None:
    """Remove the temporary files and folders in a folder that nobody holds, whatever they were to become."""
    _sweep(folder, ".+", None)


def _sweep(folder: Path, name: str, out: Path | None) -> bool:
    pattern, held = re.compile(rf"\.({name})\.[0-9a-f]{{12}}\.(tmp|old)", re.DOTALL), False
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if fcntl and pattern.fullmatch(entry.name)]:
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
                held |= not _remove(Path(entry.path), out)
    return held


def _remove(left: Path, out: Path | None) -> bool:
    """Remove what was left behind; False if a process holds it."""
    with suppress(OSError):  # it is gone by now, or there are no locks here
        flags = os.O_RDONLY if left.is_dir() else os.O_RDWR
        descriptor = os.open(left, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if left.suffix == ".old" and out is not None and not os.path.lexists(out):
                os.rename(left, out)
            elif left.is_dir():
                # Under the other name, half of it can no longer be put back.
                shutil.rmtree(left.rename(left.with_suffix(".tmp")), ignore_errors=True)
            else:
                left.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True
