"""Encode real test images, decode them, and measure both: what comes back, and how far the latent is from the exact.

    python benchmarks/reconstruction.py [MODEL] [--json FILE] [--plot PNG] [--images 16] [--steps 10,20,50,...]

For every method and number of steps: the mean squared error on [0, 1] as in DDIM's Table 2, and the RMS distance of the
latent, a standard normal under the prior, from that of the exact ODE. Every method has the grid `near_image`, which is
the best we know for encoding, DDIM's included; "ddim, uniform" and its like are the published setting. The exact ODE is
adams4 in float64 on a fine grid; a second reference, of other slopes, steps and grid, tells how exact. From 200 steps
on, half the images are used. Results are saved after every row; an interrupted run goes on where it stopped.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import ddim_ode
from ddim_ode import data
from ddim_ode.errors import DDIMError
from ddim_ode.grids import make_grid

GRID = "near_image"
METHODS = (
    "ddim",
    "heun_angle",
    "dpmpp_2m",
    "fixed_point",
    "edict",
    "bdia",
    "belm",
    "reversible_heun",
    "leapfrog",
    "exact_heun",
)
STEPS = (10, 20, 50, 100, 200, 500, 1000)
TOLERANCES = (0.1, 0.03, 0.01, 0.003, 0.001)
MANY = 200  # steps, from which on half the images must do


@dataclass(frozen=True)
class Row:
    """One method with so many steps, or at one tolerance."""

    method: str
    grid: str
    at: float
    dtype: str
    images: int
    up: float = math.nan  # mean NFE
    down: float = math.nan
    mse: float = math.nan  # on [0, 1]
    exact: int = 0  # images that came back bit for bit
    latent: float = math.nan  # median over images of the RMS error of the latent
    single: float = math.nan  # mse where one state alone, `Latent.noise`, is decoded
    note: str = ""


class Bench:
    def __init__(self, model: ddim_ode.Denoiser, images: Tensor, labels: Tensor, file: Path | None):
        self.model, self.images, self.labels, self.file = model, images, labels, file
        self.begin = time.perf_counter()
        self.stored = json.loads(file.read_text()) if file and file.exists() else {}
        self.rows = [Row(**row) for row in self.stored.get("rows", ())]
        if "reference" not in self.stored:
            truth = self.exact("adams4", 1200, "log_snr")
            other = self.exact("adams3", 900, GRID)
            self.stored |= {"reference": truth.tolist(), "check": float(rms(truth - other).median())}
        self.truth = torch.tensor(self.stored["reference"], dtype=torch.float64)

    def exact(self, method: str, nfe: int, grid: str) -> Tensor:
        self.say(f"reference: {method}, NFE {nfe}")
        latent = ddim_ode.encode(
            self.model, self.images, method, nfe, labels=self.labels, grid=grid, dtype=torch.float64, batch_size=16
        )
        return latent.noise

    def say(self, what: str) -> None:
        print(f"{time.perf_counter() - self.begin:6.0f} s  {what}", file=sys.stderr, flush=True)

    def measure(self, method: str, grid: str, at: float, dtype: str = "float32") -> None:
        if any((row.method, row.grid, row.at, row.dtype) == (method, grid, at, dtype) for row in self.rows):
            return
        adaptive = ddim_ode.METHODS[method].adaptive
        count = len(self.images) // (2 if at >= MANY else 1)
        x, labels = self.images[:count], self.labels[:count]
        sigmas = None if adaptive else make_grid(grid, self.model.path, int(at), "sigma_min")
        row = Row(method, "" if adaptive else grid, at, dtype, count)
        try:
            found = ddim_ode.reconstruct(
                self.model,
                x,
                method,
                labels=labels,
                grid=sigmas,
                dtype=getattr(torch, dtype),
                tol=at if adaptive else None,
                batch_size=16,
            )
            single = math.nan
            if ddim_ode.METHODS[method].invertible and at < MANY:
                noise = found.latent.noise
                back = ddim_ode.sample(self.model, method, grid=sigmas, noise=noise, labels=labels, dtype=noise.dtype)
                single = float((back.x - x).div(2).square().mean())
            row = Row(
                *(method, row.grid, at, dtype, count),
                up=float(found.latent.nfe.double().mean()),
                down=float(found.solution.nfe.double().mean()),
                mse=float(found.mse.mean()),
                exact=int(found.bit_exact.sum()),
                latent=float(rms(found.latent.noise.double() - self.truth[:count]).median()),
                single=single,
            )
        except DDIMError as error:
            row = Row(method, row.grid, at, dtype, count, note=str(error).partition(";")[0])
        self.rows.append(row)
        self.say(f"{method}, {at:g}, {dtype}: mse {row.mse:.3g}, latent {row.latent:.3g} {row.note}")
        if self.file:
            self.file.write_text(json.dumps(self.stored | {"rows": [asdict(row) for row in self.rows]}))


def rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if 10 <= value < 10_000 else f"{value:.2g}"


def table(rows: list[Row], ats: tuple[float, ...], field: str) -> str:
    """A line a method, a column a number of steps or a tolerance."""
    lines = [f"| {field} | " + " | ".join(f"{at:g}" for at in ats) + " |", "|---" * (len(ats) + 1) + "|"]
    for method, grid in dict.fromkeys((row.method, row.grid) for row in rows):
        own = {row.at: row for row in rows if (row.method, row.grid) == (method, grid)}
        cells = [("diverges" if own[at].note else number(getattr(own[at], field))) if at in own else "" for at in ats]
        name = method if grid in ("", GRID) else f"{method}, {grid}"
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(rows: list[Row], check: float) -> None:
    fixed = [row for row in rows if row.grid and row.dtype == "float32"]
    steps = tuple(sorted({row.at for row in fixed}))
    print(f"reference: two solutions differ by {check:.1g} (median over images)\n")
    for field in ("mse", "latent", "single", "up", "down", "exact"):
        print(table(fixed, steps, field), "\n")
    adaptive = [row for row in rows if not row.grid]
    for field in ("mse", "latent", "up", "down"):
        print(table(adaptive, TOLERANCES, field), "\n")
    double = [row for row in rows if row.dtype == "float64"]
    for field in ("mse", "latent"):
        print("float64:\n" + table(double, tuple(sorted({row.at for row in double})), field), "\n")


def plot(rows: list[Row], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    fixed = [row for row in rows if row.grid and row.dtype == "float32" and not row.note]
    for method, grid in dict.fromkeys((row.method, row.grid) for row in fixed):
        own = sorted((row for row in fixed if (row.method, row.grid) == (method, grid)), key=lambda row: row.at)
        name = method if grid == GRID else f"{method}, {grid}"
        style = {"linewidth": 2.4 if own[0].exact else 1.2, "linestyle": "-" if grid == GRID else "--"}
        style |= {"color": f"C{METHODS.index(method)}", "marker": "o", "markersize": 3, "label": name}
        axes[0].plot([r.at for r in own], [max(r.mse, 1e-17) for r in own], **style)
        axes[1].plot([r.up for r in own], [r.latent for r in own], **style)
    axes[0].set(xlabel="steps", ylabel="MSE on [0, 1]", title="what comes back (drawn at 1e-17: the same bits)")
    axes[1].set(
        xlabel="NFE of encoding", ylabel="RMS error of the latent", title="how far the latent is from the ODE's"
    )
    for axis in axes:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylim(3e-18, 3)
    axes[1].set_ylim(1e-4, 3)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right", fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    arguments = parser.parse_args()
    images, labels = data.bundled_images()
    chosen = torch.linspace(0, len(images) - 1, arguments.images).long()
    bench = Bench(ddim_ode.load(arguments.model), data.to_float(images[chosen]), labels[chosen], arguments.json)
    for steps in map(int, arguments.steps.split(",")):
        for method in METHODS:
            bench.measure(method, GRID, steps)
        for method in ("ddim", "edict", "bdia", "belm"):
            if method == "ddim" or steps < MANY:
                bench.measure(method, "uniform", steps)
        if steps <= 100:
            for method in ("edict", "bdia", "belm", "reversible_heun"):
                bench.measure(method, GRID, steps, "float64")
    for tol in TOLERANCES:
        bench.measure("adaptive", GRID, tol)
    report(bench.rows, bench.stored["check"])
    if arguments.plot:
        plot(bench.rows, arguments.plot)


if __name__ == "__main__":
    main()
