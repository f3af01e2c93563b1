"""How a study is shown while it is made and when it is finished."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddim_ode.commands.shared import display
from ddim_ode.support.processes import is_main, rank, world_size

if TYPE_CHECKING:
    from ddim_ode.study.progress import StudyProgress
    from ddim_ode.study.results import Study
    from ddim_ode.study.rows import Row


@contextmanager
def bar() -> Iterator[Callable[["StudyProgress"], None]]:
    """Show how far a study is on stderr, where that is a terminal; the callback moves the bar.

    Of several processes the first shows what all do; in a log each says at its end what it has done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeElapsedColumn

    columns = ("cell {task.fields[cell]}", BarColumn(), "{task.fields[what]}", TimeElapsedColumn())
    console = Console(stderr=True)
    visible = console.is_terminal and is_main()
    began, own = time.perf_counter(), 0
    with Progress(*columns, console=console, transient=True, disable=not visible) as shown:
        task = shown.add_task("", total=None, cell="", what="")

        def update(now: "StudyProgress") -> None:
            nonlocal own
            own, cell = now.own, f"{min(now.done + 1, now.total)}/{now.total}"
            shown.update(task, total=now.total, completed=now.done + now.share, cell=cell, what=now.what)

        yield update
    if world_size() > 1 and not console.is_terminal:
        cells = display.many(own, "cells")
        display.note(f"process {rank() + 1} of {world_size()}: {cells}, {time.perf_counter() - began:.0f} s")


def print_rows(found: "Study") -> None:
    """A table of the cells, and why some have no numbers."""
    columns = ("method", "grid", "asked", "NFE", "median error", "95% interval", "RMS", "> 0.1", "images/s")
    display.print_table(columns, [dict.fromkeys(columns, "") | _texts(row) for row in found.rows])
    for row in found.rows:
        if row.reason:
            display.say(f"{row.key} {row.status}: {row.reason}")
        if row.not_converged:
            print(f"{row.key}: {row.not_converged} of {len(found.settings.seeds)} did not converge")


def _texts(row: "Row") -> dict[str, str]:
    """The texts of a row by the titles of the table; a title that it has nothing for is missing."""
    asked = f"nfe {row.nfe}" if row.tol is None else f"tol {row.tol:g}"
    texts = {"method": row.method + (f" eta {row.eta}" if row.eta else ""), "grid": row.grid or "", "asked": asked}
    if row.status != "done":
        texts["median error"] = row.status
    if row.measured_nfe:
        texts["NFE"] = f"{row.measured_nfe.mean:.4g}"
    if row.timing:
        texts["images/s"] = f"{row.timing.images_per_second:.3g}"
    if row.error:
        e, mark = row.error, "" if row.resolved else " *"
        texts |= {"median error": f"{e.median:.2g}{mark}", "95% interval": f"{e.median_low:.2g} to {e.median_high:.2g}"}
        texts |= {"RMS": f"{e.rms:.2g}", "> 0.1": f"{e.share:.0%}"}
    return texts


def print_verdict(found: "Study") -> None:
    """The reference, the best at each budget, and on what they were chosen; on stderr what it took."""
    from ddim_ode.study.report.words import chosen_on, grids_made, names_of

    reference, timing, results = found.reference, found.timing, found.results
    own = f"its own error about {reference.error.median:.1g} (RMS {reference.error.rms:.1g})"
    print(f"reference: {reference.method}, {reference.nfe_mean:.4g} evaluations a sample, {own}")
    if not reference.agreed:
        display.warn(f"the reference did not settle to {reference.wanted:g}; errors near its own mean nothing")
    if any(row.resolved is False for row in found.rows):
        print("* not well above the reference's own error; a smaller --reference-tol tells more")
    for best in found.best:
        row, tied = found.row(best["key"]), ", ".join(names_of(results, best["tied"], best["key"]))
        assert row.error
        where, others = f" on {row.grid}" if row.grid else "", f" (not told apart: {tied})" if tied else ""
        display.say(f"best at {best['nfe']:>3} evaluations: {row.method}{where}, error {row.error.median:.2g}{others}")
    display.say(*filter(None, (grids_made(results["rows"]), chosen_on(results) if found.best else None)))
    if timing.ratio is not None:
        by = f" by {timing.processes} processes" if timing.processes > 1 else ""
        display.note(f"{timing.seconds:.0f} s{by}, {timing.ratio:.2f} times what the network alone took")
