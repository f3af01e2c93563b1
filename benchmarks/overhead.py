"""What does the library cost on top of the network? `ddim_ode.sample` against bare forward passes.

python benchmarks/overhead.py [--model MODEL] [--only METHOD ...] [--threads N] [--json FILE]

Left: a run of `sample` from the same latents every time, at NFE 20 with the last evaluation denoising, or `adaptive` at
a tolerance of 0.01. Right: the same network under torch.no_grad() on the inputs that it saw in such a run, in its
order and in its sizes of batch. The two take turns in one process, and the order changes from pair to pair, so that
whatever slows the machine slows both. Two ratios of wall time are reported, of the medians and the median over pairs,
and one of processor time. Exits with 1 if a median over pairs is above its target.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ddim_ode

NFE, TOL = 20, 0.01
REPEATS = {64: 9, 16: 15, 1: 81}
JOBS = [  # method, batch, target
    ("ddim", 64, 1.01),
    ("ddim", 1, 1.03),
    ("dpmpp_2m", 1, 1.03),
    ("adams4", 64, 1.01),
    ("adams4", 1, 1.03),
    ("heun", 1, 1.03),
    ("exact_heun", 1, 1.03),
    ("adaptive", 64, 1.02),
    ("adaptive", 1, 1.06),
    ("sde_euler", 16, 1.03),
]


@dataclass(frozen=True)
class Row:
    """Medians over the pairs, in milliseconds, and ratios sample / bare."""

    method: str
    batch: int
    pairs: int
    sample: float
    bare: float
    medians: float
    paired: float
    processor: float
    target: float

    @property
    def met(self) -> bool:
        return self.paired <= self.target


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def asked(model: Any, run: Callable[[], Any]) -> list[tuple[Tensor, ...]]:
    """What the network of the model is called with in a run."""
    seen: list[tuple[Tensor, ...]] = []
    hook = model.net.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(x.clone() for x in inputs)))
    try:
        run()
    finally:
        hook.remove()
    return seen


def measure(model: Any, method: str, batch: int, target: float, pairs: int, progress: Callable[[str], None]) -> Row:
    noise = torch.randn((batch, *model.shape), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % model.num_classes if model.num_classes else None
    options: dict[str, Any] = {"tol": TOL} if ddim_ode.METHODS[method].adaptive else {"nfe": NFE}

    def sample() -> Any:
        return ddim_ode.sample(model, method, noise=noise, labels=labels, final="denoise", **options)

    inputs = asked(model, sample)
    assert sum(len(x) for x, *_ in inputs) == int(sample().nfe.sum())

    def bare() -> None:
        with torch.no_grad():
            for given in inputs:
                model.net(*given)

    for _ in range(2):
        sample(), bare()
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for pair in range(pairs):
        progress(f"{method}, batch {batch}, pair {pair + 1} of {pairs}")
        for work, seconds in [(sample, ours), (bare, theirs)][:: 1 if pair % 2 else -1]:
            seconds.append(timed(work))
    wall, processor = (
        list(zip(*((a[k], b[k]) for a, b in zip(ours, theirs, strict=True)), strict=True)) for k in (0, 1)
    )
    left, right = (statistics.median(side) for side in wall)
    return Row(
        method=method,
        batch=batch,
        pairs=pairs,
        sample=1e3 * left,
        bare=1e3 * right,
        medians=left / right,
        paired=statistics.median(a / b for a, b in zip(*wall, strict=True)),
        processor=statistics.median(a / b for a, b in zip(*processor, strict=True)),
        target=target,
    )


def table(rows: list[Row]) -> Table:
    result = Table("method", "batch", "pairs", "sample ms", "bare ms", "medians", "paired", "CPU time", "target", "")
    for row in rows:
        numbers = [f"{row.sample:.1f}", f"{row.bare:.1f}", f"{row.medians:.3f}", f"{row.paired:.3f}"]
        verdict = "[green]met[/]" if row.met else "[red]missed[/]"
        result.add_row(
            row.method, str(row.batch), str(row.pairs), *numbers, f"{row.processor:.3f}", f"{row.target:.2f}", verdict
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({job[0] for job in JOBS}), help="these methods alone")
    parser.add_argument("--model", default="fashion", help="what ddim_ode.load takes: a name or a folder (fashion)")
    parser.add_argument("--threads", type=int, help="threads of torch (its own choice by default)")
    parser.add_argument("--repeats", type=int, default=REPEATS[64], help="pairs at batch 64 (default 9)")
    parser.add_argument("--repeats-one", type=int, default=REPEATS[1], help="pairs at batch 1 (default 81)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file too")
    args = parser.parse_args()
    for name in ("threads", "repeats", "repeats_one"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is too small; use 1 or more")
    if args.threads:
        torch.set_num_threads(args.threads)

    console = Console(width=None if sys.stdout.isatty() else 110)
    try:
        model = ddim_ode.load(args.model)
    except ValueError as error:
        parser.error(str(error))
    with console.status("") as status:
        jobs = [job for job in JOBS if not args.only or job[0] in args.only]
        pairs = REPEATS | {64: args.repeats, 1: args.repeats_one}
        rows = [measure(model, *job, pairs[job[1]], status.update) for job in jobs]
    console.print(
        f"{args.model}: NFE {NFE} (adaptive: tol {TOL}), {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    console.print(table(rows))
    if args.json:
        settings = {
            "model": args.model,
            "nfe": NFE,
            "tol": TOL,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        found = [{**asdict(row), "met": row.met} for row in rows]
        args.json.write_text(json.dumps({**settings, "rows": found}, indent=2) + "\n")
    sys.exit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
