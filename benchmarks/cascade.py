"""Is a cascade better than one network at equal time? Frechet distance of `fashion-cascade` and of `fashion`, paired.

python benchmarks/cascade.py [--cascade NAME] [--nfe N ...] [--augmentation S ...] [--count N] [--json FILE]
    [--page FILE]

First the time of a pass is measured for each network, the networks taking turns. Then, for each budget of `fashion`,
the stages get as many passes as take no longer, --share of the time for the first; the runs take turns again in batches
of 50 of the same seeds and labels, which gives the ratio of their times (medians over pairs; CPU time beside wall time,
since other programs may be at work). At last `--count` samples of each are compared with the 10,000 test images, in the
features of the classifier that ships; the interval of the difference is of a paired bootstrap over samples.

Ten minutes on one core for --nfe 10 --count 1000. --page writes the table into a Markdown file, between its lines
`<!-- table -->` and `<!-- end -->`.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from rich.console import Console
from torch import Tensor

import ddim_ode
from ddim_ode.cascade import Cascade
from ddim_ode.data import fashion_mnist, to_uint8
from ddim_ode.metrics.fashion import extract, load_fashion_features
from ddim_ode.metrics.frechet import Gaussian, between, fitted
from ddim_ode.models.conditional import condition_of
from ddim_ode.planning.options import SolveOptions
from ddim_ode.support.files import replacing
from ddim_ode.support.versions import circumstances

CLASSES, BATCH, PASSES = 10, 50, 4
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"

Draw = Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` and `cpu_ratio`: time of the run over that of `fashion`; `low`, `high`: 95% of the
    difference of distances to it.
    """

    images: str
    nfe: str
    equivalents: float
    ratio: float
    cpu_ratio: float
    recognised: float
    frechet: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Arm:
    """A way to draw samples, and what it costs in passes of `fashion`."""

    name: str
    nfe: str
    equivalents: float
    draw: Draw


def labels_of(seeds: Sequence[int]) -> list[int]:
    return [seed % CLASSES for seed in seeds]


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def costs(models: Sequence[Any], rounds: int) -> list[float]:
    """CPU seconds of a pass of each network for one sample: medians over rounds in which they take turns."""
    found: list[list[float]] = [[] for _ in models]
    for _ in range(rounds + 1):
        for model, each in zip(models, found, strict=True):
            wanted = condition_of(model)
            conditions = {"image": torch.zeros(BATCH, *wanted.image)} if wanted else None
            labels = labels_of(range(BATCH))
            run = partial(ddim_ode.sample, model, nfe=PASSES, seeds=range(BATCH), labels=labels, conditions=conditions)
            each.append(timed(run)[1] / PASSES / BATCH)
    return [statistics.median(one[1:]) for one in found]  # the first round warms up


def budgets(nfe: float, cost: Sequence[float], share: float) -> tuple[int, int]:
    """Passes of the two stages that take no longer than nfe of `fashion`."""
    whole, first, second = nfe * cost[0], cost[1], cost[2]
    base = max(1, round(share * whole / first))
    return base, max(1, int((whole - base * first) / second))


def arms(args: argparse.Namespace, nfe: int, cost: Sequence[float], given: float) -> list[Arm]:
    """`fashion` with nfe passes, and the cascade with what takes a share `given` of its time by the costs of passes."""
    model, cascade = ddim_ode.load("fashion"), Cascade.load(args.cascade)

    def alone(seeds: Sequence[int]) -> Tensor:
        return ddim_ode.sample(model, args.method, nfe, seeds, labels=labels_of(seeds), batch_size=BATCH).x

    base, up = budgets(nfe * given, cost, args.share)
    options = [SolveOptions(method=args.method, nfe=n, batch_size=BATCH) for n in (base, up)]

    def in_stages(chain: Cascade) -> Draw:
        return lambda seeds: chain.sample(options, seeds, labels=labels_of(seeds)).x

    equivalents = (base * cost[1] + up * cost[2]) / cost[0]
    chains = [(level, Cascade(cascade.stages, level)) for level in args.augmentation]
    return [Arm("fashion", str(nfe), nfe, alone)] + [
        Arm(f"cascade, augmentation {level:g}", f"{base} + {up}", equivalents, in_stages(chain))
        for level, chain in chains
    ]


def ratios(ways: Sequence[Arm], rounds: int) -> list[tuple[float, float]]:
    """Wall and CPU time of each, over that of the first: medians over rounds in which they take turns."""
    found: list[list[tuple[float, float]]] = [[] for _ in ways]
    for turn in range(rounds):
        seeds = range(turn * BATCH, (turn + 1) * BATCH)
        for k in (i if turn % 2 else -1 - i for i in range(len(ways))):  # there and back
            found[k].append(timed(partial(ways[k].draw, seeds)))
    pairs = [[(w / w0, c / c0) for (w, c), (w0, c0) in zip(one, found[0], strict=True)] for one in found]
    return [(statistics.median(w for w, _ in one), statistics.median(c for _, c in one)) for one in pairs]


