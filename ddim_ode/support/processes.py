"""The processes of one run, as torchrun, accelerate launch or srun start them, and the store that they share.

Who there is, and the store, are torch.distributed's, by its environment variables: RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT. Work is cut into numbered tasks, of which each process takes the next, so that a slow one holds nobody up.
A process on its own is a run of one, whose store is in memory.
"""

import atexit
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from ddim_ode.errors import DDIMError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

JOINING = timedelta(minutes=10)  # for the slowest to be started
FAILING = timedelta(seconds=10)  # for the others, where this process has failed before it has met them
NEVER = timedelta(days=365)
LEAVING = 30.0  # seconds that the first process, whose store it is, waits for the others to end
SHORTEST, LONGEST = 0.01, 0.5  # seconds between looks at the store
FAILED, LEFT = "failed", "left"
LAUNCHER = os.getppid()  # as this process begins

T = TypeVar("T")


class ProcessError(DDIMError):
    """The other processes of a run are not there, or no longer."""

    passing = True


class OtherFailedError(ProcessError):
    """Another process of the run has failed, and has said why."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run: this one is `rank` of `size`."""

    rank: int
    size: int
    parent: int  # the process that started this one
    store: "Store"
    job: str  # before the names of its counters

    @property
    def main(self) -> bool:
        """Whether this is the first: the one that holds the folder, shows progress and tells the results."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def tasks(self, name: str, total: int) -> Iterator[int]:
        """The tasks 0..total-1 that this process is to do, each given to one alone. One is done when the next is
        asked for.
        """
        while (number := self.add(f"{name}/taken") - 1) < total:
            yield number
            self.add(f"{name}/done")

    def wait(self, name: str, total: int, idle: Callable[[], None] = lambda: None) -> None:
        """Wait until all tasks of a name are done, by whichever process; `idle` is called now and then.

        Raises ProcessError where that can no longer be.
        """
        self._until(lambda: self.add(f"{name}/done", 0) >= total, idle)

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """A value that JSON can hold, made by the first process for all. Raises ProcessError where that has failed."""
        if self.main:
            self.tell(name, make())
        else:
            self._until(lambda: self._has(f"{self.job}/{name}"))
        value: T = self.told(name)
        return value

    def tell(self, name: str, value: Any) -> None:
        """Leave a value that JSON can hold for the other processes."""
        with _reported():
            self.store.set(f"{self.job}/{name}", json.dumps(value))

    def told(self, name: str) -> Any:
        """What a process has left under a name; None where none has."""
        if not self._has(f"{self.job}/{name}"):
            return None
        with _reported():
            return json.loads(self.store.get(f"{self.job}/{name}"))

    def add(self, name: str, n: int = 1) -> int:
        """Add to a counter that all processes share. Returns what it is then."""
        with _reported():
            return int(self.store.add(f"{self.job}/{name}", n))

    def check(self) -> None:
        """Raise ProcessError where the run cannot be finished: another process has failed, or the launcher is gone."""
        if self.alone:
            return
        _check_launcher(self.parent)
        if self._has(FAILED) or self._has(f"{self.job}/{FAILED}"):
            raise OtherFailedError("another process of this run has failed")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that is nothing without the other processes: what ends it in this one, an error or an interruption,
        ends it in them too, at their next `check`. What they do together after that is not concerned.
        """
        try:
            yield
        except BaseException:
            with suppress(ProcessError):  # nobody is left to tell
                self.tell(FAILED, self.rank)
            raise

    def _has(self, key: str) -> bool:
        with _reported():
            return bool(self.store.check([key]))

    def _until(self, met: Callable[[], bool], idle: Callable[[], None] = lambda: None) -> None:
        pause = SHORTEST
        while not met():
            self.check()
            idle()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)


_jobs = count()
_store: "Store | None" = None


def processes() -> Processes:
    """The processes of this run, with counters of their own for whatever is asked for them next.

    Every process of a run must ask equally often, in the same order.

    Raises ProcessError: the others cannot be reached.
    """
    if (size := world_size()) > 1:
        return Processes(rank(), size, LAUNCHER, _joined(), f"job {next(_jobs)}")
    return alone()


