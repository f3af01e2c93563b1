"""What accuracy_at_nfe.py measured, told again: tables, a verdict and a plot from the JSON it leaves, finished or not.

python benchmarks/accuracy_report.py FILE [MORE ...] [--plot PNG]

Cells read "median / RMS" of the error over samples, then the measured NFE in brackets where it stays below the budget,
and "!" with the share of samples off by more than 0.1. Methods stand on their default grids, as the files record them.
The table of grids has our methods only: the medians at NFE 10 and 20 on every grid.

The verdict compares the best method of each side by the median at NFE 10 and 20; ours on its default grid, a scheduler
with its default options. The two references should differ by less than a tenth of every error reported.

Several files, of one model and one number of samples, are told as one run: where two hold the same cell the later
file's counts, and of the differences between references the largest by median.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

JUDGED = (10, 20)  # the budgets of the verdict
FAR = 0.1
OURS = {"adams2": "tab:blue", "adams3": "tab:red", "adams4": "black"}  # colours of the methods that are new here
BETTER = 1.05  # another grid is worth a mark from this ratio on


@dataclass(frozen=True)
class Entry:
    """One method on one grid at one budget; `nfe` is measured. Without numbers, `note` says why."""

    source: str
    names: tuple[str, ...]
    grid: str
    default: bool  # the method's own grid; of a scheduler, its own options
    budget: int
    nfe: int | None = None
    median: float = math.inf
    rms: float = math.inf
    far: float = 1.0  # share of samples with error > FAR
    note: str = ""

    @property
    def cell(self) -> str:
        if self.note:
            return self.short
        spent = "" if self.nfe == self.budget else f" ({self.nfe})"
        return f"{self.short} / {self.rms:#.3g}{spent}" + (f" !{self.far:.0%}" if self.far else "")

    @property
    def short(self) -> str:
        """The median alone."""
        if self.note:
            return "diverged" if self.note == "diverged" else "-"
        return f"{self.median:#.3g}"


Groups = Mapping[tuple[str, ...], Sequence[Entry]]  # by the names of a method


@dataclass(frozen=True)
class Run:
    """The contents of a JSON file; JSON has no infinity, which becomes null there."""

    model: str
    count: int
    reference_difference: list[float]  # of each sample, between the two references
    rows: list[Entry]

    def write(self, file: Path) -> None:
        found = asdict(self)
        found["rows"] = [{k: v if v != math.inf else None for k, v in row.items()} for row in found["rows"]]
        part = file.with_name(f"{file.name}.part")  # a run stopped while it writes leaves the rows it had
        part.write_text(json.dumps(found, indent=2) + "\n")
        part.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Run":
        """Raises ValueError for what `write` has not written."""
        try:
            found = json.loads(file.read_text())
            for row in found["rows"]:
                row["names"] = tuple(row["names"])
                row.update({name: math.inf for name in ("median", "rms") if row[name] is None})
            return cls(**{**found, "rows": [Entry(**row) for row in found["rows"]]})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a file of accuracy_at_nfe.py --json: {error!r}") from error


def together(files: Sequence[Path]) -> Run:
    """The files as one run. Raises ValueError where they differ in model, samples or a method's default grid."""
    runs = [Run.read(file) for file in files]
    first = runs[0]
    defaults: dict[tuple[str, ...], tuple[Path, str]] = {}
    for file, run in zip(files, runs, strict=True):
        if (run.model, run.count) != (first.model, first.count):
            mine, other = (f"{r.count} samples of {r.model}" for r in (run, first))
            raise ValueError(f"{file} has {mine}, {files[0]} has {other}; give files of one model and count")
        for e in (e for e in run.rows if e.default):
            source, grid = defaults.setdefault(e.names, (file, e.grid))
            if grid != e.grid:
                clash = f"the default grid of {e.names[0]} is {e.grid} in {file}, {grid} in {source}"
                raise ValueError(f"{clash}; give files of one default")
    difference = max((run.reference_difference for run in runs), key=median)
    return Run(first.model, first.count, difference, [e for run in runs for e in run.rows])


def grouped(rows: Sequence[Entry]) -> Groups:
    """Rows by method, each grid with every budget once: the last row there is, or one noted as not measured."""
    found = {(e.names, e.grid, e.budget): e for e in rows}
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for e in {(e.names, e.grid): e for e in rows}.values():
        for nfe in budgets(rows):
            missing = Entry(e.source, e.names, e.grid, e.default, nfe, note="not measured")
            groups.setdefault(e.names, []).append(found.get((e.names, e.grid, nfe), missing))
    return groups


def budgets(rows: Sequence[Entry]) -> list[int]:
    return sorted({e.budget for e in rows})


def own(entries: Sequence[Entry]) -> list[Entry]:
    """A method on its default grid, a scheduler as it is."""
    return [e for e in entries if e.default or e.source == "diffusers"]


def best_grid(entries: Sequence[Entry]) -> tuple[str, float]:
    """The grid with the smallest median, averaged in log over `JUDGED`, and by what ratio it beats the default."""
    medians: dict[str, list[float]] = {}
    for e in entries:
        if e.budget in JUDGED:
            medians.setdefault(e.grid, []).append(e.median)
    means = {grid: geometric_mean(of) for grid, of in medians.items()}
    best = min(means, key=means.__getitem__, default="")
    if means.get(best, math.inf) == math.inf:
        return "", 1.0
    return best, next((means[e.grid] / means[best] for e in entries if e.default), 1.0)


def better_grid(entries: Sequence[Entry]) -> str:
    """The best grid, if it beats the default by more than 5 %."""
    best, gain = best_grid(entries)
    return f"{best}, {gain:.2f} times" if gain > BETTER else ""


