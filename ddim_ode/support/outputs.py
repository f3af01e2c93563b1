"""Results that appear complete or not at all, a folder or a file: made beside their place and moved into it.

A folder may be replaced only if it is one of ours, and holds nothing else: its `manifest.json` says so.
"""

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from ddim_ode.support.files import OutputError, hold, new_scratch, reported, sweep, sweep_all, temporary
from ddim_ode.support.records import OURS, RecordError, read_record, write_record

MANIFEST, LOCK = "manifest.json", ".lock"
AT_CWD, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux

__all__ = ["LOCK", "MANIFEST", "OutputError", "added", "finish", "going_on", "new_file", "new_folder"]


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place on success and vanishes on failure.

    It is made at once, so that an `out` that cannot be written is found out before anything is computed. Two machines
    must not write the same `out` at once: locks of folders do not reach that far.

    Raises:
        OutputError: `out` cannot be written, holds what must not be replaced, or another run is at work on it.
    """
    out = Path(os.path.realpath(out))
    with ExitStack() as stack:
        with reported(out):
            _sweep_unheld(out)
            check_replaceable(out, overwrite)
            folder = stack.enter_context(_scratch(out))
        yield folder
        with reported(out), _kept(folder, out):
            check_replaceable(out, overwrite)
            _replace(folder, out)


@contextmanager
def new_file(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Where to write what is to be the file `out`; it takes its place on success and vanishes on failure.

    Raises:
        OutputError: `out` cannot be written, or must not be replaced. That is found out at once, too.
    """
    out = Path(os.path.realpath(out))
    with ExitStack() as stack:
        with reported(out):
            _sweep_unheld(out)
            _check_file(out, overwrite)
            folder = stack.enter_context(_scratch(out))
        yield folder / out.name
        with reported(out), _kept(folder / out.name, out):
            _check_file(out, overwrite)
            os.replace(folder / out.name, out)


@contextmanager
def added(folder: Path, last: str) -> Iterator[Path]:
    """A scratch folder whose files replace those of `folder` on success, `last` after all others; the old `last` is
    removed before them, so that where it is, all are of one time. On failure nothing has changed.

    Raises OutputError: the folder cannot be written.
    """
    with ExitStack() as stack:
        with reported(folder):
            sweep(folder / last)
            scratch = stack.enter_context(_scratch(folder / last))
        yield scratch
        with reported(folder):
            (folder / last).unlink(missing_ok=True)
            for file in sorted(scratch.iterdir(), key=lambda file: file.name == last):
                os.replace(file, folder / file.name)


def _sweep_unheld(out: Path) -> None:
    if sweep(out):
        raise OutputError(f"another run is at work on {out}; wait for it, or choose another --out")


@contextmanager
def _kept(made: Path, out: Path) -> Iterator[None]:
    """What was made is not lost where it is refused its place at the end: it stays under a name of its own."""
    try:
        yield
    except (OutputError, OSError) as error:
        if not made.exists():
            raise
        name = temporary(out).name.removeprefix(".").removesuffix(".tmp")
        os.rename(made, out.with_name(name))
        why = str(error) if isinstance(error, OutputError) else f"{out} cannot be written: {error.strerror}"
        raise OutputError(f"{why}; what was made is {out.with_name(name)}") from None


def finish(folder: Path, command: str, record: Mapping[str, Any]) -> None:
    """Write the manifest of a folder that is complete otherwise: what made it, and what may be deleted with it."""
    files = {name: (folder / name).stat().st_size for name in inside(folder) if not name.endswith("/")}
    write_record(folder / MANIFEST, f"{OURS}{command} 1", {**record, "files": files})


