"""The folder that a job works in: `job.json` says what decides its results, so that it goes on as it was begun.

The first process holds the folder and tells the others what the record says. What is looked for before the work, such
as the tolerance of a budget, is looked for once and kept there. Of another run that is replaced, the record names the
files until they are gone: nothing is deleted that no record names.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ddim_ode.errors import DDIMError
from ddim_ode.shards.differences import difference
from ddim_ode.support.files import OutputError, reported
from ddim_ode.support.outputs import LOCK, check_replaceable, held, inside, is_begun, is_noise
from ddim_ode.support.processes import Processes
from ddim_ode.support.reading import read_json
from ddim_ode.support.records import KIND, RecordError, read_record, seal, write_record
from ddim_ode.support.resources import size
from ddim_ode.support.shards import JOB

FOUND, REPLACES = "found", "replaces"  # in it: what was looked for; the files of another run, which go
LOOKS = (0.1, 0.4, 1.5, 4.0, 9.0, 15.0)  # seconds between looks at a file of another process, which NFS shows late
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.(tmp|old)", re.DOTALL)  # as `files.temporary` names them

T = TypeVar("T")


class ShardError(DDIMError):
    """Shards that cannot be kept as asked, or are not there as they were written."""


class ShardWarning(UserWarning):
    """A shard that is not as it was written, and is made again."""


@dataclass(frozen=True)
class Kind:
    """A kind of jobs.

    name: in its records. what, option, remedy: in messages; the option is the one that says the folder. written: the
    names, relative to the folder, of the files that a job with such a record may have written; with an empty one, those
    that other records name. Folders among them end in a slash. replaceable: whether there is --overwrite.
    """

    name: str
    what: str
    option: str
    remedy: str
    written: Callable[[Path, Mapping[str, Any]], Collection[str]]
    replaceable: bool = True


@contextmanager
def job(
    here: Processes,
    folder: Path,
    record: Mapping[str, Any],
    kind: Kind,
    *,
    find: Callable[[], Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    need: int = 0,
) -> Iterator[dict[str, Any]]:
    """The record of a job in a folder, with what was found under "found"; the first process holds it meanwhile.

    record: what decides the results, as JSON has it. find: looks for what else does, once the folder is known to be
    free. overwrite: whether another run of ours may be replaced; it goes before this one begins. The same one goes on,
    and one of which there is nothing yet gives way. need: bytes that the job takes.

    Raises:
        OutputError: the folder is of another run or another command, holds something else, has too little room, cannot
            be written, or is not the one that the other processes see; or a run is at work in it.
    """
    record = json.loads(json.dumps(record))
    with ExitStack() as stack:
        claim = _Claim(folder, record, kind, overwrite)
        stored = here.shared("job", lambda: claim.begin(stack, find, need))
        if not here.main:
            who = f"process {here.rank + 1} of {here.size}"
            if told := difference(stored, record):
                raise OutputError(f"{who} was not started as the first, whose {told}; give all of them the same")
            patiently(lambda: claim.check_seen(stored, who), here)
        yield stored


def digest_of(stored: Mapping[str, Any]) -> str:
    """What tells a job from others."""
    return seal(stored)


def patiently(look: Callable[[], T], here: Processes) -> T:
    """What is seen of a file that another process has written. Raises as `look` does at last."""
    for pause in () if here.alone else LOOKS:
        with suppress(DDIMError):
            return look()
        here.check()
        time.sleep(pause)
    return look()


def check_room(folder: Path, need: int, goes: Collection[str] = (), option: str = "--out") -> None:
    """Raise OutputError where the disk has too little room, even without the files that go."""
    with reported(folder):
        free = shutil.disk_usage(folder).free
        freed = sum((folder / name).lstat().st_size for name in goes if not name.endswith("/"))
    if need > free + freed:
        after = " once the other run is gone" if freed else ""
        raise OutputError(
            f"{folder} has too little room: what is missing takes {size(need)}, and {size(free + freed)} are free"
            f"{after}; make room, or choose another {option}"
        )


@dataclass(frozen=True)
class _Claim:
    """What a job finds in the folder that it asks for."""

    folder: Path
    record: Mapping[str, Any]
    kind: Kind
    overwrite: bool

    def begin(self, stack: ExitStack, find: Callable[[], Mapping[str, Any]] | None, need: int) -> dict[str, Any]:
        """Hold the folder, refuse what must stay, look for what is looked for, and remove what goes."""
        self.look()  # before there is a lock in somebody else's folder
        made = not self.folder.exists()
        stack.enter_context(held(self.folder, self.kind.option))
        if made:
            stack.callback(self._vanish)
        stored, goes = self.look(mine=True)
        if stored is None:
            check_room(self.folder, need, goes, self.kind.option)
            stored = {**self.record, **({FOUND: find()} if find else {})}
            _, goes = self.look(mine=True)  # again, after what may have taken minutes
            self._write({**stored, REPLACES: goes} if goes else stored)
        if goes or REPLACES in stored:
            self._clear(goes)
            stored.pop(REPLACES, None)
            self._write(stored)
        return stored

    def look(self, mine: bool = False) -> tuple[dict[str, Any] | None, list[str]]:
        """The record of this job, None if it is to begin; and the files of another run, which go.

        mine: whether the folder is held by now. Raises OutputError for anything else in it.
        """
        folder, option = self.folder, self.kind.option
        with reported(folder):
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"{folder} is a file; choose another {option}")
            if (folder / JOB).exists():
                return self._look_at_job()
            if not folder.exists() or is_begun(folder, JOB):
                return None, []
            if not self.kind.replaceable:
                raise OutputError(f"{folder} is not empty and has no {JOB} of ours; choose another {option}")
            check_replaceable(folder, self.overwrite, mine)
            return None, _present(folder)

    def _look_at_job(self) -> tuple[dict[str, Any] | None, list[str]]:
        stored = self._stored()
        told = difference(stored, self.record)
        if not told and REPLACES not in stored:
            return stored, []
        there, replaces = _present(self.folder), set(stored.get(REPLACES, ()))
        ours = {*self.kind.written(self.folder, stored), *replaces}
        if not told:
            self._refuse([name for name in there if name not in ours])
            return stored, [name for name in there if name in replaces]
        goes = [name for name in there if name in ours]
        if self.overwrite:
            self._refuse([name for name in there if name not in ours])
            return None, goes
        if all(name.endswith("/") for name in goes):  # nothing was made
            return None, []
        raise OutputError(f"{self.folder} belongs to another {self.kind.what}: its {told}; {self.kind.remedy}")

    def _stored(self) -> dict[str, Any]:
        """What the record says; nothing, if it is damaged and may be replaced."""
        file, option = self.folder / JOB, self.kind.option
        remedy = f"it is of version 0.1.0, or was changed: choose another {option}, or put the original {JOB} back"
        try:
            return read_record(file, self.kind.name, OutputError, remedy)
        except OutputError:
            with suppress(RecordError):
                read_record(file)
                theirs = read_json(file, RecordError)[KIND]
                if not theirs.startswith(self.kind.name):
                    raise OutputError(
                        f"{self.folder} is of another command: its {JOB} says {theirs!r}, and not {self.kind.name!r}"
                        f"; choose another {option}"
                    ) from None
            if not (self.overwrite and self.kind.replaceable):
                raise
            return {}

    def _refuse(self, strange: list[str]) -> None:
        """Raise OutputError for files that no job of ours has written."""
        if strange:
            raise OutputError(
                f"{self.folder} holds {strange[0]}, which no run has written and --overwrite would delete"
                f"; move it away, or choose another {self.kind.option}"
            )

    def _clear(self, goes: Collection[str]) -> None:
        """Remove the files of another run, then the folders that were theirs."""
        with reported(self.folder):
            for name in goes:
                if not name.endswith("/"):
                    (self.folder / name).unlink(missing_ok=True)
            for name in sorted((name for name in goes if name.endswith("/")), reverse=True):  # the innermost first
                path = self.folder / name
                if path.is_symlink():  # to what is not ours
                    path.unlink()
                    continue
                for left in path.iterdir():
                    if is_noise(left.name) or TEMPORARY.fullmatch(left.name):
                        left.unlink()
                path.rmdir()

    def _write(self, told: Mapping[str, Any]) -> None:
        write_record(self.folder / JOB, self.kind.name, told)

    def _vanish(self) -> None:
        """Leave no folder behind in which nothing was begun."""
        with suppress(OSError):
            if all(entry.name == LOCK for entry in self.folder.iterdir()):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()

    def check_seen(self, stored: Mapping[str, Any], who: str) -> None:
        """Raise OutputError unless the record is the one that the first process has told."""
        file = self.folder / JOB
        if not file.is_file() or read_record(file, self.kind.name, OutputError) != stored:
            raise OutputError(
                f"{who} does not see {file} of this run; give a folder on a file system that all processes share"
            )


def _present(folder: Path) -> list[str]:
    """What is in a folder, at any depth, but for its record, its lock, and what is of no use to anybody."""
    last = ((name, PurePosixPath(name).name) for name in inside(folder) if name not in (JOB, LOCK))
    return [name for name, end in last if not (is_noise(end) or TEMPORARY.fullmatch(end))]
