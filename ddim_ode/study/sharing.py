"""The cells of a study over the processes of a run: each takes the next, and keeps it in the folder that all see.

The first process holds the folder. What the others need of each other they read there: parts of the reference, and at
the end all cells. So it does not matter who has measured what, and a run that was cut short goes on with any number of
processes. No cell is timed before all processes have the reference, and the first leaves the folder when all have read
it. In the end every process has the same study.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ddim_ode.study.archive import Archive, opened, record_digest, seen
from ddim_ode.study.cells import Cell, StudyError
from ddim_ode.study.measure import Bench, Found
from ddim_ode.study.meter import Cost, Meter
from ddim_ode.study.places import Place, SharedDeviceWarning, placed
from ddim_ode.study.progress import CELLS, Watch
from ddim_ode.study.reference import Part, Reference, refined
from ddim_ode.study.rows import Row
from ddim_ode.support.process import computing
from ddim_ode.support.processes import Processes


class Sharing:
    """One process of a study, with the folder `archive` that all have."""

    def __init__(self, bench: Bench, archive: Archive, here: Processes, place: Place, watch: Watch):
        self.bench, self.archive, self.here, self.place, self.watch = bench, archive, here, place, watch

    def reference(self) -> Reference:
        """The reference, solved by all processes, batch by batch, unless the folder has it."""
        if kept := self.bench.kept_reference(self.archive):
            return kept
        found = refined(self._resolution, self.bench.shared.reference_tol)
        if self.here.main:
            self.bench.keep_reference(self.archive, found)
        return found

    def _resolution(self, number: int, tol: float) -> Part:
        batches, name = self.bench.batches, f"reference, resolution {number}"

        def solved(n: int) -> Part:
            return self.bench.part(batches[n], tol, self.archive, lambda share: told(n, share))

        def told(n: int, share: float) -> None:
            self.watch(name, (n + share) / len(batches))

        own = {n: solved(n) for n in self._tasks(name, len(batches))}
        self.watch.wait(name, len(batches))
        parts = [own[n] if n in own else solved(n) for n in range(len(batches))]
        return Part(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def cells(
        self, cells: Sequence[Cell], reference: Reference, worth: Callable[[Cell, Sequence[Row]], bool]
    ) -> list[Found]:
        """All cells that are worth it, measured by the processes that have a device to themselves."""
        self.watch.meet("reference")  # so that nobody is still at work on the cores that others measure on
        own: dict[int, Found] = {}
        if self._has_device():
            order = range(len(cells)) if self.here.alone else longest_first(cells)
            for n in (order[task] for task in self._tasks(CELLS, len(cells), own=1)):
                if worth(cells[n], [row for row, _ in own.values()]):
                    own[n] = self._measured(n, cells[n], reference)
        if self.here.alone:
            return list(own.values())
        self.watch.wait(CELLS, len(cells))
        return [own[n] if n in own else self._read(n, cell, reference) for n, cell in enumerate(cells)]

    def cost(self) -> Cost:
        """What all processes have spent, until the first has all cells."""

        def told() -> dict[str, Any]:
            spent = Meter(self.here.add("microseconds", 0) / 1e6, self.here.add("evaluations", 0))
            devices = filter(None, (self.here.told(f"device {rank}") for rank in range(self.here.size)))
            seconds = time.perf_counter() - self.bench.began
            return asdict(Cost.of(spent, seconds, self.bench.given.device, self.here.size, sorted(devices)))

        return Cost(**self.here.shared("cost", told))

    def _tasks(self, name: str, total: int, own: int = 0) -> Iterator[int]:
        """The tasks that this process is to do, whose cost is told before they are done."""
        meter = self.bench.meter
        for number in self.here.tasks(name, total):
            self.watch.begin(own)
            seconds, evaluations = meter.seconds, meter.evaluations
            yield number
            self.here.add("microseconds", round(1e6 * (meter.seconds - seconds)))
            self.here.add("evaluations", meter.evaluations - evaluations)

    def _has_device(self) -> bool:
        """Whether this is the first process to claim its device; the others leave the cells to it."""
        if self.here.add(f"at {self.place.key}") == 1:
            return True
        if self.here.add("warned") == 1:
            lack = f"not each of {self.here.size} processes has a GPU, or cores, to itself"
            fate = "one of those that share measures cells, so that they are timed alone; start fewer processes"
            warnings.warn(f"{lack}: {fate}", SharedDeviceWarning, stacklevel=2)
        return False

    def _measured(self, n: int, cell: Cell, reference: Reference) -> Found:
        before = self.bench.meter.evaluations
        row, numbers = self.bench.row(cell, self.archive, reference, self.watch)
        if row.status != "done":  # which no folder keeps
            self.here.tell(f"undone {n}", row.to_dict())
        if self.bench.meter.evaluations > before:
            self.here.tell(f"device {self.here.rank}", self.place.name)
        return row, numbers

    def _read(self, n: int, cell: Cell, reference: Reference) -> Found:
        """The cell as another process of this run has left it; one that was damaged since is measured again."""
        if undone := self.here.told(f"undone {n}"):
            return Row.from_dict(undone), {}
        kept = self.bench.kept_row(cell, self.archive, reference)
        return kept or self.bench.row(cell, self.archive, reference, self.watch)


def longest_first(cells: Sequence[Cell]) -> list[int]:
    """The numbers of cells, so taken that nobody waits long at the end: adaptive ones cost most, or who knows what."""
    return sorted(range(len(cells)), key=lambda n: (not cells[n].method.adaptive, -(cells[n].nfe or math.inf)))


@contextmanager
def sharing(bench: Bench, cells: Sequence[Cell], out: Path | None, here: Processes, watch: Watch) -> Iterator[Sharing]:
    """The folder of a study, with all processes on it: each at its place, with as many threads as the first.

    Raises StudyError for processes of which one does not see the folder, or was asked for another study; as `opened`.
    """
    with placed(bench.given.device) as place:
        most = min(torch.get_num_threads(), place.threads or torch.get_num_threads())
        with _folder(bench, [cell.key for cell in cells], out, here, most) as (archive, threads):
            with computing(threads):
                yield Sharing(bench, archive, here, place, watch)
            watch.meet("end")  # the others may be reading what the first holds


@contextmanager
def _folder(
    bench: Bench, cells: Sequence[str], out: Path | None, here: Processes, threads: int
) -> Iterator[tuple[Archive, int]]:
    """The archive, which the first process holds and tidies in the end, and the threads of each, as many as it has."""
    if here.main:
        with opened(out, bench.identity, bench.answers) as archive:
            here.shared("study", lambda: {"folder": record_digest(out), "cells": cells, "threads": threads})
            yield archive, threads
            archive.forget_parts()
        return
    assert out is not None
    told: dict[str, Any] = here.shared("study", dict)
    archive = seen(out, bench.identity, bench.answers, told["folder"])
    if told["cells"] != cells:
        raise StudyError("this process was asked for other methods, grids or budgets than the first; ask all alike")
    yield archive, told["threads"]
