"""What the command line shows: JSON for machines, tables, a progress bar and one-line warnings for people."""

import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim_ode.commands.shared.forecast import Forecast
from ddim_ode.errors import one_line
from ddim_ode.support.processes import speaks
from ddim_ode.support.records import finite

if TYPE_CHECKING:
    from ddim_ode.commands.shared.manifest import Manifest
    from ddim_ode.planning.plan import Progress as SamplingProgress
    from ddim_ode.solvers import Solution
    from ddim_ode.support.counts import Spread

FILES = {
    "samples": "samples.safetensors",
    "manifest": "manifest.json",
    "profile": "profile.safetensors",
    "grid": "grid.png",
    "trace": "trace.png",
}
ROWS = 12  # of a histogram
WIDTH = 50
UNLIMITED = 10**6  # characters of a line that nobody looks at


@contextmanager
def progress(total: int, status: str = "", what: str = "sampling") -> Iterator[Callable[["SamplingProgress"], None]]:
    """A bar on stderr, where that is a terminal; the callback moves it, and until then it shows the status.

    Terminal or not, of a long run it is said on stderr how long it will take.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, status=status)
        forecast = Forecast(total)

        def update(now: "SamplingProgress") -> None:
            done = now.samples.start + len(now.samples) * now.share
            if line := forecast.hear(done):
                bar.console.print(f"{many(total, 'samples')}: {line}", highlight=False)
            step = f"{now.step}/{now.steps}" if now.steps else f"{now.step}"
            status = f"samples {now.samples.start + 1}-{now.samples.stop} of {total}, step {step}"
            bar.update(task, total=total, completed=done, status=status)

        yield update


def report(
    out: Path, record: "Manifest", solution: "Solution", as_json: bool = False, in_grid: int | None = None
) -> None:
    """What a run of `ddim-ode sample` has written, and what it cost. in_grid: samples that the sheet has room for."""
    from ddim_ode.support.counts import spread

    nfe, count = record.nfe, len(solution.nfe)
    steps, rejected = spread(solution.steps), spread(solution.rejected)
    short = count - int(solution.converged.sum())
    files = files_in(out)
    speed = count / record.seconds
    if as_json:
        spent: dict[str, Any] = {
            "nfe": nfe.model_dump(),
            "steps": steps.model_dump(),
            "rejected": rejected.model_dump(),
        }
        spent |= {"tol": record.tol, "not_converged": short, "seconds": record.seconds, "images_per_second": speed}
        print_json({"out": str(out), **files, "count": count, **spent})
    else:
        pictures = [files[name] for name in ("grid", "trace") if name in files]
        print(*map(visible, pictures or [str(out)]), sep="\n")
        if in_grid and in_grid < count:
            print(f"the first {in_grid:,} of {count:,} samples are in {FILES['grid']}")
        print(f"{many(count, 'samples')}, measured NFE {cost(nfe)}, {record.seconds:.2f} s, {speed:.1f} images/s")
        if record.tol is not None:
            tol, budget = f"{record.tol:.4g}", record.arguments.nfe
            found = "" if budget is None else f", found for --nfe {budget} (--tol {tol} spares the search)"
            print(f"tol {tol}{found}: {steps.mean:.1f} steps accepted and {rejected.mean:.1f} rejected a sample")
        if nfe.min < nfe.max:
            print(histogram(solution.nfe.tolist()))
    if short:
        print(_warning(int(solution.nfe[~solution.converged].max()), short, count, record), file=sys.stderr)


def files_in(folder: Path) -> dict[str, str]:
    return {name: str(folder / file) for name, file in FILES.items() if (folder / file).is_file()}


def warn_short(short: int, count: int) -> None:
    """Warn of images that an adaptive method has given up on."""
    if short:
        fate = "did not reach the tolerance: one DDIM step took them the rest of the way"
        warn(f"{short} of {count} images {fate}")


def warn(line: str) -> None:
    print(f"warning: {one_line(line)}", file=sys.stderr)


def note(line: str) -> None:
    """Tell of what is neither a result nor a warning."""
    print(visible(line), file=sys.stderr)


def visible(text: str) -> str:
    """A name as a terminal can show it, with control characters and the like as escapes; spaces stay as they are."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(*things: object) -> None:
    """Print names or sentences, a line each, whatever is in them."""
    for thing in things:
        print(visible(str(thing)))