def text(groups: Groups, nfes: Sequence[int]) -> None:
    """The cells of every method on its default grid, and below them the best grid of each budget with its own."""
    print(f"{'':<18}", *(f"{f'NFE {nfe}':<26}" for nfe in nfes))
    for names, entries in groups.items():
        best = [min((e for e in entries if e.budget == nfe), key=lambda e: e.median) for nfe in nfes]
        print(" = ".join(names))
        print(f"  {own(entries)[0].grid:<16}", *(f"{e.cell:<26}" for e in own(entries)))
        if len({e.grid for e in entries}) > 1:
            print(f"  {'best grid':<16}", *(f"{'-' if e.note else e.grid:<26}" for e in best))
            print(f"{'':<18}", *(f"{e.cell:<26}" for e in best))


def label(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def markdown(groups: Groups, nfes: Sequence[int]) -> None:
    print("\n| method | grid |", *(f"NFE {nfe} |" for nfe in nfes), "a better grid |")
    print("|---" * (len(nfes) + 3) + "|")
    for names, entries in groups.items():
        cells = (f"{e.cell} |" for e in own(entries))
        print(f"| {label(names)} | {own(entries)[0].grid} |", *cells, better_grid(entries), "|")


def grid_table(groups: Groups, nfes: Sequence[int]) -> None:
    """Our methods on every grid; nothing where no method has a second grid or no budget of the verdict was measured."""
    ours = {names: entries for names, entries in groups.items() if entries[0].source == "ddim_ode"}
    grids = list(dict.fromkeys(e.grid for entries in ours.values() for e in entries))
    judged = [nfe for nfe in JUDGED if nfe in nfes]
    if not judged or all(len({e.grid for e in entries}) == 1 for entries in ours.values()):
        return
    print(f"\nMedians at NFE {' / '.join(map(str, judged))}; `*` the default grid, bold the best by geometric mean.\n")
    print("| method |", *(f"{grid} |" for grid in grids))
    print("|---" * (len(grids) + 1) + "|")
    for names, entries in ours.items():
        print(f"| {label(names)} |", *(f"{grid_cell(entries, grid)} |" for grid in grids))


def grid_cell(entries: Sequence[Entry], grid: str) -> str:
    found = [e for e in entries if e.grid == grid and e.budget in JUDGED]
    medians = " / ".join(e.short for e in found)
    shown = f"**{medians}**" if best_grid(entries)[0] == grid else medians
    return f"{shown} *" if any(e.default for e in found) else shown


def verdict(entries: Sequence[Entry], difference: Sequence[float]) -> None:
    """Our best default method against diffusers' best default; `difference` of each sample between the references."""
    finished = [e for e in entries if not e.note]
    print()
    for nfe in JUDGED:
        of = [e for e in finished if e.budget == nfe and e.default]
        sides = [[e for e in of if e.source == source] for source in ("ddim_ode", "diffusers")]
        if all(sides):
            us, them = (min(side, key=lambda e: e.median) for side in sides)
            ratio = us.median / them.median
            rating = "aim of 1/2 met" if ratio <= 1 / 2 else "target of 2/3 met" if ratio <= 2 / 3 else "2/3 missed"
            print(f"NFE {nfe}: {us.names[0]} {us.median:.4f}, diffusers' {them.names[0]} {them.median:.4f}", end="")
            print(f"; ratio of medians {ratio:.3f}, {rating}")
    if finished:
        least = min(finished, key=lambda e: e.median)
        ratio = median(difference) / least.median
        where = f"{least.median:.6f}, {least.names[0]} on {least.grid} at NFE {least.budget}"
        print(f"reference: median difference / smallest median error ({where}) = {ratio:.4f}", end="")
        print(f", {'under' if ratio < 0.1 else 'NOT UNDER'} a tenth")


def plot(file: Path, groups: Groups, nfes: Sequence[int]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(13, 9), layout="constrained")
    for n, (names, entries) in enumerate(groups.items()):
        shown = [e for e in own(entries) if not e.note]
        style: dict[str, Any] = {"color": plt.colormaps["tab20"](n % 20), "lw": 1, "marker": "osv^D*"[n // 4 % 6]}
        if entries[0].source == "diffusers":
            style |= {"ls": "--", "marker": "x"}
        elif names[0] in OURS:
            style |= {"color": OURS[names[0]], "lw": 3, "zorder": 3}
        axes.loglog([e.nfe for e in shown], [e.median for e in shown], **style, label=names[0])
    axes.set_xticks(nfes, [str(nfe) for nfe in nfes])
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    medians = [e.median for entries in groups.values() for e in own(entries) if not e.note]
    axes.set_ylim(min(medians) / 1.3, min(2.0, max(medians) * 1.3))  # what is above has left the range of images
    axes.set(
        xlabel="measured NFE", ylabel="median trajectory error", title="default grids; diffusers dashed, ours thick"
    )
    axes.grid(which="both", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(file, dpi=110)


def tell(run: Run, png: Path | None) -> None:
    """Print the tables and the verdict, and draw the plot if there is a file for it."""
    groups, nfes = grouped(run.rows), budgets(run.rows)
    entries = [e for of in groups.values() for e in of]
    text(groups, nfes)
    markdown(groups, nfes)
    grid_table(groups, nfes)
    verdict(entries, run.reference_difference)
    if png:
        plot(png, groups, nfes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what accuracy_at_nfe.py --json wrote")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the errors on default grids")
    args = parser.parse_args()
    try:
        run = together(args.files)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    tell(run, args.plot)


if __name__ == "__main__":
    main()
