"""Ctrl-C as one line and exit code 130, from the first moment of a program to its last, whatever it interrupts.

Python's own handler raises KeyboardInterrupt wherever the program is. In the middle of an import that leaves half a
module behind, or comes out as another exception; at the end of the program it is a traceback. So while nothing has been
started, modules are imported, or nothing is left to do, the process ends at once. In between KeyboardInterrupt is
raised, so that what is unfinished is cleaned up, and remembered, as a library may turn it into something else.
"""

import os
import signal
import sys
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # without the module `typing`: until `watch` was called, an interrupt is a traceback
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

CODE = 128 + 2  # what shells make of SIGINT
LINE = b"interrupted\n"
CURSOR = b"\x1b[?25h"  # shown again, which a progress bar hides

_working = False
_happened = False


def watch() -> None:
    """Take over Ctrl-C from Python, unless somebody else has, or it is to be ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


@contextmanager
def working() -> "Iterator[None]":
    """While this lasts, an interrupt is KeyboardInterrupt once; a second ends the process."""
    global _working
    _working = True
    usual = sys.unraisablehook

    def again(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):  # lost in a destructor
            leave()
        usual(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        _working = False
        sys.unraisablehook = usual


def happened() -> bool:
    """Whether there was an interrupt while `working`."""
    return _happened


def leave() -> "NoReturn":
    """Say that this was interrupted, and end the process here; what is unfinished stays for the next run to sweep.

    Of the processes of a run, which are interrupted together, the first says it.
    """
    with suppress(OSError):
        if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0":
            os.write(2, (CURSOR if os.isatty(2) else b"") + LINE)
    os._exit(CODE)


def _interrupt(number: int, frame: "FrameType | None") -> None:
    global _happened
    if _happened or not _working or _importing(frame):
        leave()
    _happened = True
    raise KeyboardInterrupt


def _importing(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
