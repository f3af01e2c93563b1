"""How accurate is every method for what it costs? Trajectory error at equal measured NFE, ours and diffusers'.

python benchmarks/accuracy_at_nfe.py [MODEL] [--count N] [--nfe N ...] [--methods M ...] [--grids G ...]
    [--reference-steps N] [--json FILE] [--plot PNG]

The error of a sample is the RMS over its pixels against a reference solution of the same ODE from the same noise.
Seeds 0..N-1, classes in turn, float32 state, the last evaluation denoises. Every method runs on its default grid and on
--grids; what is one solver under several names runs once. accuracy_report.py prints the result and says how to read it;
--json is written after every method, so that a run that is stopped leaves what it has measured.

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
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import diffusers
import numpy as np
import torch
from accuracy_report import FAR, Entry, Run, tell
from torch import Tensor

import ddim_ode
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.paths import DiscreteVP
from ddim_ode.planning.inputs import SampleError, seeded_noise
from ddim_ode.solvers import METHODS, DivergedError, Method, adams

FIXED = {name: row for name, row in METHODS.items() if row.deterministic and not row.adaptive}
NFES = (5, 8, 10, 15, 20, 50)
# Not "quadratic", which begins at 0.8 T: on a cosine schedule that is sigma = 3, and costs any method an error of 0.7.
GRIDS = ("uniform", "trailing", "trailing_angle", "log_snr", "karras")
PREDICTION_TYPES = {"velocity": "v_prediction", "noise": "epsilon", "data": "sample"}
NAMES = "DDIM PNDM DPMSolverMultistep DPMSolverSinglestep UniPCMultistep DEISMultistep EulerDiscrete HeunDiscrete"
SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    **{f"{name}Scheduler": {} for name in f"{NAMES} LMSDiscrete KDPM2Discrete".split()},
    "DDIMScheduler*, no clipping": {"clip_sample": False},
}
Line = tuple[str, tuple[str, ...], str, bool]  # an Entry's source, names, grid and default
Job = Callable[[int], tuple[Tensor, int]]  # from a budget, samples and their NFE


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

    def measure(self, line: Line, truth: Tensor, job: Job) -> list[Entry]:
        """One entry a budget."""
        entries = []
        for budget in self.nfes:
            try:
                x, nfe = job(budget)
                e = errors(x, truth)
                numbers = {"median": median(e), "rms": rms(e), "far": float((e > FAR).double().mean())}
                note = "" if e.isfinite().all() else "diverged"
                entries.append(Entry(*line, budget, nfe, **({"note": note} if note else numbers)))
            except (DivergedError, NonFiniteError):
                entries.append(Entry(*line, budget, note="diverged"))
            except DDIMError as error:
                entries.append(Entry(*line, budget, note=str(error)))
        self.report(f"{line[1][0]}, {line[2]}", sum(self.nfes))
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--count", type=int, default=64, help="samples (64)")
    parser.add_argument("--nfe", type=int, nargs="+", default=NFES, metavar="N", help="budgets of evaluations")
    parser.add_argument("--methods", nargs="*", default=[*FIXED], metavar="M", help="of ddim_ode (all on grids)")
    parser.add_argument("--grids", nargs="*", default=GRIDS, metavar="G", help="besides the default ones")
    parser.add_argument("--reference-steps", type=int, default=300, metavar="N", help="4N+1 and 3N evaluations (300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every entry to this file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the errors on default grids")
    args = parser.parse_args()
    for option, known in (("method", FIXED), ("grid", ddim_ode.GRIDS)):
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

    jobs: list[tuple[Line, Job]] = [
        (("diffusers", (name,), "its own", "*" not in name), partial(bench.drive, name)) for name in schedulers
    ]
    for names, grid in runs:
        ours = ("ddim_ode", names, grid, grid == METHODS[names[0]].grid)
        jobs.append((ours, partial(bench.sample, names[0], grid=grid, dtype=torch.float32)))
    found = Run(args.model, args.count, difference.tolist(), [])
    for line, job in jobs:
        found.rows.extend(bench.measure(line, truth, job))
        if args.json:
            found.write(args.json)
    tell(found, args.plot)


if __name__ == "__main__":
    main()
