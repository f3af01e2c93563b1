"""Where the processes of a study measure: each on a device that no other measures on, so that its times are true.

A GPU is a device. On CPUs a device is the cores that a process has to itself: those of a launcher are shared out among
its processes, and the two threads of a core go together. Where there are fewer cores than processes, all of them are
one device.
"""

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from ddim_ode.support.processes import local_rank, local_size

THREADS, SYSTEM = Path("/proc/self/task"), Path("/sys/devices/system/cpu")
BOOT = Path("/proc/sys/kernel/random/boot_id")  # which all containers of a machine share, and no two machines


class SharedDeviceWarning(UserWarning):
    """Some processes of a study have no device to themselves."""


class Place(NamedTuple):
    """A device: its name, a key that no other device of any machine has, and how many threads have a core there."""

    name: str
    key: str
    threads: int | None = None  # None: as many as torch has


@contextmanager
def placed(device: torch.device) -> Iterator[Place]:
    """The place of this process, which computes on cores of its own meanwhile, where there are enough."""
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        number = torch.cuda.current_device() if device.index is None else device.index
        yield Place(f"cuda:{number}", f"cuda {getattr(facts, 'uuid', f'{number} of {machine()}')}")
    elif device.type != "cpu":
        yield Place(str(device), f"{device} of {machine()}")
    elif cores := own_cores():
        listed = sorted(cores)
        with _on(cores):
            yield Place(_named(listed), f"cores {listed} of {machine()}", len(listed))
    else:
        listed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        yield Place("cpu", f"cores {listed} of {machine()}")


def own_cores() -> set[int] | None:
    """The share that this process has of its launcher's cores, as many as any other's.

    None: there are fewer cores than processes, only one process, or somebody has given this one its cores already.
    """
    size = local_size()
    if size == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    try:
        cores, launchers = os.sched_getaffinity(0), os.sched_getaffinity(os.getppid())
    except OSError:
        return None
    whole = whole_cores(cores)
    each = len(whole) // size
    if cores != launchers or not each:
        return None
    return set().union(*whole[local_rank() * each : (local_rank() + 1) * each])


def whole_cores(numbers: Iterable[int], system: Path = SYSTEM) -> list[set[int]]:
    """Cores by the numbers of the hardware's threads that each has, the lowest first."""
    allowed, found = set(numbers), {}
    for number in sorted(allowed):
        threads = {number}
        with suppress(OSError, ValueError):  # a system that does not tell
            threads |= _numbers((system / f"cpu{number}" / "topology" / "thread_siblings_list").read_text()) & allowed
        found[min(threads)] = threads
    return list(found.values())


def machine() -> str:
    """What tells this machine from any other."""
    with suppress(OSError):
        return BOOT.read_text().strip()
    return platform.node()


def _numbers(text: str) -> set[int]:
    """Those of "0-1,8"."""
    ends = [part.partition("-") for part in text.strip().split(",")]
    return {number for low, _, high in ends for number in range(int(low), int(high or low) + 1)}


def _named(cores: list[int]) -> str:
    return f"core {cores[0]}" if len(cores) == 1 else f"cores {','.join(map(str, cores))}"


@contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Keep this process on some cores, with the threads that torch has started already.

    Each thread gets back the cores that it had; those that are started meanwhile get this one's.
    """
    usual, had = os.sched_getaffinity(0), {}
    try:
        for thread in _threads():
            with suppress(ProcessLookupError):  # it has ended by now
                had[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, cores)
        yield
    finally:
        for thread in _threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, had.get(thread, usual))


def _threads() -> list[int]:
    return [int(name) for name in os.listdir(THREADS)] if THREADS.is_dir() else [0]
