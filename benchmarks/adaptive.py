"""Does `adaptive` keep its tolerance, and what does that cost?

python benchmarks/adaptive.py [MODEL] [--count N] [--json FILE] [--plot PNG] [--only SECTION ...]
    [--problems PROBLEM ...]

The error of a sample is the RMS over its pixels against Runge-Kutta 4 in equal steps of log sigma, float64; exponential
Adams-Bashforth 4 on the data path in equal steps of the angle, another family, checks it. Seeds 0..N-1, classes in
turn, float32 state. Problems are "model" and three mixtures whose denoiser is known in closed form: "digits-0.1" and
"digits-0.03", 400 real images of 8 x 8 pixels with these standard deviations on DDPM's schedule, and "classes", small,
on the cosine one. Mixtures have 8 N samples where `adaptive` is on its own.

Sections, all of them unless chosen with --only:

tolerance   the errors of `adaptive` for tolerances from 0.3 down
price       the same errors by dopri5 on four paths, steps shared by the batch and each sample alone, by dopri5 on the
            timestep as score-SDE code runs it (rtol = atol, nothing guarded, float64 state), and by fixed grids
floor       tolerances to 1e-5 on 6 samples, float32 and float64 states; the reference steps on every timestep
compaction  16 samples, of 256 those with the most and the least NFE, as they are and under strong guidance at some
            sigmas: wall time against that of the forward passes
choices     other values of AdaptiveAdams's parameters; the model and digits-0.03
coupled     torchdiffeq's methods as they are in METHODS; the model and digits-0.1

adaptive_report.py prints the result and says what is met; --json is written after every row.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from adaptive_problems import PROBLEMS, Problem, mixtures
from adaptive_report import Compaction, Row, Run, tell
from torch import Tensor
from torchdiffeq import odeint

import ddim_ode
from ddim_ode.errors import DDIMError
from ddim_ode.models.guidance import Guided
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import DiscreteVP, f64
from ddim_ode.solvers import METHODS, PATHS, Method
from ddim_ode.solvers.adaptive import TorchDiffEq
from ddim_ode.solvers.adaptive_adams import AdaptiveAdams

SECTIONS = ("tolerance", "price", "floor", "compaction", "choices", "coupled")
TOLS = (0.3, 0.17, 0.1, 0.055, 0.03, 0.017, 0.01, 0.0055, 0.003, 0.0017, 0.001)
FINE = (5.5e-4, 3e-4, 1.7e-4, 1e-4, 5.5e-5, 3e-5)
WIDE = (1.0, 0.55, *TOLS, *FINE, 1.7e-5, 1e-5)
FLOOR = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
COARSE = {True: (0.1, 0.03, 0.01, 0.003), False: (0.1, 0.01, 0.001, 1e-4)}
LEAST = {True: 2.7e-3, False: 9e-5}  # of a network and of a mixture, the error at which a sweep may stop
MOST = {True: 200, False: 500}  # and the NFE
BUDGETS = (8, 10, 12, 15, 20, 25)
FIXED = (
    ("adams4", "trailing_angle"),
    ("adams3", "trailing_angle"),
    ("unipc_2", "trailing_angle"),
    ("unipc_2", "log_snr"),
    ("unipc_3", "trailing_angle"),
    ("unipc_3", "log_snr"),
    ("heun3", "uniform"),
    ("ipndm", "log_snr"),
)
PARAMETERS: dict[str, tuple[float, ...]] = {
    "finish": (0.0, 0.1, 0.3),
    "aim": (0.3, 0.4),
    "safety": (0.7, 0.9),
    "ahead": (0.0, 1.0),
    "revise": (0.0, 0.5),
    "most": (2, 3, 4),
}
CHOICES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("as it is", "flow", {}),
    ("path angle", "angle", {}),
    ("path noise", "noise", {}),
    *((f"{name} {value:g}", "flow", {name: value}) for name, values in PARAMETERS.items() for value in values),
)


class Bench:
    def __init__(self, run: Run, file: Path | None):
        self.run, self.file = run, file
        self.begin = time.perf_counter()

    def save(self, what: str) -> None:
        print(f"{time.perf_counter() - self.begin:6.0f} s  {what}", file=sys.stderr, flush=True)
        if self.file:
            self.run.write(self.file)

    def measure(self, section: str, on: Problem, name: str, method: str | Method, at: float, **choices: Any) -> Row:
        """One row; `at` is a tolerance or, of a method on a grid, a budget."""
        row = METHODS[method] if isinstance(method, str) else method
        price = {"tol": at, "max_nfe": 2000} if row.adaptive else {"nfe": int(at)}
        try:
            found = on.sample(method, **price, **choices)
            note = "" if found.converged.all() else "not converged"
            return self.keep(section, on, name, at, found.nfe.tolist(), found.x, note)
        except DDIMError as error:
            return self.keep(section, on, name, at, [], None, str(error))

    def keep(
        self, section: str, on: Problem, name: str, at: float, nfe: list[int], x: Tensor | None, note: str = ""
    ) -> Row:
        row = Row(section, on.name, name, at, nfe, [] if x is None else on.errors(x), note)
        self.run.rows.append(row)
        self.save(f"{on.name}, {name} at {at:g}: {row.short}")
        return row

    def sweep(self, on: Problem, name: str, method: Method, **choices: Any) -> None:
        """Ever smaller tolerances, until the error is small enough or the run too long."""
        for tol in WIDE:
            row = self.measure("price", on, name, method, tol, **choices)
            if row.note or row.error < LEAST[on.network] or row.cost > MOST[on.network]:
                break

    def score_sde(self, on: Problem) -> None:
        for tol in WIDE:
            ode = ProbabilityFlow(on.model, on.model.path, (on.model.sigma_min, on.model.sigma_max), on.labels)
            u = on.model.path.u(f64([on.model.sigma_max, on.model.sigma_min]))
            y = odeint(ode, on.noise.double(), u, rtol=tol, atol=tol, method="dopri5")[-1]
            x = ode.predict(ode.leave(y, on.model.sigma_min), f64(on.model.sigma_min)).data
            row = self.keep("price", on, "dopri5, timestep", tol, [int(ode.nfe)] * len(x), x)
            if row.error < LEAST[on.network]:
                break

    def price(self, on: Problem) -> None:
        rivals = {f"dopri5, {name}": Method(TorchDiffEq("dopri5"), path, "", 5, 6, "") for name, path in PATHS.items()}
        for name, method in rivals.items():
            self.sweep(on, name, method)
        for name in ("dopri5, angle", "dopri5, flow", *([] if on.network else ["dopri5, data"])):
            self.sweep(on, f"{name}, alone", rivals[name], batch_size=1)
        if on.network:
            self.score_sde(on)
            for method_name, grid in FIXED:
                for budget in BUDGETS:
                    self.measure("price", on, f"{method_name}, {grid}", method_name, budget, grid=grid)

    def floor(self, model: ddim_ode.Denoiser) -> None:
        assert isinstance(model.path, DiscreteVP)
        on = Problem("floor", model, 6)
        times = torch.arange(model.path.num_timesteps - 1, -1, -1, dtype=torch.float64)
        sigmas = [*model.path.sigma(times).tolist(), 0.0]
        on.truth = on.sample("rk4", grid=sigmas, dtype=torch.float64).x
        self.run.references["floor"] = on.errors(on.second())
        self.save("reference on every timestep")
        for dtype in (torch.float32, torch.float64):
            for tol in FLOOR:
                self.measure("floor", on, str(dtype).removeprefix("torch."), "adaptive", tol, dtype=dtype)

    def compaction(self, name: str, model: ddim_ode.Denoiser, tol: float, repeats: int = 7, **choices: Any) -> None:
        """A run against the forward passes it made, timed next to it."""
        every = Problem("", model, 256)
        net = Widths(model.net)
        watched: Any = dataclasses.replace(model, net=net)
        if choices:
            watched = Guided(watched, **choices)
        nfe = ddim_ode.sample(watched, "adaptive", tol=tol, noise=every.noise, labels=every.labels).nfe
        order = nfe.argsort(stable=True)
        chosen = torch.cat([order[:8], order[-8:]])
        some = None if every.labels is None else every.labels[chosen]
        self.save(f"NFE of 256 samples: {nfe.min()} to {nfe.max()}")
        timed: list[tuple[float, float, float]] = []
        for _ in range(repeats):
            net.seen, net.seconds = [], 0.0
            begin = time.perf_counter()
            ddim_ode.sample(watched, "adaptive", tol=tol, noise=every.noise[chosen], labels=some)
            wall, inside = time.perf_counter() - begin, net.seconds
            costs = {width: net.cost(width) for width in sorted(set(net.seen))}
            timed.append((wall, inside, sum(costs[width] for width in net.seen)))
            self.run.compaction[name] = Compaction(tol, nfe[chosen].tolist(), net.seen, timed)
            self.save(f"compaction, {name}: {timed[-1]}")


class Widths:
    """A network that remembers the sizes of its batches, the last input of each, and the time spent."""

    def __init__(self, net: Any):
        self.net, self.seconds = net, 0.0
        self.seen: list[int] = []
        self.inputs: dict[int, tuple[Tensor, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)

    def __call__(self, *inputs: Tensor) -> Any:
        self.seen.append(len(inputs[0]))
        self.inputs[len(inputs[0])] = inputs
        begin = time.perf_counter()
        result = self.net(*inputs)
        self.seconds += time.perf_counter() - begin
        return result

    @torch.no_grad()
    def cost(self, width: int) -> float:
        """Seconds of a forward pass, the median of five."""
        return statistics.median(timeit.repeat(lambda: self.net(*self.inputs[width]), number=1, repeat=5))


def study(bench: Bench, on: Problem, sections: Sequence[str]) -> None:
    """The sections that compare with one reference."""
    bench.run.references[on.name] = on.refer()
    bench.save(f"references of {on.name}")
    few = on.first(bench.run.count)
    if {"tolerance", "price"} & set(sections):
        for tol in TOLS if on.network else (*TOLS, *FINE):
            bench.measure("tolerance", on, "adaptive", "adaptive", tol)
    if "price" in sections:
        bench.price(few)
    if "choices" in sections and (on.network or on.name == "digits-0.03"):
        for name, path, values in CHOICES:
            method = Method(dataclasses.replace(AdaptiveAdams(), **values), PATHS[path], "", 6, 1, "")
            for tol in COARSE[on.network]:
                bench.measure("choices", on, name, method, tol)
    if "coupled" in sections and (on.network or on.name == "digits-0.1"):
        for name in (name for name, row in METHODS.items() if row.adaptive):
            for tol in (0.1, 0.01, 0.001)[: 2 if on.network else 3]:
                bench.measure("coupled", few, name, name, tol)


def measure(bench: Bench, model: ddim_ode.Denoiser, sections: Sequence[str], problems: Sequence[str]) -> None:
    run = bench.run
    if {"tolerance", "price", "choices", "coupled"} & set(sections):
        for on in (Problem(run.model, model, run.count, network=True), *mixtures(8 * run.count)):
            if ("model" if on.network else on.name) in problems:
                study(bench, on, sections)
    if "floor" in sections:
        bench.floor(model)
    if "compaction" in sections:
        bench.compaction("as they are", model, 3e-3)
        if model.num_classes:
            bench.compaction("guided", model, 1e-2, scale=8.0, sigma_range=(0.3, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--count", type=int, default=24, help="samples (24)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row to this file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw error against tolerance and against NFE")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, metavar="PROBLEM")
    args = parser.parse_args()
    if args.count < 1:
        parser.error("--count takes a number from 1")
    bench = Bench(Run(args.model, args.count, {}, [], {}), args.json)
    measure(bench, ddim_ode.load(args.model), args.only, args.problems)
    tell(bench.run, args.plot)


if __name__ == "__main__":
    main()
