"""How accurate is every method for what it costs? Trajectory error at equal measured NFE, ours and diffusers'.

python benchmarks/accuracy_at_nfe.py [MODEL] [--count N] [--nfe N ...] [--methods M ...] [--grids G ...]
    [--reference-steps N] [--json FILE] [--plot PNG]

The error of a sample is the RMS over its pixels against a reference solution of the same ODE from the same noise. Cells
read "median / RMS" over samples, then the measured NFE in brackets where it stays below the budget, and "!" with the
share of samples off by more than 0.1. Seeds 0..N-1, classes in turn, float32 state, the last evaluation denoises.
Every method runs on its default grid and on --grids; what is one solver under several names runs once.

Reference: Runge-Kutta 4 on the angle path in 300 steps of log sigma, 1201 evaluations, float64. It is checked against
exponential Adams-Bashforth 4 on the data path, 900 evaluations equidistant in the angle: another family, path and grid.
Their difference should be under a tenth of every error reported; --reference-steps makes both finer or coarser.

diffusers: its schedulers as a pipeline drives them, constructed with the model's betas, its number of timesteps and
what it predicts, otherwise by default, and with the most steps whose network calls fit the budget. That includes
clip_sample=True for DDIM, and for DDIM and PNDM a start below the last timestep; rows with other options are marked *
and left out of the verdict. Schedulers that are stochastic by default or ignore `trained_betas` or `prediction_type`
are not here.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import diffusers
import numpy as np
import torch
from torch import Tensor

import ddim_ode
from ddim_ode.denoiser import NonFiniteError
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.paths import DiscreteVP
from ddim_ode.sampling import SampleError, seeded_noise
from ddim_ode.solvers import METHODS, DivergedError, Method, adams

NFES = (5, 8, 10, 15, 20, 50)
# Not "quadratic", which begins at 0.8 T: on a cosine schedule that is sigma = 3, and costs any method an error of 0.7.
GRIDS = ("uniform", "trailing", "trailing_angle", "log_snr", "karras")
JUDGED = (10, 20)  # the budgets of the verdict
FAR = 0.1
BETTER = 1.05  # another grid is worth a mark from this ratio on
PREDICTION_TYPES = {"velocity": "v_prediction", "noise": "epsilon", "data": "sample"}
NAMES = "DDIM PNDM DPMSolverMultistep DPMSolverSinglestep UniPCMultistep DEISMultistep EulerDiscrete HeunDiscrete"
SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    **{f"{name}Scheduler": {} for name in f"{NAMES} LMSDiscrete KDPM2Discrete".split()},
    "DDIMScheduler*, no clipping": {"clip_sample": False},
}


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
            return "diverged" if self.note == "diverged" else "-"
        spent = "" if self.nfe == self.budget else f" ({self.nfe})"
        return f"{self.median:#.3g} / {self.rms:#.3g}{spent}" + (f" !{self.far:.0%}" if self.far else "")


Groups = Mapping[tuple[str, ...], Sequence[Entry]]  # by the names of a method


class Bench:
    """The model, its latents and labels, and how many of all evaluations are done."""

    def __init__(self, model: ddim_ode.Denoiser, count: int, nfes: Sequence[int]):
        self.model, self.nfes = model, nfes
        self.labels = torch.arange(count, device=model.device) % model.num_classes if model.num_classes else None
        self.noise = seeded_noise(range(count), model.shape)
        self.total = self.done = 0
        self.begin = time.perf_counter()

    def report(self, what: str, nfe: int) -> None:
        self.done += nfe * len(self.noise)
        seconds = time.perf_counter() - self.begin
        print(f"{seconds:6.0f} s {self.done / self.total:4.0%}  {what}", file=sys.stderr, flush=True)

    def sample(self, method: str | Method, nfe: int, grid: str, dtype: torch.dtype) -> tuple[Tensor, int]:
        found = ddim_ode.sample(
            self.model, method, nfe, noise=self.noise, labels=self.labels, grid=grid, dtype=dtype, batch_size=64
        )
        return found.x, int(found.nfe.max())

    def reference(self, name: str, method: str | Method, nfe: int, grid: str) -> Tensor:
        x, spent = self.sample(method, nfe, grid, torch.float64)
        self.report(f"{name} of {spent} evaluations", nfe)
        return x

    @torch.no_grad()
    def drive(self, name: str, budget: int) -> tuple[Tensor, int]:
        """A scheduler as diffusers' pipelines drive it: the last sample and the network calls."""
        model, calls, scheduler = self.model, 0, fitting(name, self.model, budget)
        condition = () if self.labels is None else (self.labels,)
        x = self.noise.to(model.device, model.dtype) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            times = t.to(model.device, model.dtype).expand(len(x))
            out = model.net(scheduler.scale_model_input(x, t), times, *condition)
            calls += 1
            x = scheduler.step(out, t, x).prev_sample
        return x, calls

    def measure(
        self, fixed: tuple[str, tuple[str, ...], str, bool], truth: Tensor, run: Callable[[int], tuple[Tensor, int]]
    ) -> list[Entry]:
        """One entry a budget; `run` takes it and returns samples and their NFE."""
        entries = []
        for budget in self.nfes:
            try:
                x, nfe = run(budget)
                e = errors(x, truth)
                numbers = {"median": median(e), "rms": rms(e), "far": float((e > FAR).double().mean())}
                note = "" if e.isfinite().all() else "diverged"
                entries.append(Entry(*fixed, budget, nfe, **({"note": note} if note else numbers)))
            except (DivergedError, NonFiniteError):
                entries.append(Entry(*fixed, budget, note="diverged"))
            except DDIMError as error:
                entries.append(Entry(*fixed, budget, note=str(error)))
        self.report(f"{fixed[1][0]}, {fixed[2]}", sum(self.nfes))
        return entries


