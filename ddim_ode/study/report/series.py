"""How the cells of a study are grouped and drawn, alike on the page and in the PNG plots.

A line of a plot is a method (at one eta); where it ran on several grids, the line joins the best of them at each
budget. A sheet of samples has a row for each method, eta and grid, and a column for each budget or tolerance.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RowRecord = Mapping[str, Any]  # a `study.rows.Row`, as it is in results["rows"]

# Okabe & Ito's colours, told apart by colour-blind readers, with those too pale for thin lines on white made darker.
# Past the eighth line they repeat, and dashes and markers tell the lines apart.
LIGHT = ("#0072b2", "#c44e00", "#00805c", "#a8518a", "#96690a", "#2f93c9", "#303030", "#858585")
DARK = ("#4aa3f0", "#ff8a4c", "#3fcb9b", "#e39ac8", "#e8b23a", "#a5dcff", "#f2f2f2", "#9d9d9d")
MARKERS = ("circle", "square", "triangle", "diamond", "triangle-down", "plus", "star")
DASHES = ((), (6, 3), (2, 2.5))

CEILING = 2.0  # errors above it are named and not drawn: 2 is the whole range of a pixel


class Line(NamedTuple):
    """A method at one eta, and how it is drawn."""

    name: str
    rows: list[RowRecord]  # done, in the order of the study
    color: int  # index of LIGHT and DARK
    marker: str  # one of MARKERS
    dash: tuple[float, ...]  # on, off in points; () is a full line


class SheetRow(NamedTuple):
    """A row of the sheet: its cells stand in the order of the sheet's columns."""

    name: str
    grid: str | None
    cells: list[RowRecord | None]  # None: this cell was not asked for


def name_of(row: RowRecord) -> str:
    """The method, and its eta if it has one."""
    return row["method"] if row["eta"] in (None, 0) else f"{row['method']}, eta {row['eta']}"


def asked(row: RowRecord) -> str:
    """The budget or the tolerance of a cell, in words."""
    return f"NFE {row['nfe']}" if row["nfe"] is not None else f"tol {row['tol']:g}"


def lines(rows: Sequence[RowRecord]) -> list[Line]:
    """The methods that have at least one cell done, in the order of the study."""
    names = list(dict.fromkeys(map(name_of, rows)))
    found = []
    for i, name in enumerate(names):
        done = [row for row in rows if name_of(row) == name and row["status"] == "done"]
        if done:
            dash = DASHES[i // len(LIGHT) % len(DASHES)]
            found.append(Line(name, done, i % len(LIGHT), MARKERS[i % len(MARKERS)], dash))
    return found


def best_grids(rows: Sequence[RowRecord]) -> list[RowRecord]:
    """The row of the least median error at each budget or tolerance, by rising NFE; those without one are left out."""
    measured = sorted((row for row in rows if row["error"]), key=lambda row: row["error"]["median"], reverse=True)
    best = {asked(row): row for row in measured}  # the smallest comes last and stays
    return sorted(best.values(), key=lambda row: row["measured_nfe"]["mean"])


def sheet(rows: Sequence[RowRecord]) -> tuple[list[str], list[SheetRow]]:
    """The columns, budgets before tolerances from cheap to dear, and the rows of a sheet of samples."""
    titles = [asked(row) for row in sorted(rows, key=lambda row: (row["nfe"] or math.inf, -(row["tol"] or 0)))]
    titles = list(dict.fromkeys(titles))
    found: dict[tuple[str, str | None], dict[str, RowRecord]] = {}
    for row in rows:
        found.setdefault((name_of(row), row["grid"]), {})[asked(row)] = row
    return titles, [SheetRow(name, grid, [cells.get(at) for at in titles]) for (name, grid), cells in found.items()]
