"""Drawing one shard after another into a folder."""

import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import torch

from ddim_ode.data import is_picture, save_grid
from ddim_ode.models.conditions import Told, labels_of
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.planning.tuned_schema import in_ranges
from ddim_ode.shards.blocks import draw_block
from ddim_ode.shards.formats import FORMATS, IMAGES, Part, Place
from ddim_ode.shards.kept import RECORDS, Shelf
from ddim_ode.support.files import OutputError, reported, sweep_all
from ddim_ode.support.resources import size
from ddim_ode.support.shards import Shard

GRID = "grid.png"
COLUMNS = 8  # of it, or a class each


@dataclass(frozen=True)
class Work:
    """What there is to draw, and where it goes."""

    model: Model
    options: SolveOptions
    seeds: tuple[int, ...]
    told: Told
    shelf: Shelf

    def begin(self) -> None:
        """Make the folders, and sweep what a kill has left in them. Raises OutputError where the disk has no room."""
        folder = self.shelf.folder
        for inner in (folder / RECORDS, *([folder / IMAGES] if self.shelf.format == "png" else [])):
            with reported(folder):
                inner.mkdir(exist_ok=True)
            sweep_all(inner)
        numbers = prod(self.model.shape)
        each = FORMATS[self.shelf.format].room(numbers, numbers * self.options.dtype.itemsize)
        missing = self.shelf.missing()
        need = each * sum(rows.stop - rows.start for rows in missing)
        with reported(folder):
            free = shutil.disk_usage(folder).free
        if need > free:
            raise OutputError(
                f"{folder} has too little room: {len(missing):,} shards take {size(need)}, and {size(free)} are free"
                "; make room, or choose another --out"
            )

    def whole(self, n: int) -> bool:
        """Whether a shard is there, as it was written; of the first, with the sheet of its pictures."""
        shown = n > 0 or not is_picture(self.model.shape) or (self.shelf.folder / GRID).is_file()
        return self.shelf.whole(n) and shown

    def make(self, n: int, callback: Callback) -> None:
        """Draw a shard and write it. Raises as `sample`, and OutputError; then nothing of it stays."""
        rows, started = self.shelf.rows[n], time.perf_counter()
        found = draw_block(self.model, self.options, self.seeds, self.told, rows, callback)
        seconds = time.perf_counter() - started
        labels = labels_of(self.told)
        part = Part(
            x=found.x,
            seeds=torch.tensor(self.seeds[rows]),
            nfe=found.nfe,
            converged=found.converged,
            labels=None if labels is None else labels[rows],
        )
        if n == 0 and is_picture(self.model.shape):
            save_grid(part.x, self.shelf.folder / GRID, columns=min(self._columns(), len(part.x)))
        told = Shard(
            files={},
            count=len(part.x),
            seeds=in_ranges(self.seeds[rows]),
            labels=None if part.labels is None else tuple(part.labels.tolist()),
            nfe=dict(sorted(Counter(part.nfe.tolist()).items())),
            not_converged=int((~part.converged).sum()),
        )
        kind, place = FORMATS[self.shelf.format], Place(n, len(self.shelf.rows), rows.start, self.shelf.total)
        names = kind.names(place, len(part.x))
        files = [self.shelf.folder / name for name in names]
        try:
            kind.write(place, files, part)
            self.shelf.put(n, names, told, seconds)
        except BaseException:
            for file in files:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            raise

    def _columns(self) -> int:
        """A row of all classes, where they come in turn."""
        labels, classes = labels_of(self.told), self.model.num_classes
        if labels is None:
            return COLUMNS
        return classes if torch.equal(labels.cpu(), torch.arange(len(labels)) % classes) else COLUMNS