def plus_minus() -> str:
    """The sign, if it can be printed."""
    try:
        "±".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "+-"
    return "±"


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as one line, without the source that gave them, of several processes once; none of what other libraries
    are about to change.
    """
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if sys.warnoptions and not category.__module__.startswith("ddim_ode"):  # somebody wants to see them
                usual(message, category, *where)
            elif issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
                return
            elif speaks(str(message)):
                warn(str(message))

        warnings.showwarning = show  # type: ignore[assignment]  # it is called with positions only
        yield


ATTEMPTS = {
    "NFE\nup": "{nfe_up:.3g}",
    "NFE\ndown": "{nfe_down:.3g}",
    "bit\nexact": "{bit_exact}/{count}",
    "same\nbytes": "{same_bytes}/{count}",
    "max\nerror": "{max_error:.2g}",
    "RMS": "{rms:.2g}",
    "MSE": "{mse:.2g}",
    "PSNR": "{psnr:.1f}",
    "latent\nmean": "{latent_mean:.2g}",
    "latent\nstd": "{latent_std:.3g}",
}  # columns of a table that fits a terminal


def print_attempts(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of `roundtrips.summary`, and below it why methods failed."""
    table = []
    for row in rows:
        name = row["method"] + (f" g={row['guidance']:g}" if row["guidance"] != 1 else "")
        values = {column: "-" if row["error"] else cell.format_map(row) for column, cell in ATTEMPTS.items()}
        table.append({"method": name, **values} | ({"bit\nexact": "failed"} if row["error"] else {}))
    print_table(("method", *ATTEMPTS), table, tight=True)
    for row, cells in zip(rows, table, strict=True):
        if row["error"]:
            print(f"{visible(cells['method'])} failed: {one_line(row['error'])}")
        elif row["not_converged"]:
            print(f"{visible(cells['method'])}: {row['not_converged']} of {row['count']} images did not converge")


def cost(nfe: "Spread") -> str:
    """The evaluations of a sample: one number if it is the same for all, or from the least to the most."""
    return f"{nfe.min}" + (f" to {nfe.max} (median {nfe.median:g}, mean {nfe.mean:.1f})" if nfe.min < nfe.max else "")


def many(count: int, things: str) -> str:
    """1 sample, 2 samples."""
    return f"{count} {things.removesuffix('s') if count == 1 else things}"


def _warning(spent: int, short: int, count: int, record: "Manifest") -> str:
    from ddim_ode.planning.options import DEFAULT_MOST

    settings = record.arguments
    most = settings.max_nfe or DEFAULT_MOST
    looser = "a larger --tol" if settings.nfe is None else "a smaller --nfe"
    if spent + 2 > most:  # not one more guided evaluation
        why, remedy = f"within {most} evaluations", f"a larger --max-nfe, or {looser}"
    else:
        why, remedy = "before their steps became too small to go on", f"--dtype float64, or {looser}"
    return (
        f"warning: {short} of {count} samples did not reach tol={record.tol:.4g} {why}"
        f": one DDIM step took them the rest of the way; use {remedy}"
    )


def histogram(counts: Sequence[int], rows: int = ROWS, width: int = WIDTH) -> str:
    """How often each number occurs, a line each; neighbours share a line where there would be more than `rows`."""
    low, high = min(counts), max(counts)
    size = -(-(high - low + 1) // rows)
    found = Counter((n - low) // size for n in counts)
    names, most = [], max(found.values())
    for first in range(low, high + 1, size):
        names.append(f"{first}" if size == 1 else f"{first}-{first + size - 1}")
    lines = []
    for row, name in enumerate(names):
        bar = "#" * -(-found[row] * min(width, most) // most)
        lines.append(f"  NFE {name:>{len(names[-1])}} {found[row]:>{len(str(most))}} {bar}".rstrip())
    return "\n".join(lines)


def print_json(record: Mapping[str, Any]) -> None:
    print(json.dumps(finite(record), indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], tight: bool = False) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE, padding=0 if tight else (0, 1))
    for row in rows:
        table.add_row(*(Text(text(row[column])) for column in columns))
    console = Console()
    if not console.is_terminal:  # for grep and the like: a row a line
        console = Console(width=UNLIMITED)
    console.print(table)


def text(value: Any) -> str:
    """A value for people: yes or no, 1 x 28 x 28 for whole numbers, a to b for a range, thousands set apart."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        whole = all(isinstance(v, int) for v in value)
        return " x ".join(map(str, value)) if whole else " to ".join(f"{v:.6g}" for v in value)
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
