"""The folder that a job works in: `job.json` says what decides its results, so that it goes on as it was begun.

The first process holds the folder and tells the others what the record says. What is looked for before the work, such
as the tolerance of a budget, is looked for once and kept there.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ddim_ode.errors import one_line
from ddim_ode.support.files import OutputError, reported
from ddim_ode.support.outputs import LOCK, check_replaceable, going_on, is_begun, is_noise
from ddim_ode.support.processes import Processes
from ddim_ode.support.records import read_record, seal, write_record

JOB = "job.json"
KIND = "ddim_ode job 1"
FOUND, REPLACES = "found", "replaces"  # what was looked for; that the rest of the folder is of another run, and goes
SHOWN = 70  # characters of a value, a digest at least
OURS = re.compile(
    r"job\.json|index\.json|manifest\.json|grid\.png|profile\.safetensors|samples\.npz|\.lock|\..+\.tmp"
    r"|samples-\d+-of-\d+\.(safetensors|tar|rows)|shards/|shards/\d+\.json|images/|images/\d+\.png|(shards|images)/\..+\.tmp"
)


@contextmanager
def job(
    here: Processes,
    folder: Path,
    record: Mapping[str, Any],
    find: Callable[[], Mapping[str, Any]],
    overwrite: bool = False,
) -> Iterator[dict[str, Any]]:
    """The record of a job in a folder, with what was found under "found"; the first process holds it meanwhile.

    record: what decides the results, as JSON has it. find: looks for what else does. overwrite: whether another run of
    ours may be replaced; the same one goes on.

    Raises:
        OutputError: the folder is of another run, or holds something else, cannot be written, or is not the one that
            the other processes see; or a run is at work in it.
    """
    record = json.loads(json.dumps(record))
    with ExitStack() as stack:

        def begin() -> dict[str, Any]:
            wanted = record
            if (replaces := _is_other(folder, overwrite)) is not None:
                wanted = {**record, FOUND: find(), REPLACES: replaces}
            stored = stack.enter_context(going_on(folder, JOB, KIND, wanted, lambda: overwrite))
            if told := difference(stored, record):
                if not overwrite:
                    raise OutputError(
                        f"{folder} belongs to another run: its {told}"
                        "; give the same, choose another --out, or replace it with --overwrite"
                    )
                _refuse_strange(folder)
                stored = {**record, FOUND: find(), REPLACES: True}
                write_record(folder / JOB, KIND, stored)
            return _cleared(folder, stored) if stored.get(REPLACES) else stored

        stored = here.shared("job", begin)
        if not here.main:
            if told := difference(stored, record):
                who = f"process {here.rank + 1} of {here.size}"
                raise OutputError(f"{who} was not started as the first, whose {told}; give all of them the same")
            _check_seen(folder, stored, here)
        yield stored


def _is_other(folder: Path, overwrite: bool) -> bool | None:
    """None for the folder of a job; else whether there is anything in it, which may be replaced. Raises OutputError."""
    with reported(folder):
        if (folder / JOB).exists():
            return None
        if not folder.is_dir() or is_begun(folder, JOB):
            return False
        check_replaceable(folder, overwrite)
        return True


def difference(stored: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """The first value in which a record is not what is stored, in words: "nfe is 10, not 20"; "" if it is the same."""
    for name in record:
        if stored.get(name) != record[name]:
            return f"{name} is {_short(stored.get(name))}, not {_short(record[name])}"
    return ""


def digest_of(stored: Mapping[str, Any]) -> str:
    """What tells a job from others."""
    return seal(stored)


def _check_seen(folder: Path, stored: Mapping[str, Any], here: Processes) -> None:
    file = folder / JOB
    if not file.is_file() or read_record(file, KIND, OutputError) != stored:
        raise OutputError(
            f"process {here.rank + 1} of {here.size} does not see {file} of this run"
            "; give a folder on a file system that all processes share"
        )


def _refuse_strange(folder: Path) -> None:
    """Raise OutputError for a file that no job of ours has written."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix() + "/" * path.is_dir()
        if not OURS.fullmatch(name) and not is_noise(path.name):
            raise OutputError(
                f"{folder} holds {name}, which no run has written and --overwrite would delete"
                "; move it away, or choose another --out"
            )


def _cleared(folder: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what the folder holds of another run. Until that is done, the record says that it is to be done."""
    with reported(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (JOB, LOCK):
                path.unlink()
    told = {**stored, REPLACES: False}
    write_record(folder / JOB, KIND, told)
    return told


def _short(value: Any) -> str:
    return one_line(json.dumps(value), SHOWN)
