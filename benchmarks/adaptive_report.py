"""What adaptive.py measured, told again: tables, verdicts and a plot from the JSON it leaves, finished or not.

python benchmarks/adaptive_report.py FILE [--plot PNG]

Prices are compared at equal achieved error, both the medians over samples: log NFE is interpolated in log error between
neighbouring tolerances. A curve may cross an error several times. "least" takes the cheapest crossing of all paths and
modes, which flatters the method that is lucky more often; "typical" the geometric mean of all crossings of a curve, and
the best curve. At equal NFE, log error is interpolated in log NFE, mean over samples.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean, mean, median

import numpy as np

HONOURED = (0.1, 0.03, 0.01, 0.003, 0.001)
PRICED = (0.03, 0.01, 0.003)  # errors on a network
CLOSED = (0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4)  # and in closed form
TIMESTEP = "dopri5, timestep"


@dataclass(frozen=True)
class Row:
    """One method at one tolerance, or at one budget on a grid; NFE and error of each sample."""

    section: str
    problem: str
    method: str
    at: float
    nfe: list[int]
    errors: list[float]
    note: str = ""

    @property
    def error(self) -> float:
        return median(self.errors) if self.errors else math.inf

    @property
    def cost(self) -> float:
        return median(self.nfe) if self.nfe else math.inf

    @property
    def ratio(self) -> float:
        return self.error / self.at

    @property
    def spent(self) -> str:
        return f"NFE {self.cost:g} ({min(self.nfe)} to {max(self.nfe)})"

    def first(self, count: int) -> "Row":
        """Of those samples alone, which is what they are for a method that treats each on its own."""
        return replace(self, nfe=self.nfe[:count], errors=self.errors[:count])

    @property
    def short(self) -> str:
        return f"error {self.error:.3g}, NFE {self.cost:g} {self.note}" if self.errors else self.note


@dataclass(frozen=True)
class Compaction:
    tol: float
    nfe: list[int]
    widths: list[int]  # of the batches of one run
    timed: list[tuple[float, float, float]]  # of its repeats the seconds in all, in the network, of the passes again


Rows = Sequence[Row]


@dataclass
class Run:
    """The contents of a JSON file."""

    model: str
    count: int
    references: dict[str, list[float]] = field(default_factory=dict)  # of each sample, between the two references
    rows: list[Row] = field(default_factory=list)
    compaction: dict[str, Compaction] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        part = file.with_name(f"{file.name}.part")  # a run stopped while it writes leaves the rows it had
        part.write_text(json.dumps(asdict(self)) + "\n")
        part.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Run":
        found = json.loads(file.read_text())
        found["rows"] = [Row(**row) for row in found["rows"]]
        found["compaction"] = {name: Compaction(**values) for name, values in found["compaction"].items()}
        return cls(**found)

    def of(self, section: str, problem: str | None = None) -> dict[str, list[Row]]:
        """The rows that have numbers, by method."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.section == section and problem in (None, row.problem) and row.errors:
                found.setdefault(row.method, []).append(row)
        return found

    def adaptive(self, problem: str) -> list[Row]:
        return self.of("tolerance", problem).get("adaptive", [])

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(row.problem for row in self.rows if row.section != "floor"))


def crossings(rows: Rows, error: float) -> list[float]:
    """NFE at which the curve through these rows passes an error."""
    found = []
    for one, other in pairwise(rows):
        low, high = sorted([(math.log(one.error), one.cost), (math.log(other.error), other.cost)])
        if low[0] <= math.log(error) <= high[0] and low[0] < high[0]:
            share = (math.log(error) - low[0]) / (high[0] - low[0])
            found.append(low[1] ** (1 - share) * high[1] ** share)
    return found


def least(curves: Mapping[str, Rows], error: float) -> tuple[float, str]:
    found = [(nfe, name) for name, rows in curves.items() for nfe in crossings(rows, error)]
    return min(found, default=(math.nan, ""))


def typical(curves: Mapping[str, Rows], error: float) -> tuple[float, str]:
    crossed = [(crossings(rows, error), name) for name, rows in curves.items()]
    return min([(geometric_mean(found), name) for found, name in crossed if found], default=(math.nan, ""))


