"""What works with which pipelines of diffusers: every one of the zoo in tests/helpers/pipelines, tiny and random.

python benchmarks/pipelines.py [NAME ...] [--out FILE]

It takes about 3 minutes on one core. --out writes the table into a file, between the
lines `<!-- table -->` and `<!-- end -->` where it has them. What is in the columns:

    own method   the method here that the pipeline's scheduler is, and how far its image is from the scheduler's own,
                 relative, both with 5 steps
    adaptive     calls of `adaptive` at tol 0.02, its error (RMS against tol 0.001), and the error of the pipeline's own
                 scheduler with as many calls, where that draws no noise and begins with nothing but noise, as ours does
    as a model   passes of the network for one prediction of `from_pipeline`
"""

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.utils import logging
from torch import Tensor

from ddim_ode.integrations.diffusers import ODEScheduler
from tests.helpers.pipelines import ZOO, Tiny
from tests.helpers.pipelines.driving import Counted, as_model, counterpart, run

STEPS, TOL, FINE, MOST = 5, 0.02, 0.001, 300
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
HEAD = (
    "pipeline",
    "its scheduler",
    "own method",
    "differs by",
    "adaptive: calls",
    "error",
    "own scheduler",
    "as a model",
)
SHORT = {  # words of what is refused, and how the table has them
    "is of no kind that is known here": "another process than an ODE known here",
    "sigma_data=": "another process than its config says",
    "was changed in between": "changes its samples between steps",
    "or changes them between steps": "changes its samples between steps",
    "denoising_end stops": "stops on its way",
    "where it is the turn": "several schedulers at once",
    "steps with copies of its scheduler": "several schedulers at once",
    "under way cannot be copied": "copies its scheduler on the way",
    "has timesteps of its own": "copies its scheduler on the way",
    "answers otherwise": "depends on the number of steps",
    "changes its networks": "changes its networks on the way",
    "counts the steps": "counts its scheduler's steps itself",
    "per_token_timesteps": "a time for each token",
    "has no ": "reads more off its scheduler",
    "original_steps": "50 steps at most",
    "`mu` must be passed": "knows its own scheduler alone",
    "no step of": "begins within its start",
}


class Row(NamedTuple):
    """A line of the table. equal, adaptive and model: whether each of the three was had."""

    cells: tuple[str, ...]
    equal: bool
    adaptive: bool
    model: bool


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def reason(error: Exception) -> str:
    said = str(error)
    return next((f"*{short}*" for words, short in SHORT.items() if words in said), f"*{said.partition(';')[0][:80]}*")


def own_method(tiny: Tiny) -> tuple[str, str, bool]:
    """Its name, the relative difference of its image to the own scheduler's, and whether there is nearly none."""
    own = tiny.pipe.scheduler
    found = counterpart(own, STEPS)
    try:
        if found is None:
            run(tiny, ODEScheduler.from_scheduler(own, method="ddim"), STEPS)
            return "", "", False
        method, calls = found
        image = run(tiny, ODEScheduler.from_scheduler(own, method=method), calls)
    except (ValueError, AttributeError) as error:
        return "", reason(error), False
    expected = run(tiny, own, STEPS)
    away = rms(image - expected) / rms(expected)
    return f"`{method}`", f"{away:.0e}", away < 2e-3


def adaptively(tiny: Tiny) -> tuple[str, str, str, bool]:
    """Calls, error, and the error of the own scheduler with as many; and whether the run converged."""
    own = tiny.pipe.scheduler
    coarse, fine = (ODEScheduler.from_scheduler(own, method="adaptive", tol=tol) for tol in (TOL, FINE))
    image, truth = run(tiny, coarse, MOST), run(tiny, fine, MOST)
    begin = coarse.begin_index or 0
    calls = (coarse.step_index or 0) - begin
    if not fine.converged:
        return "*too rough*", "", "", False
    error = f"{rms(image - truth):.4f}"
    paid = [n for n in range(1, calls + 1) if (method := counterpart(own, n)) and method[1] <= calls]
    if begin or not paid:
        return str(calls), error, "", True
    steps = paid[-1]
    return str(calls), error, f"{rms(run(tiny, own, steps) - truth):.4f}", True


def row(name: str) -> Row:
    tiny = ZOO[name]()
    own = tiny.pipe.scheduler
    words = (type(tiny.pipe).__name__.removesuffix("Pipeline"), type(own).__name__.removesuffix("Scheduler"))
    if name == "skyreels_forcing":  # where diffusers' UniPC corrects a sample that the pipeline has overwritten
        tiny.pipe.scheduler = DPMSolverMultistepScheduler.from_config(own.config)
    method, away, equal = own_method(tiny)
    try:
        *cells, converged = adaptively(tiny)
    except (ValueError, AttributeError) as error:
        cells, converged = ["" if reason(error) == away else reason(error), "", ""], False
    try:
        model = as_model(tiny)
        with Counted(tiny) as counted:
            model(torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0)), 1.0)
        passes, asked = str(counted.passes), True
    except (ValueError, AttributeError, TypeError) as error:
        passes, asked = "" if reason(error) == away else reason(error), False
    return Row((*words, method, away, *cells, passes), equal, converged, asked)


def table(rows: list[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *sorted(row.cells for row in rows)]
    return "".join("| " + " | ".join(cell) + " |\n" for cell in lines)


def write(path: Path, text: str) -> None:
    """Into the file, or between its marks."""
    before = path.read_text() if path.exists() else ""
    if BEGIN in before and END in before:
        text = before[: before.index(BEGIN) + len(BEGIN)] + "\n" + text + "\n" + before[before.index(END) :]
    path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*ZOO, []], help="of the zoo (default: all)")
    parser.add_argument("--out", type=Path)
    asked: Any = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    rows = []
    for name in asked.names or ZOO:
        rows.append(row(name))
        print(name, *rows[-1].cells, sep="  ", file=sys.stderr, flush=True)
    counts = (sum(getattr(row, field) for row in rows) for field in ("equal", "adaptive", "model"))
    print("{} pipelines: {} equal, {} adaptive, {} as models".format(len(rows), *counts))
    if asked.out:
        write(asked.out, table(rows))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
