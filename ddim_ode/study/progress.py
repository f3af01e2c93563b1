"""How far a study is, told after every step, and whether it can still be finished."""

import time
from collections.abc import Callable
from typing import NamedTuple

from ddim_ode.support.processes import Processes

CELLS = "cells"  # the name of the tasks of which each is a cell
LOOK = 0.2  # seconds from one look at the other processes to the next: over a network each takes about a millisecond
WAITING = "waiting for other processes"


class StudyProgress(NamedTuple):
    """How far a study is: what is at work, how many of `total` cells are done, and the share of this one, 0 to 1.

    own: how many of the cells this process has taken so far, of which the last is at work.
    """

    what: str
    done: int
    total: int
    share: float
    own: int = 0


class Stopped(BaseException):
    """Carries an exception past the cell at work, which has not failed: of a callback, or of the run."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


class Watch:
    """It tells a callback how far all processes are, and ends this one where the run cannot be finished."""

    def __init__(self, here: Processes, total: int, callback: Callable[[StudyProgress], None] | None):
        self.here, self.total, self.callback = here, total, callback
        self.done = self.own = 0
        self._next = 0.0  # when to look again, by time.monotonic

    def begin(self, own: int = 0) -> None:
        """A task begins, which is so many a cell."""
        self.own += own
        self._next = 0.0

    def __call__(self, what: str, share: float) -> None:
        """Raises Stopped."""
        try:
            if (now := time.monotonic()) >= self._next:
                self.here.check()
                self.done, self._next = self.here.add(f"{CELLS}/done", 0), now + LOOK
            if self.callback:
                self.callback(StudyProgress(what, self.done, self.total, share, self.own))
        except Exception as error:
            raise Stopped(error) from error

    def wait(self, name: str, total: int) -> None:
        """Wait for the other processes to do the tasks of a name. Raises Stopped, and ProcessError."""
        self.here.wait(name, total, lambda: self(WAITING, 0.0))

    def meet(self, name: str) -> None:
        """Wait until all processes have come here. Raises Stopped, and ProcessError."""
        self.here.add(f"{name}/done")
        self.wait(name, self.here.size)