@contextmanager
def going_on(
    folder: Path,
    name: str,
    kind: str,
    record: Mapping[str, Any],
    ours: Callable[[], bool] = lambda: False,
    *,
    option: str = "--out",
) -> Iterator[dict[str, Any]]:
    """A folder in which a run goes on where it was, made if need be and held for one run at a time.

    Yields what its file `name` says: the record, if the folder is new, or is `ours` without such a file. Errors call
    the choice of the folder `option`.

    Raises:
        OutputError: it is a file, cannot be written, holds something else, or a run is at work in it.
    """
    with reported(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; choose another {option}")
        folder.mkdir(parents=True, exist_ok=True)
        remedy = f"it is of version 0.1.0, or was changed: choose another {option}, or put the original {name} back"
        if (folder / name).exists():
            read_record(folder / name, kind, OutputError, remedy)
        elif not (is_begun(folder, name) or ours()):
            raise OutputError(f"{folder} is not empty and has no {name} of ours; choose another {option}")
    with held(folder, option):
        if not (folder / name).exists():
            write_record(folder / name, kind, record)
        yield read_record(folder / name, kind, OutputError, remedy)


@contextmanager
def held(folder: Path, option: str = "--out") -> Iterator[None]:
    """A folder, made if need be and held for one run at a time, without what killed ones have left behind.

    Raises OutputError: it cannot be written, or a run is at work in it.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(f"another run is at work in {folder}; wait for it, or choose another {option}") from None
    try:
        sweep_all(folder)
        yield
    finally:
        lock.release()


def is_begun(folder: Path, name: str) -> bool:
    """Whether a folder is empty, but for what a run that was killed early leaves."""
    begun = re.compile(rf"{re.escape(LOCK)}|\.{re.escape(name)}\.[0-9a-f]{{12}}\.tmp")
    return all(begun.fullmatch(entry.name) or is_noise(entry.name) for entry in folder.iterdir())


def is_noise(name: str) -> bool:
    """Whether a file is one that file managers and network file systems strew about."""
    return name in (".DS_Store", "Thumbs.db", "desktop.ini") or name.startswith(".nfs")


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, held by this process; it and the folders made for it vanish afterwards."""
    made = [parent for parent in out.parents if not parent.exists()]
    folder, held = None, -1
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder, held = new_scratch(out)
        yield folder
    except OutputError as error:  # of a file in it, which nobody knows by this name
        raise OutputError(str(error).replace(str(folder), str(out))) from None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        if held >= 0:
            os.close(held)
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


def check_replaceable(out: Path, overwrite: bool, mine: bool = False) -> None:
    """Raise OutputError unless `out` can be made anew: it is not there, empty, or a run of ours to overwrite.

    mine: whether this process holds the folder, and has put a lock into it.
    """
    _check_above(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file; choose another --out")
    if out.samefile(Path.cwd()):
        raise OutputError(f"{out} is the current folder, which cannot be replaced; choose another --out")
    if os.path.ismount(out):
        raise OutputError(f"{out} is a mount point, which cannot be replaced; use a folder inside it")
    found = [name for name in inside(out) if not is_noise(PurePosixPath(name).name) and not (mine and name == LOCK)]
    if not found:
        return
    try:
        files = read_record(out / MANIFEST)["files"]
        written = {MANIFEST, *files}
        written |= {f"{parent}/" for name in files for parent in PurePosixPath(name).parents}
        strange = [name for name in found if name not in written]
        strange += [name for name, size in files.items() if name in found and size != (out / name).stat().st_size]
    except (RecordError, LookupError, TypeError, AttributeError):
        why = f"its {MANIFEST} is not of this version, or was changed" if MANIFEST in found else f"it has no {MANIFEST}"
        raise OutputError(f"{out} is not empty and not a run of this program: {why}; choose another --out") from None
    if not overwrite:
        raise OutputError(f"{out} is not empty; choose another --out, or replace it with --overwrite")
    if strange:
        raise OutputError(
            f"{out} holds {strange[0]}, which this run has not written like that and --overwrite would delete"
            "; move it away, or choose another --out"
        )


def inside(folder: Path) -> list[str]:
    """What a folder holds, at any depth, by names relative to it; those of folders end in a slash."""
    found = []
    for root, folders, files in os.walk(folder):
        place = Path(root).relative_to(folder)
        found += [(place / name).as_posix() for name in files]
        found += [f"{(place / name).as_posix()}/" for name in folders]
    return sorted(found)


def _replace(new: Path, out: Path) -> None:
    """Put the folder `new` where `out` is, and remove what was there.

    Where the system can exchange the two at once, there is no moment without either; elsewhere a kill in between leaves
    the old one beside its place, and `sweep` puts it back.
    """
    if not out.exists() or not any(out.iterdir()):
        os.rename(new, out)
    elif _exchange(new, out):
        shutil.rmtree(new, ignore_errors=True)
    else:
        old, held = temporary(out, "old"), os.open(out, os.O_RDONLY) if os.name == "posix" else -1
        try:
            assert held < 0 or hold(held)  # so that nobody puts it back before its time
            os.rename(out, old)
            os.rename(new, out)
        except BaseException:
            if old.exists() and not out.exists():
                os.rename(old, out)
            raise
        finally:
            if held >= 0:
                os.close(held)
        shutil.rmtree(old.rename(old.with_suffix(".tmp")), ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders at once, if the system and the file system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # of glibc 2.28 and later
    return rename is not None and rename(AT_CWD, os.fsencode(a), AT_CWD, os.fsencode(b), EXCHANGE) == 0
