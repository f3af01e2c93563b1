"""How much of a run is a solver's own arithmetic, and how much the network?

python benchmarks/solver_time.py [MODEL] [--batch N] [--nfe N] [--repeats N]

Every method of METHODS on its default grid, float32 state. "solver" is the share of the wall time of `sample` that is
spent outside the denoiser: planning, steps and the driver. "denoiser" is what its own arithmetic adds around the
network. Medians over runs; the first run of a method, which makes its weights, is given apart in milliseconds.
Exits with 1 if a solver takes more than 2%.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch

import ddim_ode

LIMIT = 0.02


class Clock:
    """Anything that is called, adding up the seconds spent in it by `now`; for the rest it is what it wraps."""

    def __init__(self, work: Callable[..., Any], now: Callable[[], float] = time.perf_counter):
        self.work, self.now, self.seconds = work, now, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)

    def __call__(self, *inputs: Any) -> Any:
        begin = self.now()
        result = self.work(*inputs)
        self.seconds += self.now() - begin
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--nfe", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    loaded = ddim_ode.load(args.model)
    net = Clock(loaded.net)
    model: Any = Clock(dataclasses.replace(loaded, net=net))
    labels = torch.arange(args.batch) % model.num_classes if model.num_classes else None

    def run(name: str) -> tuple[float, float, float]:
        """Seconds outside the denoiser, in it but outside its network, and in all."""
        net.seconds = model.seconds = 0.0
        begin = time.perf_counter()
        ddim_ode.sample(model, name, args.nfe, seeds=range(args.batch), labels=labels)
        total = time.perf_counter() - begin
        return total - model.seconds, model.seconds - net.seconds, total

    run("ddim")
    print(f"{args.model}, batch {args.batch}, NFE {args.nfe}, {torch.get_num_threads()} threads")
    print(f"{'method':<14} {'solver':>8} {'denoiser':>9} {'run ms':>8} {'first run, solver ms':>21}")
    worst = 0.0
    for name in (name for name, row in ddim_ode.METHODS.items() if row.deterministic and not row.adaptive):
        first = run(name)[0]
        runs = [run(name) for _ in range(args.repeats)]
        solver, denoiser = (statistics.median(r[k] / r[2] for r in runs) for k in (0, 1))
        worst = max(worst, solver)
        total = statistics.median(r[2] for r in runs)
        print(f"{name:<14} {solver:8.2%} {denoiser:9.2%} {1e3 * total:8.0f} {1e3 * first:21.1f}", flush=True)
    print(f"most: {worst:.2%} ({'under' if worst < LIMIT else 'NOT UNDER'} {LIMIT:.0%})")
    sys.exit(worst >= LIMIT)


if __name__ == "__main__":
    main()