def alone() -> Processes:
    """A run of this process on its own, whatever others there are."""
    from torch.distributed import HashStore  # type: ignore[attr-defined]

    return Processes(0, 1, os.getppid(), HashStore(), "job")


def world_size() -> int:
    """How many processes the run has. Raises ProcessError for an environment that says no number."""
    return max(1, _number("WORLD_SIZE", 1))


def local_rank() -> int:
    """The number of this process among those on its machine, which is also that of its GPU."""
    return _number("LOCAL_RANK", 0) if world_size() > 1 else 0


def local_size() -> int:
    """How many processes of the run are on this machine, as far as their launcher tells."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1)) if world_size() > 1 else 1


def rank() -> int:
    """The number of this process in its run."""
    return _number("RANK", 0) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the first process of its run."""
    return rank() == 0


def speaks(message: str, patience: timedelta = JOINING) -> bool:
    """Whether this process is the one to say what any of them would."""
    try:
        said = f"said {sha256(message.encode()).hexdigest()}"
        return world_size() == 1 or int(_joined(patience).add(said, 1)) == 1
    except (RuntimeError, ProcessError):  # nobody is left to agree with
        return True


def fail() -> None:
    """Tell the other processes that this one ends, whatever they do together now or later."""
    with suppress(RuntimeError, ProcessError):  # nobody is left to tell
        if world_size() > 1:
            _joined(FAILING).set(FAILED, "")


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ProcessError(f"{variable}={text!r} in the environment is no number; start this with torchrun")
    return int(text)


def _joined(patience: timedelta = JOINING) -> "Store":
    """The store of the run."""
    global _store
    if _store is not None:
        return _store
    from torch.distributed.rendezvous import rendezvous

    _check_launcher(LAUNCHER)  # whose store would be waited for
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        told = (
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that there are several processes, and {missing[0]} is not set"
        )
        raise ProcessError(f"{told}; start this with torchrun, or unset WORLD_SIZE")
    try:
        if _launcher_has_store():
            _check_listening(patience)
        _store, _, _ = next(iter(rendezvous("env://", timeout=patience)))
    except (RuntimeError, ValueError, ConnectionRefusedError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = (str(error).splitlines() or [""])[0]
        raise ProcessError(f"the other processes are not at {place} ({reason:.200}); start all of them again") from None
    _store.set_timeout(NEVER)
    if not _launcher_has_store():
        atexit.register(_leave, _store)
    return _store


def _launcher_has_store() -> bool:
    """Whether the store is torchrun's, which is there before its processes and after them; else the first has it."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _check_listening(patience: timedelta) -> None:
    """Raise ConnectionRefusedError where nobody is at the place of the store; who is slow to answer is there."""
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection(place, patience.total_seconds()).close()
    except OSError as error:
        if isinstance(error, ConnectionRefusedError):
            raise


def _leave(store: "Store") -> None:
    """End as the last, where this process has the store; the others may be about to look at it."""
    with suppress(RuntimeError, KeyboardInterrupt):  # an impatient user, or nobody is left
        left, end = store.add(LEFT, 1), time.monotonic() + LEAVING
        while is_main() and left < world_size() and time.monotonic() < end:
            time.sleep(SHORTEST)
            left = store.add(LEFT, 0)


def _check_launcher(parent: int) -> None:
    if os.getppid() != parent:
        raise ProcessError("the launcher of this run has ended; run it again, and it goes on where it was")


@contextmanager
def _reported() -> Iterator[None]:
    """The errors of a store that is no longer there as one of ours."""
    try:
        yield
    except RuntimeError as error:  # of which torch's DistError is one
        if not type(error).__name__.startswith("Dist"):
            raise
        gone = "the store of this run is gone, and its launcher or first process with it"
        raise ProcessError(f"{gone}; run it again, and it goes on where it was") from None
