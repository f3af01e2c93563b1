"""Where does the time of a run go? From the start of the program to the pictures on disk.

    python benchmarks/time_spent.py [--model fashion] [--nfe 20] [--batches 1,16,64] [--repeats 7] [--json FILE]

First, from Python: of a batch by each method, the milliseconds of a run, and the shares that are spent in the network,
in the arithmetic around it (`Denoiser`), and in all else, which is solver, plan and noise on the way. Beside them, in
per cent of that run: drawing the latents of the seeds, drawing Brownian paths of as many increments alone, and
writing the pictures, as one sheet and as a file each.

Then, as commands: what it takes until Python, torch and the program answer, and a whole run.

Times are the processor's, of all threads, which other jobs disturb least: run it with OMP_NUM_THREADS=1, or waiting
counts. Methods take turns; medians of the repeats.
"""

import argparse
import dataclasses
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import ddim_ode
from benchmarks.gpu_sections.report import grid, processor
from benchmarks.solver_time import Clock
from ddim_ode.data import save_grid, save_images
from ddim_ode.ode.brownian import Brownian
from ddim_ode.planning.inputs import seeded_noise

METHODS = ("ddim", "adams4", "exact_heun", "adaptive", "sde_euler")
PROGRAM = [sys.executable, "-m", "ddim_ode"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import ddim_ode": [sys.executable, "-c", "import ddim_ode"],
    "ddim-ode --help": [*PROGRAM, "--help"],
    "ddim-ode methods": [*PROGRAM, "methods"],
    "ddim-ode sample fashion -n 1 --nfe 1": [*PROGRAM, "sample", "fashion", "-n", "1", "--nfe", "1"],
    "ddim-ode sample fashion -n 64 --nfe 20": [*PROGRAM, "sample", "fashion", "-n", "64", "--nfe", "20"],
}
Row = dict[str, Any]


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, all threads together."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def runs(name: str, batch: int, nfe: int, repeats: int) -> list[Row]:
    """A row a method."""
    loaded = ddim_ode.load(name)
    net = Clock(loaded.net, time.process_time)
    model: Any = Clock(dataclasses.replace(loaded, net=net), time.process_time)
    labels = torch.arange(batch) % loaded.num_classes if loaded.num_classes else None
    noise, sigmas = seeded_noise(range(batch), loaded.shape), torch.logspace(2, -2, nfe + 1, dtype=torch.float64)
    budgets: dict[str, Mapping[str, Any]] = {method: {"nfe": nfe} for method in METHODS} | {"adaptive": {"tol": 0.01}}

    def run(method: str) -> tuple[float, float, float, float]:
        """Milliseconds, and shares."""
        net.seconds = model.seconds = 0.0
        total = seconds(lambda: ddim_ode.sample(model, method, noise=noise, labels=labels, **budgets[method]))
        shares = (net.seconds, model.seconds - net.seconds, total - model.seconds)
        return 1e3 * total, *(100 * share / total for share in shares)

    def paths() -> None:
        path = Brownian(range(batch), loaded.shape)
        for n in range(nfe):
            path.increment(sigmas[n], sigmas[n + 1])

    with tempfile.TemporaryDirectory() as folder:
        aside = {
            "latents": lambda: seeded_noise(range(batch), loaded.shape),
            "paths": paths,
            "sheet": lambda: save_grid(noise, Path(folder) / "sheet.png"),
            "pictures": lambda: save_images(noise, Path(folder)),
        }
        for method in METHODS:
            run(method)
        found: dict[str, list[tuple[float, ...]]] = {method: [] for method in METHODS}
        beside: dict[str, list[float]] = {what: [] for what in aside}
        for turn in range(repeats):
            for method in METHODS[:: 1 if turn % 2 else -1]:
                found[method].append(run(method))
            for what, work in aside.items():
                beside[what].append(1e3 * seconds(work))
    rows = []
    for method in METHODS:
        whole, *shares = (statistics.median(column) for column in zip(*found[method], strict=True))
        row = {"method": method, "batch": batch, "ms": whole}
        row |= dict(zip(("network", "around it", "all else"), shares, strict=True))
        rows.append(row | {what: 100 * statistics.median(each) / whole for what, each in beside.items()})
    return rows


def commands(repeats: int) -> Row:
    """Seconds of each command, one after another."""
    found: dict[str, list[float]] = {words: [] for words in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            for words, command in COMMANDS.items():
                out = ["--out", f"{folder}/{turn}-{len(command)}-{command[-3]}"] if "sample" in command else []
                found[words].append(quiet([*command, *out]))
    return {words: statistics.median(each) for words, each in found.items()}


def quiet(command: Sequence[str]) -> float:
    """Seconds of the processor that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tables(rows: Sequence[Row], starts: Row) -> tuple[str, str]:
    """Of the runs, and of the commands."""
    heads = ["method", "batch", "ms", *(f"{name}, %" for name in list(rows[0])[3:])]
    cells = [
        [row["method"], str(row["batch"]), f"{row['ms']:.0f}", *(f"{value:.3g}" for value in list(row.values())[3:])]
        for row in rows
    ]
    return grid(heads, cells), grid(
        ["command", "s"], [[f"`{words}`", f"{spent:.2f}"] for words, spent in starts.items()]
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--nfe", type=int, default=20, help="of all but adaptive, which is at tol 0.01 (20)")
    parser.add_argument("--batches", default="1,16,64", help="sizes of batches (1,16,64)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (7); of commands at most 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    given = parser.parse_args(arguments)
    about, today = f"{processor()}, torch {torch.__version__}", date.today().isoformat()
    print(f"{about}, {today}", flush=True)
    rows: list[Row] = []
    for size in map(int, given.batches.split(",")):
        rows += runs(given.model, size, given.nfe, given.repeats)
        print(f"batch {size} is done", flush=True)
    starts = commands(min(given.repeats, 5))
    print("\n\n".join(tables(rows, starts)))
    if given.json:
        command = shlex.join(["python", "benchmarks/time_spent.py", *arguments])
        found = {"date": today, "machine": about, "command": command, "rows": rows, "commands": starts}
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
