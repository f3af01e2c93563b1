"""What tuning gives on a network: on fresh seeds, to the eye, on what it was not tuned to, and beside others' ideas.

    python benchmarks/tuning.py [MODEL] [--only fresh seen guided transfer grids] [--out runs/tuning]

The model has a tuned.json beside it, as the bundled one. Errors are the RMS over a sample against `adaptive` at a
tolerance of 2e-4 in a float64 state, given as median / RMS over the samples.

    fresh     seeds that were held out, and 256 others
    seen      512 samples as byte images: Frechet distance to the flow's own, and the share that is recognised
    guided    a table tuned at guidance 3
    transfer  the tables of guidance 1 at 1.5, on the null class and in bfloat16; and a table tuned on half the classes
    grids     grids for methods of ours, at like costs: moved by forward passes to where the images miss least, which
              is LD3's aim (Tong et al. 2024), and found by dynamic programming, as in GITS (Chen et al. 2024)

Images and tables are kept in the folder --out, results in its results.json: a run that was cut short goes on from
there. All of it takes some 400,000 network passes, more than half an hour of a core.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import ddim_ode
from ddim_ode.data import to_uint8
from ddim_ode.metrics.fashion import extract, load_fashion_features
from ddim_ode.metrics.frechet import frechet_distance
from ddim_ode.paths import angle, f64
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.tuned_files import tuned_to
from ddim_ode.solvers import METHODS, Method
from ddim_ode.support.files import replacing
from ddim_ode.tuning.problem import Asked, Trajectories, missed, size_of, solved
from ddim_ode.tuning.task import TuneProgress, steps_for

FEW = range(1000, 1032)  # to tune on
HELD_OUT = range(64)
TOL = 2e-4  # of what errors are counted from
FRESH = range(10_000, 10_256)
MORE = range(10_256, 10_512)
JUDGES = range(2000, 2016)  # held out of a tuning whose errors are measured on others anyway
NFES = (4, 5, 6, 8, 10)
OTHERS = ("unipc_2", "adams4", "adaptive")
SEEN = "512 samples as they are seen"
PASSES = "Network passes of tuning"
GUIDED = 40_000  # passes on the table of guidance 3, less than the default
LIKE = 8000  # passes on each budget of a grid, as many as least squares alone may take on a table


def rounded(model: ddim_ode.Denoiser) -> ddim_ode.Denoiser:
    """The model with its network under autocast to bfloat16, as `fast` has it, and not compiled."""

    def net(x: Tensor, *rest: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return model.net(x, *rest).to(x.dtype)

    return replace(model, net=net)


@dataclass(frozen=True)
class Where:
    """Seeds, and how they are sampled. labelled: the class is seed % classes, otherwise the null class."""

    seeds: range
    guidance: float = 1.0
    labelled: bool = True
    rounded: bool = False

    def __str__(self) -> str:
        guided = f"-guidance{self.guidance:g}" if self.guidance != 1 else ""
        return f"{self.seeds.start}{guided}{'' if self.labelled else '-null'}{'-bf16' if self.rounded else ''}"


@dataclass(frozen=True)
class Row:
    """A cell of a table: what was measured of a method at a budget."""

    table: str
    name: str
    nfe: int
    values: Mapping[str, float]


class Bench:
    def __init__(self, model: ddim_ode.Denoiser, folder: Path):
        self.model, self.folder, self.began = model, folder, time.perf_counter()
        self.forced = tuned_to(model, force=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "results.json"
        self.rows = [Row(**row) for row in json.loads(self.file.read_text())] if self.file.exists() else []

    def say(self, what: str) -> None:
        print(f"{time.perf_counter() - self.began:6.0f} s  {what}", file=sys.stderr, flush=True)

    def add(self, table: str, name: str, nfe: int, make: Callable[[], Mapping[str, float]]) -> None:
        """A cell, unless it is there."""
        if any((row.table, row.name, row.nfe) == (table, name, nfe) for row in self.rows):
            return
        self.rows.append(row := Row(table, name, nfe, make()))
        with replacing(self.file) as tmp:
            tmp.write(json.dumps([asdict(row) for row in self.rows], indent=1).encode())
        self.say(f"{table}: {name}, {nfe}: {row.values}")

    def images(self, where: Where, name: str, method: str | Method, nfe: int | None = None, **choices: Any) -> Tensor:
        """What a method makes of the seeds, kept in a file of that name."""
        file = self.folder / f"{where}-{name}{'' if nfe is None else f'-{nfe}'}.safetensors"
        if not file.exists():
            model = rounded(self.model) if where.rounded else self.model
            labels = torch.tensor(where.seeds) % model.num_classes if where.labelled else None
            choices = {"nfe": nfe, "guidance": where.guidance, "labels": labels, "dtype": torch.float64} | choices
            found = ddim_ode.sample(model, method, seeds=where.seeds, **choices)
            save_file({"x": found.x.float()}, file)
            self.say(f"{file.stem}: {float(found.nfe.double().mean()):.1f} evaluations")
        return load_file(file)["x"]

    def reference(self, where: Where) -> Tensor:
        return self.images(replace(where, rounded=False), "reference", "adaptive", tol=TOL, max_nfe=5000)

    def errors(
        self, where: Where, name: str, method: str | Method, *, of: Tensor | slice = slice(None), **choices: Any
    ) -> dict[str, float]:
        """What a method misses, on some of the seeds."""
        errors = missed(self.images(where, name, method, **choices), self.reference(where))[of]
        return {"median": float(errors.median()), "RMS": float(errors.square().mean().sqrt())}


def fresh(bench: Bench) -> None:
    for title, where in (("Seeds 0 to 63", Where(HELD_OUT)), ("256 fresh seeds", Where(FRESH))):
        for nfe in (*NFES, 20):
            for name in ("tuned", *OTHERS):
                bench.add(title, name, nfe, partial(bench.errors, where, name, name, nfe=nfe))


def seen(bench: Bench) -> None:
    net, blocks = load_fashion_features(), (Where(FRESH), Where(MORE))
    labels = torch.tensor([*FRESH, *MORE]) % bench.model.num_classes
    exact = extract(net, to_uint8(torch.cat([bench.reference(where) for where in blocks])))

    def looked(features: Tensor) -> dict[str, float]:
        right = (net.classes(features.relu()).argmax(1) == labels).double().mean()
        return {"Frechet distance": frechet_distance(features, exact), "recognised": float(right)}

    def drawn(name: str, nfe: int) -> dict[str, float]:
        x = torch.cat([bench.images(where, name, name, nfe) for where in blocks])
        return looked(extract(net, to_uint8(x)))

    for name, nfes in [("tuned", NFES), *((name, NFES) for name in OTHERS), ("dpmpp_2m", (50,))]:
        for nfe in nfes:
            bench.add(SEEN, name, nfe, partial(drawn, name, nfe))
    bench.add(SEEN, "reference", 100, partial(looked, exact))


def tuned(bench: Bench, name: str, nfe: Sequence[int], **choices: Any) -> Method:
    """Tune, with a file of that name; what it costs goes into a table of its own."""

    def told(progress: TuneProgress) -> None:
        if progress.doing == "done" and not progress.nfe:
            bench.add(PASSES, f"{name}: what all budgets share", 0, partial(dict, passes=progress.evaluations))
        elif progress.error is not None:
            bench.say(f"{name}: {progress.nfe} {progress.doing} {progress.error:.4f}, {progress.evaluations} passes")

    file = bench.folder / f"{name.replace(' ', '-')}.json"
    method = ddim_ode.tune(bench.model, nfe, out=file, callback=told, **choices)
    assert method.origin
    for result in method.origin.results:
        bench.add(PASSES, name, result.predictions, partial(dict, passes=result.evaluations))
    return method


def guided(bench: Bench) -> None:
    method = tuned(bench, "guidance 3", (16,), guidance=3.0, budget=GUIDED)
    assert method.origin
    (result,) = method.origin.results
    for name, errors in (("tuned", result.errors), *result.others):
        bench.add("Guidance 3, tuned there", name, result.predictions, errors._asdict)


def transfer(bench: Bench) -> None:
    for title, where, each in (
        ("Guidance 1.5 with the tables of 1, predictions of two passes", Where(HELD_OUT, guidance=1.5), 2),
        ("The null class with the tables of all classes", Where(HELD_OUT, labelled=False), 1),
        ("A network in bfloat16 with the tables of float32", Where(HELD_OUT, rounded=True), 1),
    ):
        for count in (5, 8):
            for name, method in (("tuned", bench.forced), ("adaptive", "adaptive")):
                bench.add(title, name, count, partial(bench.errors, where, name, method, nfe=each * count))
    half, title = (
        tuned(bench, "half the classes", (5,), labels=range(5), held_out=JUDGES),
        "Classes 5 to 9, fresh seeds",
    )
    others = torch.tensor(FRESH) % bench.model.num_classes >= 5
    bench.add(title, "tuned on all", 5, partial(bench.errors, Where(FRESH), "tuned", "tuned", nfe=5, of=others))
    bench.add(title, "tuned on classes 0 to 4", 5, partial(bench.errors, Where(FRESH), "half", half, nfe=5, of=others))


def lattice(bench: Bench) -> tuple[Tensor, Tensor]:
    """Sigmas (K,), down to 0, and what a step of DDIM from each to each later one misses (K, K), in the mean.

    The error is that of the state on the angle path, after a step from where the flow is (Chen et al. 2024, "On the
    Trajectory Regularity of ODE-based Diffusion Sampling", where it is that of xbar).
    """
    asked, labels = Asked(bench.model, 128), torch.tensor(FEW) % bench.model.num_classes
    samples = solved(asked, FEW, labels, SolveOptions(), size_of(asked, FEW, labels, SolveOptions()))
    shared, way = asked.passes, Trajectories(asked, samples)
    sigmas, states = torch.cat([way.u.exp(), f64([0.0])]), torch.stack([*way.states, samples.x.float()])
    wide = sigmas.reshape(-1, *[1] * samples.x.ndim)
    misses = torch.full((len(sigmas), len(sigmas)), torch.inf, dtype=torch.float64)
    for i, u in enumerate(way.u.tolist()):
        image, later = asked.image(states[i], u, labels), slice(i + 1, None)
        noise = (states[i].double() / angle.scale(wide[i]) - image) / wide[i]
        there = angle.scale(wide[later]) * (image + wide[later] * noise)
        misses[i, later] = (there - states[later]).flatten(2).square().mean(2).sqrt().mean(1)
    bench.add(PASSES, "dynamic programming", 0, partial(dict, passes=asked.passes - shared))
    return sigmas, misses


def shortest(sigmas: Tensor, misses: Tensor, steps: int) -> tuple[float, ...]:
    """The grid of so many steps whose errors have the least sum, by dynamic programming."""
    least, before = misses[0], list[Tensor]()
    for _ in range(steps - 1):
        least, come = (least[:, None] + misses).min(0)
        before.append(come)
    path = [len(sigmas) - 1]
    for come in reversed(before):
        path.append(int(come[path[-1]]))
    return tuple(sigmas[[0, *reversed(path)]].tolist())


def grids(bench: Bench) -> None:
    where, budgets, title = Where(HELD_OUT), (6, 10), "At like costs: grids, and tables"
    moved = tuned(bench, "grid of adams3", budgets, grid_only="adams3", budget=LIKE, seeds=FEW, held_out=JUDGES)
    greedy = tuned(bench, "greedy tables", budgets, refine=False, seeds=FEW, held_out=JUDGES)
    sigmas, misses = lattice(bench)
    for nfe in budgets:
        for name in ("ddim", "adams3"):
            grid = shortest(sigmas, misses, steps_for(Asked(bench.model, 128), METHODS[name], nfe)[0])
            bench.say(f"{name}, {nfe}: {', '.join(f'{sigma:.3g}' for sigma in grid)}")
            bench.add(title, f"{name}, its own grid", nfe, partial(bench.errors, where, name, name, nfe=nfe))
            best = partial(bench.errors, where, f"{name}-shortest-{nfe}", name, grid=grid)
            bench.add(title, f"{name}, dynamic programming", nfe, best)
        for name, key, method in (
            ("adams3, grid tuned", "adams3-moved", moved),
            ("table, greedy", "greedy", greedy),
            ("table, refined", "tuned", "tuned"),
        ):
            bench.add(title, name, nfe, partial(bench.errors, where, key, method, nfe=nfe))


SECTIONS = {"fresh": fresh, "seen": seen, "guided": guided, "transfer": transfer, "grids": grids}


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def markdown(rows: Sequence[Row]) -> str:
    """A table for each title: a line a method, a column a budget."""
    parts = []
    for title in dict.fromkeys(row.table for row in rows):
        own = [row for row in rows if row.table == title]
        nfes = sorted({row.nfe for row in own})
        cells = {(row.name, row.nfe): " / ".join(map(number, row.values.values())) for row in own}
        lines = [
            f"### {title}",
            "",
            f"| {' / '.join(own[0].values)} | {' | '.join(str(nfe or 'all') for nfe in nfes)} |",
        ]
        lines.append("|---" * (len(nfes) + 1) + "|")
        for name in dict.fromkeys(row.name for row in own):
            lines.append(f"| {name} | {' | '.join(cells.get((name, nfe), '') for nfe in nfes)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS], help="sections (all)")
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"), metavar="FOLDER", help="(runs/tuning)")
    args = parser.parse_args()
    bench = Bench(ddim_ode.load(args.model), args.out)
    for name in args.only:
        SECTIONS[name](bench)
    print(markdown(bench.rows))


if __name__ == "__main__":
    main()
