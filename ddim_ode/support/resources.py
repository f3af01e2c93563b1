"""How much memory there is, asked before anything big is made of it."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import shown

VARIABLE = "DDIM_ODE_MEMORY"
SMALL = 2**26  # bytes that nobody looks for: every machine has them, and to look takes longer
BEYOND = 10**24  # bytes: no float need tell more
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
FAILURES = ("can't allocate memory", "not enough memory", "bad_alloc")  # torch's RuntimeError says so
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def check_memory(need: int, what: str, remedy: str, error: type[DDIMError]) -> None:
    """Raise `error` where `need` bytes are more than there are; `what` needs them, and `remedy` is what to do instead.

    The environment variable DDIM_ODE_MEMORY (64G, 500M, "unlimited") says how many there are instead of the system.
    """
    given = os.environ.get(VARIABLE)
    if not given and need < SMALL:
        return
    most = allowed(given, error) if given else available()
    need = min(need, BEYOND)
    if most is not None and need > most:
        raise _passing(
            error,
            f"{what} would take {size(need)} of memory, and {size(most)} are {'allowed' if given else 'free'}"
            f"; {remedy}, or set {VARIABLE}={math.ceil(need / 1e9)}G to allow it",
        )


@contextmanager
def allocating(need: int, what: str, remedy: str, error: type[DDIMError]) -> Iterator[None]:
    """A place to allocate in, of ours alone: what the allocators of torch and numpy refuse there is `error`."""
    try:
        yield
    except (MemoryError, RuntimeError) as failure:
        if isinstance(failure, RuntimeError) and not any(words in str(failure) for words in FAILURES):
            raise
        lack = f"{what} would take {size(need)} of memory, which the system does not give"
        raise _passing(error, f"{lack}; {remedy}") from None


@contextmanager
def room(need: int, what: str, remedy: str, error: type[DDIMError]) -> Iterator[None]:
    """A place to allocate in, where `check_memory` has found that there is room."""
    check_memory(need, what, remedy, error)
    with allocating(need, what, remedy, error):
        yield


def allowed(given: str, error: type[DDIMError]) -> int | None:
    """The bytes that DDIM_ODE_MEMORY allows, None for "unlimited". Raises `error` for what is no amount."""
    if given.strip().lower() == "unlimited":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([KMGT]?I?)B?", given.strip().upper().replace(" ", ""))
    if not found or found[2] not in UNITS:
        raise error(f"{VARIABLE}={shown(given)} is no amount of memory; write it as in 64G, 500M or unlimited")
    return int(float(found[1]) * UNITS[found[2]])


def available() -> int | None:
    """The bytes that a process may still take: of the machine, or of its group where that has less; None if unknown."""
    known = [found for found in (_of_machine(), *_of_groups()) if found is not None]
    return min(known, default=None)


def size(count: float) -> str:
    """A number of bytes for people: "49.2 GB"."""
    if count >= 1e12:
        return f"{count / 1e9:,.0f} GB" if count < 1e18 else f"{count / 1e9:.1e} GB"
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= each:
            return f"{count / each:.3g} {unit}"
    return f"{count:.0f} bytes"


def _passing(error: type[DDIMError], message: str) -> DDIMError:
    """The error of a want that may not be there another time."""
    found = error(message)
    found.passing = True
    return found


def _of_machine() -> int | None:
    with suppress(OSError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):  # another system: all that it has
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_groups() -> Iterator[int]:
    """What is left to each control group that the process is in, of both versions."""
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if not controllers:
                root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file ")
            elif "memory" in controllers.split(","):
                root, names = (
                    CGROUPS / "memory",
                    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
                )
            else:
                continue
            folder = root / place.lstrip("/")
            for group in (folder, *folder.parents):
                if (rest := _rest(group, *names)) is not None:
                    yield rest
                if group == root:
                    break


def _rest(group: Path, limit: str, used: str, cached: str) -> int | None:
    """The limit of a group less what it uses, but for files in its cache that nobody needs; None without a limit."""
    with suppress(OSError, ValueError):  # no such file, or "max"
        most, taken = int((group / limit).read_text()), int((group / used).read_text())
        with suppress(OSError):
            lines = (group / "memory.stat").read_text().splitlines()
            taken -= sum(int(line.split()[1]) for line in lines if line.startswith(cached))
        return max(0, most - taken)
    return None