def at_nfe(rows: Rows, nfe: float) -> float:
    """Error of the curve at a mean NFE."""
    points = sorted((mean(row.nfe), row.error) for row in rows)
    if not points or not points[0][0] <= nfe <= points[-1][0]:
        return math.nan
    x, y = (np.log([point[k] for point in points]) for k in (0, 1))
    return math.exp(float(np.interp(math.log(nfe), x, y)))


def verdict(what: str, met: Iterable[bool]) -> None:
    print(f"  => {what}: {'met' if all(met) else 'MISSED'}")


def tolerance(run: Run) -> None:
    print("\nTolerance honoured by adaptive: median error / tol, share within 3 tol, median NFE (least to most)")
    for problem in run.problems:
        rows = [row for row in run.adaptive(problem) if row.at in HONOURED]
        met = []
        for row in rows:
            share = sum(e <= 3 * row.at for e in row.errors) / len(row.errors)
            met += [row.ratio <= 1, share >= 0.9]
            print(f"  {problem:<12} {row.at:<6g} error {row.error:.3g}, {row.ratio:.2f} tol, {share:4.0%}, {row.spent}")
        if rows:
            verdict(f"{problem}, median <= tol and 90% within 3 tol", met)
        if problem in run.references:
            difference = median(run.references[problem])
            smallest = min((row.error for row in run.rows if row.problem == problem and row.errors), default=math.inf)
            print(f"     references differ by {difference:.1e}, {difference / smallest:.2f} of the least error")


def price(run: Run) -> None:
    for problem in run.problems:
        curves = run.of("price", problem)
        network = problem == run.model
        if guarded := {k: rows for k, rows in curves.items() if k.startswith("dopri5") and k != TIMESTEP}:
            print(f"\nNFE at equal error, {problem}: least (typical)")
        met: list[bool] = []
        slow: list[bool] = []
        ours = {"adaptive": [row.first(run.count) for row in run.adaptive(problem)]}
        for error in PRICED if network else CLOSED:
            (us, _), (us_typical, _) = least(ours, error), typical(ours, error)
            (them, name), (them_typical, usual) = least(guarded, error), typical(guarded, error)
            if math.isnan(us) or math.isnan(them):
                continue
            limit = 0.5 if not network else 0.7 if error > 0.02 else 1 / 3
            met.append(us / them <= limit)
            print(f"  error {error:<6g} adaptive {us:.1f} ({us_typical:.1f}), {name} {them:.1f}", end="")
            print(
                f" ({usual} {them_typical:.1f}): {us / them:.2f} ({us_typical / them_typical:.2f}), target {limit:.2f}"
            )
            if TIMESTEP in curves:
                timestep = least({"": curves[TIMESTEP]}, error)[0]
                slow += [us / timestep <= 1 / 6] if error <= 0.01 and timestep > 0 else []
                print(f"    {TIMESTEP} {timestep:.1f}: {us / timestep:.3f}, target 0.167 from 0.01 down")
        if met:
            verdict(f"{problem}, share of guarded dopri5's NFE", met)
        if slow:
            verdict(f"{problem}, at most 1/6 of dopri5's on the timestep", slow)


def fixed(run: Run) -> None:
    curves = {k: rows for k, rows in run.of("price", run.model).items() if not k.startswith("dopri5")}
    budgets = sorted({row.at for rows in curves.values() for row in rows})
    ours, met = run.adaptive(run.model), []
    if budgets:
        print(f"\nError at equal NFE, {run.model}: adaptive, the best on a grid")
    for budget in budgets:
        best = min((row for rows in curves.values() for row in rows if row.at == budget), key=lambda row: row.error)
        error = at_nfe(ours, best.cost)
        met.append(error <= best.error)
        name = f"{best.method} (NFE {best.cost:g})"
        print(f"  {budget:<3g} {error:.4f}, {best.error:.4f} by {name}: {error / best.error:.2f}")
    if met:
        verdict("no worse than the best method on a grid", met)


def floor(run: Run) -> None:
    curves = run.of("floor")
    if curves:
        print(f"\nWhere the error ends; references differ by {median(run.references['floor']):.1e}")
    for dtype, rows in curves.items():
        for row in rows:
            print(f"  {dtype} state, tol {row.at:<6g} error {row.error:.2e} = {row.ratio:.2f} tol, {row.spent}")
    if curves:
        verdict("error within the tolerance down to 1e-5", [r.ratio <= 1 for rows in curves.values() for r in rows])