def fair(args: argparse.Namespace, nfe: int, cost: Sequence[float]) -> tuple[list[Arm], list[tuple[float, float]]]:
    """The arms and the ratios of their times: the stages are given less until none takes longer than the first arm."""
    given = 1.0
    while True:
        ways = arms(args, nfe, cost, given)
        times = ratios(ways, args.rounds)
        worst = max(cpu for _, cpu in times)
        if worst <= 1 or given < 0.5:
            return ways, times
        given *= 0.98 / worst


def bootstrap(a: Tensor, b: Tensor, real: Gaussian, times: int = 200) -> tuple[float, float]:
    """95% of the difference of the distances of features a and b (N, D) to the real ones, rows drawn in pairs."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(times):
        rows = torch.randint(len(a), (len(a),), generator=generator)
        found.append(between(fitted("a", a[rows]), real) - between(fitted("b", b[rows]), real))
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def study(args: argparse.Namespace, nfe: int, cost: Sequence[float], report: Callable[[str], None]) -> list[Row]:
    """The rows of one budget."""
    net, rows = load_fashion_features(), list[Row]()
    real = fitted("real", extract(net, fashion_mnist("test", args.data)[0]))
    ways, times = fair(args, nfe, cost)
    first: tuple[Tensor, float] | None = None
    for way, (wall, cpu) in zip(ways, times, strict=True):
        x = torch.cat([way.draw(range(i, i + BATCH)) for i in range(0, args.count, BATCH)])
        features = extract(net, to_uint8(x))
        seen = net.classes(features.relu()).argmax(1)
        recognised = float((seen == torch.tensor(labels_of(range(args.count)))).double().mean())
        distance = between(fitted("x", features), real)
        against: dict[str, Any] = {}
        if first is None:
            first = features, distance
        else:
            low, high = bootstrap(features, first[0], real)
            against = {"difference": distance - first[1], "low": low, "high": high}
        rows.append(Row(way.name, way.nfe, way.equivalents, wall, cpu, recognised, distance, **against))
        report(f"{way.name}, nfe {way.nfe}: {distance:.2f}, {recognised:.1%}, {wall:.2f} of the time")
    return rows


def keep(args: argparse.Namespace, rows: Sequence[Row], cost: Sequence[float]) -> None:
    """Write what there is so far to where it is asked for."""
    if args.json:
        told = {"date": date.today().isoformat(), "command": shlex.join(["python", *sys.argv]), **circumstances()}
        record = {**told, "cpu_ms_of_a_pass": [1000 * c for c in cost], "rows": [asdict(row) for row in rows]}
        with replacing(args.json) as new:
            new.write((json.dumps(record, indent=2) + "\n").encode())
    if args.page:
        fill(args.page, table(rows))


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    head = "| images | NFE | in passes of `fashion` | time (CPU) | recognised | distance | difference, 95% |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        against = "" if row.difference is None else f"{row.difference:+.2f}, {row.low:+.2f} to {row.high:+.2f}"
        spent = f"{row.ratio:.2f} ({row.cpu_ratio:.2f})"
        cells = (row.images, row.nfe, f"{row.equivalents:.1f}", spent, f"{row.recognised:.1%}", f"{row.frechet:.2f}")
        lines.append(f"| {' | '.join((*cells, against))} |")
    return "\n".join(lines) + "\n"


def fill(page: Path, text: str) -> None:
    """Put the table between the lines that are there for it."""
    before, found, rest = page.read_text().partition(BEGIN)
    if not found or END not in rest:
        raise SystemExit(f"{page} has no lines {BEGIN.strip()} and {END.strip()}")
    with replacing(page) as new:
        new.write((before + BEGIN + text + END + rest.partition(END)[2]).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascade", default="fashion-cascade", help="a bundled cascade, or the folder of one")
    parser.add_argument("--nfe", type=int, nargs="+", default=[10, 20], metavar="N", help="of fashion (10 20)")
    parser.add_argument("--method", default="ddim", help="of all networks (ddim)")
    parser.add_argument("--share", type=float, default=0.6, help="of the time that the first stage gets (0.6)")
    parser.add_argument("--augmentation", type=float, nargs="+", default=[0.0, 0.1], metavar="S", help="(0 0.1)")
    parser.add_argument("--count", type=int, default=2000, help="samples a run, a multiple of 50 (2000)")
    parser.add_argument("--rounds", type=int, default=5, help="of timing (5)")
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST IDX files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into this Markdown file")
    args = parser.parse_args()
    if args.count < BATCH or args.count % BATCH:
        parser.error(f"--count {args.count} must be a multiple of {BATCH}")
    console = Console(stderr=True)

    def report(line: str) -> None:
        console.print(line, style="dim", highlight=False)

    cost = costs([ddim_ode.load("fashion"), *Cascade.load(args.cascade).stages], args.rounds)
    report(f"CPU ms of a pass for one sample: {', '.join(f'{1000 * c:.2f}' for c in cost)}")
    rows = list[Row]()
    for nfe in args.nfe:
        rows += study(args, nfe, cost, report)
        keep(args, rows, cost)
    print(table(rows), end="")


if __name__ == "__main__":
    main()
