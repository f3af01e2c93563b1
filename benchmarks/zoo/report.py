"""What holds of the zoo's problems, as Markdown: on those that constants were chosen on, and on the others."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from benchmarks.zoo.cells import AUTO, DEFAULT, Cell, Record
from benchmarks.zoo.problems import chosen_on

WORST = 10


class Ratio(NamedTuple):
    """An error against the one that it is judged by."""

    problem: str
    what: str
    error: float
    rival: str
    least: float

    @property
    def ratio(self) -> float:
        return self.error / self.least if self.least else math.inf


def report(records: Sequence[Record]) -> str:
    parts = [
        table("Default grids against the best named one", records, defaults, 1.25),
        table('`grid="auto"` against the best named one', records, autos, 1.0),
        table("`adaptive` against the best of all methods and named grids", records, adaptives, 1.1),
        table("The best default against the best scheduler of diffusers", records, rivals, 0.5),
        tolerances(records),
        table("Tuned against the best method that is not", records, partial(tuned, section="untuned"), 0.5),
        table("Tuned against the best scheduler of diffusers", records, partial(tuned, section="rivals"), 0.25),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(title: str, records: Sequence[Record], found: Callable[[Record], Iterable[Ratio]], within: float) -> str:
    """Of each half and of all of it: how many ratios there are, how many are small, and the worst."""
    sides: dict[str, list[Ratio]] = {"chosen on": [], "not chosen on": [], "all": []}
    for record in records:
        for ratio in found(record):
            sides["chosen on" if chosen_on(record.name) else "not chosen on"].append(ratio)
            sides["all"].append(ratio)
    if not sides["all"]:
        return ""
    lines = [
        f"### {title}",
        "",
        f"| problems | cells | geometric mean | at most {within:g} | at most 1.25 | worst |",
        "|---|---|---|---|---|---|",
    ]
    for side, ratios in sides.items():
        if ratios:
            r = np.array([ratio.ratio for ratio in ratios])
            mean = np.exp(np.log(r).mean())
            lines.append(
                f"| {side} | {len(r)} | {mean:.2f} | {(r <= within).mean():.0%} | {(r <= 1.25).mean():.0%}"
                f" | {r.max():.2f} |"
            )
    lines += ["", "| worst | | error | against | its error | ratio |", "|---|---|---|---|---|---|"]
    for each in sorted(sides["all"], key=lambda ratio: -ratio.ratio)[:WORST]:
        lines.append(
            f"| {each.problem} | {each.what} | {each.error:.4f} | {each.rival} | {each.least:.4f} | {each.ratio:.2f} |"
        )
    return "\n".join(lines)


def of(record: Record, section: str) -> list[Cell]:
    return [cell for cell in record.cells if cell.section == section]


def named(record: Record, method: str, at: float) -> Cell | None:
    """The best named grid of a method."""
    cells = [c for c in of(record, "grids") if (c.method, c.at) == (method, at) and c.grid != DEFAULT]
    return min(cells, key=lambda cell: cell.error, default=None)


def defaults(record: Record) -> Iterable[Ratio]:
    for cell in of(record, "grids"):
        if cell.grid == DEFAULT and (best := named(record, cell.method, cell.at)):
            yield Ratio(record.name, f"{cell.method} at {cell.at:g}", cell.error, best.grid, best.error)


def autos(record: Record) -> Iterable[Ratio]:
    for cell in of(record, "auto"):
        if cell.method in AUTO and (best := named(record, cell.method, cell.at)):
            yield Ratio(record.name, f"{cell.method} at {cell.at:g}", cell.error, best.grid, best.error)


def adaptives(record: Record) -> Iterable[Ratio]:
    """At 10 and 20, where the grids were run; the best pair is chosen after the fact, on the same samples."""
    for cell in of(record, "budgets"):
        rows = [c for c in of(record, "grids") if c.at == cell.at and c.grid != DEFAULT]
        if best := min(rows, key=lambda c: c.error, default=None):
            yield Ratio(
                record.name, f"at {cell.at:g} ({cell.nfe:.1f})", cell.error, f"{best.method}, {best.grid}", best.error
            )


def rivals(record: Record) -> Iterable[Ratio]:
    for at in sorted({cell.at for cell in of(record, "diffusers")}):
        ours = [c for c in of(record, "grids") if (c.grid, c.at) == (DEFAULT, at)]
        theirs = [c for c in of(record, "diffusers") if c.at == at]
        if ours and theirs:
            best, other = min(ours, key=lambda c: c.error), min(theirs, key=lambda c: c.error)
            yield Ratio(record.name, f"{best.method} at {at:g}", best.error, other.method, other.error)


def tuned(record: Record, section: str) -> Iterable[Ratio]:
    for cell in of(record, "tuned"):
        if best := min((c for c in of(record, section) if c.at == cell.at), key=lambda c: c.error, default=None):
            yield Ratio(record.name, f"at {cell.at:g}", cell.error, best.method, best.error)


def tolerances(records: Sequence[Record]) -> str:
    """Whether `adaptive` keeps what it is told: of each tolerance, the largest errors over problems, in tolerances."""
    found = {record.name: of(record, "tolerances") for record in records if of(record, "tolerances")}
    if not found:
        return ""
    cells = [(name, cell) for name, each in found.items() for cell in each]
    lines = [
        "### Errors of `adaptive`, in tolerances",
        "",
        "| tol | worst median | of | worst 90% | of |",
        "|---|---|---|---|---|",
    ]
    for tol in sorted({cell.at for _, cell in cells}, reverse=True):
        here = [(name, cell) for name, cell in cells if cell.at == tol]
        medians = max((cell.error / tol, name) for name, cell in here)
        nineties = max(
            (float(np.quantile(cell.errors, 0.9)) / tol if cell.errors else math.inf, name) for name, cell in here
        )
        lines.append(f"| {tol:g} | {medians[0]:.2f} | {medians[1]} | {nineties[0]:.2f} | {nineties[1]} |")
    rising = [
        f"{name} from {a.at:g} to {b.at:g}: {a.error:.4f} to {b.error:.4f}"
        for name, each in found.items()
        for a, b in pairwise(each)
        if not b.error < a.error
    ]
    falls = "falls with the tolerance on every problem" if not rising else "rises: " + "; ".join(rising)
    return "\n".join([*lines, "", f"The median error {falls}."])