def compaction(run: Run) -> None:
    for name, c in run.compaction.items():
        ratio = median(wall / passes for wall, _, passes in c.timed)
        outside = median(wall / inside for wall, inside, _ in c.timed)
        print(f"\nCompaction, {name}: tol {c.tol:g}, NFE {min(c.nfe)} to {max(c.nfe)}, {sum(c.nfe)} in all")
        print(f"  in batches of {c.widths}; without it up to {len(c.nfe) * max(c.nfe)} passes")
        print(f"  wall time {ratio:.3f} of the same passes on their own, {outside:.3f} of the time in the network")
        verdict(f"within 15%, the spread being {max(c.nfe) / min(c.nfe):.2f}", [ratio <= 1.15])


def choices(run: Run) -> None:
    for problem in run.problems:
        curves = run.of("choices", problem)
        if curves:
            tols = [row.at for row in next(iter(curves.values()))]
            print(f"\nParameters, {problem}: NFE, error / tol; typical NFE at two errors\n")
            print("| |", *(f"tol {tol:g} |" for tol in tols), *(f"NFE at error {tol:g} |" for tol in tols[1:3]))
            print("|---" * (len(tols) + 3) + "|")
        for name, rows in curves.items():
            cells = (f"{row.cost:g}, {row.ratio:.2f} |" for row in rows)
            ends = (f"{typical({name: rows}, error)[0]:.1f} |" for error in tols[1:3])
            print(f"| {name} |", *cells, *ends)


def coupled(run: Run) -> None:
    for problem in run.problems:
        if curves := run.of("coupled", problem):
            print(f"\nOf METHODS, {problem}: NFE, median error / tol")
        for name, rows in curves.items():
            cells = (f"tol {row.at:g}: {row.cost:g}, {row.ratio:.2f}" for row in rows)
            print(f"  {name:<14}", "; ".join(cells))


def plot(run: Run, file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    right.set_prop_cycle(color=[plt.colormaps["tab20"](k) for k in range(20)])
    ends = [0.001, 0.3]
    left.loglog(ends, ends, color="0.6", ls="--", label="error = tol")
    for problem in (problem for problem in run.problems if run.adaptive(problem)):
        rows = [row for row in run.adaptive(problem) if ends[0] <= row.at <= ends[1]]
        tols, (low, middle, high) = [row.at for row in rows], np.quantile([r.errors for r in rows], [0.1, 0.5, 0.9], 1)
        (line,) = left.loglog(tols, middle, marker="o", ms=4, label=problem)
        left.fill_between(tols, low, high, color=line.get_color(), alpha=0.12, lw=0)
    left.set(xlabel="tol", ylabel="error", title="adaptive: median error, band from 10% to 90% of samples")
    for name, rows in {"adaptive": run.adaptive(run.model), **run.of("price", run.model)}.items():
        # dopri5's curves go back and forth, and read better as points.
        shape = "ko-" if name == "adaptive" else "x" if name == TIMESTEP else "s" if name.startswith("dopri5") else "^-"
        wide = 2.5 if name == "adaptive" else 1
        right.loglog([row.cost for row in rows], [row.error for row in rows], shape, ms=4, lw=wide, label=name)
    right.set(xlabel="median NFE", ylabel="median error", title=run.model, xlim=(4, 130), ylim=(8e-4, 1))
    right.set_xticks(ticks := [5, 8, 10, 15, 20, 30, 50, 100], map(str, ticks))
    right.tick_params(axis="x", which="minor", labelbottom=False)
    left.grid(which="both", alpha=0.25)
    right.grid(which="both", alpha=0.25)
    left.legend()
    right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=110)


def tell(run: Run, png: Path | None) -> None:
    """Print what there is, and draw it if there is a file to draw to."""
    for part in (tolerance, price, fixed, floor, compaction, choices, coupled):
        part(run)
    if png:
        plot(run, png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="what adaptive.py --json wrote")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw error against tolerance and against NFE")
    args = parser.parse_args()
    tell(Run.read(args.file), args.plot)


if __name__ == "__main__":
    main()
