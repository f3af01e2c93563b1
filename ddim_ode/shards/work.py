"""Drawing one shard after another into a folder."""

import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch

from ddim_ode.data import is_picture, save_grid
from ddim_ode.models.conditions import Told, labels_of
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.planning.profile import Profile, ProfileError
from ddim_ode.planning.tuned_schema import in_ranges
from ddim_ode.shards.blocks import Settled, draw_block, settled
from ddim_ode.shards.formats import IMAGES, Part
from ddim_ode.shards.jobs import ShardWarning, check_room
from ddim_ode.shards.kept import RECORDS, Shelf
from ddim_ode.shards.listed import GRID, PROFILE
from ddim_ode.support.files import reported, sweep_all
from ddim_ode.support.shards import Shard

COLUMNS = 8  # of the sheet, or a class each


@dataclass(frozen=True)
class Task:
    """What there is to draw."""

    model: Model
    options: SolveOptions
    seeds: tuple[int, ...]
    told: Told

    def settled(self, first: slice) -> Settled:
        """The options with what is looked for on the model, as a run of the first shard does. Raises as `sample`."""
        told = self.told if self.told is None else self.told[first]
        return settled(self.model, self.options, told, first.stop)

    def found(self, first: slice) -> dict[str, Any]:
        """That, as a record holds it."""
        found = self.settled(first)
        return {"tol": found.options.tol, "grid": found.options.grid if found.profile else None}

    def draw(self, rows: slice, callback: Callback) -> Part:
        """The samples of some rows. Raises as `sample`."""
        found = draw_block(self.model, self.options, self.seeds, self.told, rows, callback)
        labels = labels_of(self.told)
        return Part(
            x=found.x,
            seeds=torch.tensor(self.seeds[rows]),
            nfe=found.nfe,
            converged=found.converged,
            labels=None if labels is None else labels[rows],
        )

    def by(self, found: Mapping[str, Any]) -> "Task":
        """The same by what was found, which is not looked for again."""
        options = self.options
        if found["grid"] is not None:
            options = replace(options, nfe=None, grid=tuple(found["grid"]))
        elif options.row.adaptive and options.nfe:
            options = replace(options, nfe=None, tol=found["tol"])
        return replace(self, options=options)


@dataclass(frozen=True)
class Work:
    """What there is to draw, how it is asked for, and where it goes."""

    task: Task
    asked: Task  # before anything was found on the model
    shelf: Shelf

    def begin(self, profiled: bool) -> None:
        """Make the folders, and sweep what a kill has left in them; keep the profile, if the grid was made from one.

        Raises OutputError where the disk has no room for the shards without a record.
        """
        shelf = self.shelf
        for inner in (RECORDS, *([IMAGES] if shelf.format == "png" else [])):
            with reported(shelf.folder):
                (shelf.folder / inner).mkdir(exist_ok=True)
            sweep_all(shelf.folder / inner)
        missing, numbers = sum(rows.stop - rows.start for rows in shelf.unrecorded()), prod(shelf.shape)
        size = numbers * self.task.options.dtype.itemsize
        check_room(shelf.folder, shelf.kind.room_for(missing, shelf.total, numbers, size))
        if profiled:
            self._keep_profile()

    def make(self, n: int, callback: Callback) -> None:
        """Draw a shard and write it. Raises as `sample`, and OutputError; then none of its files takes room, but for
        those of a shard that is recorded, by an earlier run or by another process meanwhile.
        """
        rows, started = self.shelf.rows[n], time.perf_counter()
        part = self.task.draw(rows, callback)
        seconds = time.perf_counter() - started
        files = [self.shelf.folder / name for name in self.shelf.names(n)]
        sheet = [GRID] if n == 0 and is_picture(self.task.model.shape) else []
        try:
            self.shelf.kind.write(self.shelf.place(n), files, part)
            for name in sheet:
                save_grid(part.x, self.shelf.folder / name, columns=min(self._columns(), len(part.x)))
            self.shelf.put(n, _told(part), seconds, sheet)
        except BaseException:
            for file in () if self.shelf.has_record(n) else files:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            raise

    def _keep_profile(self) -> None:
        """Write the profile of the model, unless it is there. It is known by now, where the grid was just made."""
        file = self.shelf.folder / PROFILE
        if file.is_file():
            try:
                Profile.load(file)
                return
            except ProfileError:
                warnings.warn(f"{file} is not as it was written; it is made again", ShardWarning, stacklevel=2)
        if (profile := self.asked.settled(self.shelf.rows[0]).profile) is not None:
            profile.save(file)

    def _columns(self) -> int:
        """A row of all classes, where they come in turn."""
        labels, classes = labels_of(self.task.told), self.task.model.num_classes
        if labels is None:
            return COLUMNS
        return classes if torch.equal(labels.cpu(), torch.arange(len(labels)) % classes) else COLUMNS


def _told(part: Part) -> Shard:
    """What the index says of a shard, but for its files."""
    return Shard(
        files={},
        count=len(part.x),
        seeds=in_ranges(part.seeds.tolist()),
        labels=None if part.labels is None else tuple(part.labels.tolist()),
        nfe=dict(sorted(Counter(part.nfe.tolist()).items())),
        not_converged=int((~part.converged).sum()),
    )