def errors(x: Tensor, truth: Tensor) -> Tensor:
    """Root mean square over each sample, (B,)."""
    return (x - truth).flatten(1).square().mean(1).sqrt()


def median(e: Tensor) -> float:
    return float(e.quantile(0.5))


def rms(e: Tensor) -> float:
    return float(e.square().mean().sqrt())


def fitting(name: str, model: ddim_ode.Denoiser, budget: int) -> Any:
    """The scheduler, set to the most steps that cost at most `budget` network calls."""
    assert isinstance(model.path, DiscreteVP)
    abar = model.path.alphas_cumprod
    for steps in range(budget, 0, -1):
        scheduler = getattr(diffusers, name.split("*")[0])(
            trained_betas=1 - abar / np.concatenate([[1.0], abar[:-1]]),
            num_train_timesteps=model.path.num_timesteps,
            prediction_type=PREDICTION_TYPES[model.predicts],
            **SCHEDULERS[name],
        )
        try:
            scheduler.set_timesteps(steps)
        except ValueError:  # PNDM with fewer than 4 steps
            break
        if len(scheduler.timesteps) <= budget:
            return scheduler
    raise SampleError(f"nfe={budget} is too small for {name}: no number of steps costs so little")


def solvers(chosen: Iterable[str]) -> list[tuple[str, ...]]:
    """Names grouped by what they run: solver, path and default grid."""
    groups: dict[Any, list[str]] = {}
    for name in chosen:
        row = METHODS[name]
        groups.setdefault((row.solver, row.path, row.grid), []).append(name)
    return [tuple(names) for names in groups.values()]


def better_grid(entries: Sequence[Entry]) -> str:
    """The grid with the smallest median, averaged in log over `JUDGED`, if it beats the default by more than 5 %."""
    judged = [e for e in entries if e.budget in JUDGED]
    scores = {
        grid: math.exp(np.mean([math.log(e.median) for e in judged if e.grid == grid]))
        for grid in dict.fromkeys(e.grid for e in judged)
    }
    best = min(scores, key=scores.__getitem__, default="")
    gain = next((scores[e.grid] / scores[best] for e in judged if e.default and scores[best] < math.inf), 1.0)
    return f"{best}, {gain:.2f} times" if gain > BETTER else ""


def own(entries: Sequence[Entry]) -> list[Entry]:
    """A method on its default grid, a scheduler as it is."""
    return [e for e in entries if e.default or e.source == "diffusers"]


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


def markdown(groups: Groups, nfes: Sequence[int]) -> None:
    print("\n| method | grid |", *(f"NFE {nfe} |" for nfe in nfes), "a better grid |")
    print("|---" * (len(nfes) + 3) + "|")
    for names, entries in groups.items():
        shown = ", ".join(f"`{name}`" for name in names)
        print(
            f"| {shown} | {own(entries)[0].grid} |", *(f"{e.cell} |" for e in own(entries)), better_grid(entries), "|"
        )


def verdict(entries: Sequence[Entry], difference: Tensor) -> None:
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


