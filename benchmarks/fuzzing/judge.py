"""The outcome of an input, with its memory and time bounded as far as one process can do that for itself."""

import errno
import os
import resource
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import ddim_ode
from benchmarks.fuzzing.inputs import CLEAN, FOREIGN, HANG, MEMORY, Fault, Input, Verdict

LONGEST = 1500  # characters of a message
ROOM = 4 * 2**30  # bytes above what the process has
PACKAGE = str(Path(ddim_ode.__file__).parent) + os.sep
NO_MEMORY = ("can't allocate memory", "not enough memory", "std::bad_alloc", "Cannot allocate memory")


class Hung(BaseException):
    """Raised by the alarm; no `except Exception` can catch it."""


def judge(given: Input, seconds: float) -> Verdict:
    """Run an input and say what came of it. It may take so many seconds, and 4 GiB more than the process has."""

    def found(outcome: str, error: str = "", where: str = "", message: str = "", trace: str = "") -> Verdict:
        return Verdict(given.name, given.what, outcome, error, where, message[:2000], trace[-20_000:])

    try:
        with bounded_memory(), alarm(seconds), quiet(given.quiet):
            return found(given.run())
    except Hung as hung:
        return found(HANG, "Hung", frame(hung.__traceback__), "", traceback.format_exc())
    except Fault as fault:
        return found(fault.outcome, fault.sort, fault.where, str(fault), traceback.format_exc())
    except BaseException as error:
        where, kind, trace = frame(error.__traceback__), type(error).__name__, traceback.format_exc()
        message = _text(error)
        if isinstance(error, given.refusals):
            wrong = unclean(message)
            return found(FOREIGN, f"{kind} ({wrong})", where, message, trace) if wrong else found(CLEAN)
        if isinstance(error, TypeError) and where == "" and given.refusals:
            return found(CLEAN)  # Python's own, for an argument that is missing or that there is not
        if isinstance(error, TypeError) and "<lambda>() takes" in message:
            return found(CLEAN)  # of a function that was given, and does not take what it should
        return found(MEMORY if out_of_memory(error) else FOREIGN, kind, where, message, trace)


def unclean(message: str) -> str:
    """What keeps a message from being one line of a terminal, or nothing."""
    if not message.strip():
        return "no message"
    if "\n" in message:
        return f"{message.count(chr(10)) + 1} lines"
    if len(message) > LONGEST:
        return f"over {LONGEST} characters"
    return "" if message.isprintable() else "control characters"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no more memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in _text(error) for words in NO_MEMORY)


def frame(trace: TracebackType | None) -> str:
    """The innermost frame of ddim_ode, as "grids.py:40 in karras", or nothing."""
    inside = [entry for entry in traceback.extract_tb(trace) if entry.filename.startswith(PACKAGE)]
    return f"{inside[-1].filename.removeprefix(PACKAGE)}:{inside[-1].lineno} in {inside[-1].name}" if inside else ""


@contextmanager
def bounded_memory(room: int = ROOM) -> Iterator[None]:
    """Let the process have so many bytes of addresses more than now."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `Hung` after so many seconds, if Python gets to run then; for the rest there is the watchdog of `pool`."""

    def ring(*_: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def quiet(everything: bool) -> Iterator[None]:
    """Warnings as a new process has them, or none."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        if everything:
            warnings.simplefilter("ignore")
        yield


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # of an odd value that the message was to show
        return f"<its message cannot be made: {type(other).__name__}>"