def plot(file: Path, groups: Groups) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(13, 9), layout="constrained")
    for n, (names, entries) in enumerate(groups.items()):
        shown = [e for e in own(entries) if not e.note]
        style = {"ls": "--", "marker": "x"} if entries[0].source == "diffusers" else {"marker": "osv^D*"[n // 4 % 6]}
        x, y = [e.nfe for e in shown], [e.median for e in shown]
        axes.loglog(x, y, **style, color=plt.colormaps["tab20"](n % 20), label=names[0])
    ticks = sorted({e.budget for entries in groups.values() for e in entries})
    axes.set_xticks(ticks, [str(nfe) for nfe in ticks])
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    medians = [e.median for entries in groups.values() for e in own(entries) if not e.note]
    axes.set_ylim(min(medians) / 1.3, min(2.0, max(medians) * 1.3))  # what is above has left the range of images
    axes.set(xlabel="measured NFE", ylabel="median trajectory error", title="default grids; diffusers dashed")
    axes.grid(which="both", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(file, dpi=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--count", type=int, default=64, help="samples (64)")
    parser.add_argument("--nfe", type=int, nargs="+", default=NFES, metavar="N", help="budgets of evaluations")
    parser.add_argument("--methods", nargs="*", default=[*METHODS], metavar="M", help="of ddim_ode (all)")
    parser.add_argument("--grids", nargs="*", default=GRIDS, metavar="G", help="besides the default ones")
    parser.add_argument("--reference-steps", type=int, default=300, metavar="N", help="4N+1 and 3N evaluations (300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every entry to this file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the errors on default grids")
    args = parser.parse_args()
    for option, known in (("method", METHODS), ("grid", ddim_ode.GRIDS)):
        for name in set(getattr(args, f"{option}s")) - set(known):
            parser.error(unknown(option, name, known))
    if min(args.count, args.reference_steps, *args.nfe) < 1:
        parser.error("--count, --reference-steps and --nfe take numbers from 1")
    return args


def main() -> None:
    args = arguments()
    diffusers.utils.logging.set_verbosity_error()
    model = ddim_ode.load(args.model)
    bench = Bench(model, args.count, sorted(set(args.nfe)))
    runs = [(names, g) for names in solvers(args.methods) for g in dict.fromkeys([METHODS[names[0]].grid, *args.grids])]
    comparable = isinstance(model.path, DiscreteVP) and model.predicts in PREDICTION_TYPES
    schedulers = [*SCHEDULERS] if comparable and not model.path.zero_terminal_snr else []
    finest = 4 * args.reference_steps + 1, 3 * args.reference_steps
    bench.total = args.count * ((len(runs) + len(schedulers)) * sum(bench.nfes) + sum(finest))
    print(f"{args.model}, {args.count} samples; diffusers {diffusers.__version__}, torch {torch.__version__}")
    print(f"{len(runs)} methods on grids, {len(schedulers)} schedulers: at most {bench.total} evaluations", flush=True)

    truth = bench.reference("reference", "rk4", finest[0], "log_snr")
    difference = errors(bench.reference("second reference", adams(4, "data", "log_snr"), finest[1], "angle"), truth)
    print(f"between the two references: median {median(difference):.6f}, RMS {rms(difference):.6f}\n", flush=True)
    groups: dict[tuple[str, ...], list[Entry]] = {}

    def save() -> None:
        """After every method, so that a run that is stopped leaves what it has measured."""
        if args.json:
            found = [asdict(e) for of in groups.values() for e in of]
            rows = [{k: v if v != math.inf else None for k, v in row.items()} for row in found]
            settings = {"model": args.model, "count": args.count, "reference_difference": difference.tolist()}
            args.json.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n")

    for name in schedulers:
        theirs = ("diffusers", (name,), "its own", "*" not in name)
        groups[(name,)] = bench.measure(theirs, truth, partial(bench.drive, name))
        save()
    for names, grid in runs:
        ours = ("ddim_ode", names, grid, grid == METHODS[names[0]].grid)
        run = partial(bench.sample, names[0], grid=grid, dtype=torch.float32)
        groups.setdefault(names, []).extend(bench.measure(ours, truth, run))
        save()
    entries = [e for of in groups.values() for e in of]
    text(groups, bench.nfes)
    markdown(groups, bench.nfes)
    verdict(entries, difference)
    if args.plot:
        plot(args.plot, groups)


if __name__ == "__main__":
    main()
