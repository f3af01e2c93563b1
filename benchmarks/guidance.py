"""Guidance of the bundled `fashion` model at one cost: classes asked of a network that is told none, against its own.

    python benchmarks/guidance.py [--json docs/guidance.json] [--picture docs/guidance.png] [--nfe 50] [--count 160]

Every row costs the same, 50 evaluations a sample by default, a classifier's gradient counted as one (about 8 minutes on
a free core). Scales are chosen on one half of the seeds: of those under which the metrics' classifier, which is not the
one that guides, recognises 92% of the samples or more, the one with the largest recall; where none does, the one that
is recognised most. Rows are of the other half. Recall is the share of as many test images that lie on the manifold of
the samples: what variety is left. Results are saved after every row; a run that was cut short goes on from there.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from torch import Tensor

import ddim_ode
from ddim_ode.data import fashion_mnist, save_grid, to_float
from ddim_ode.grids import make_grid
from ddim_ode.metrics import feature_space, precision_recall, quality
from ddim_ode.models.classifier import load_classifier
from ddim_ode.models.denoiser import Model
from ddim_ode.models.guidance import (
    Guided,
    GuidedByClassifier,
    GuidedByLoss,
    GuidedByProjection,
    Unconditional,
    cost,
)
from ddim_ode.support.files import replacing
from ddim_ode.support.versions import circumstances

METHOD, CLASSES, ENOUGH = "dpmpp_2m", 10, 0.92
TESTED, TIMES = 2000, (0, 200, 400, 500, 600, 700, 800, 900, 950, 999)  # images, and the noise that they are given
MIDDLE = (0.3, 15.0)  # sigmas between which it is decided what a sample shows


@dataclass(frozen=True)
class Row:
    """One guidance on one half of the seeds. Costs are of one sample; seconds are a processor's, of all samples."""

    half: str
    name: str
    scale: float | None
    nfe: int
    passes: int
    gradients: int
    recognised: float
    recall: float
    precision: float
    frechet: float
    seconds: float


def symmetry(data: Tensor) -> Tensor:
    """How far an image is from its mirror image, (B,)."""
    return (data - data.flip(-1)).square().flatten(1).sum(1)


class Bench:
    """The models that are compared, and the rows that there are so far."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.file = arguments, arguments.json
        self.model, self.classifier = ddim_ode.load("fashion"), load_classifier("fashion")
        self.space = feature_space("fashion", self.model.shape)
        self.real = fashion_mnist("test", arguments.data)[0]
        settings = {"method": METHOD, "nfe": arguments.nfe, "count": arguments.count}
        stored = json.loads(self.file.read_text()) if self.file and self.file.exists() else {"settings": settings}
        if stored["settings"] != settings:
            raise SystemExit(f"{self.file} is of {stored['settings']}; give another --json, or remove it")
        self.rows = [Row(**row) for row in stored.get("rows", [])]
        self.record = {
            "settings": settings,
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
            "machine": platform.processor() or platform.machine(),
            **circumstances(),
        }

    def candidates(self, name: str) -> dict[float, Model]:
        """A kind of guidance by its scales."""
        alone = Unconditional(self.model)
        if name == "classifier":
            return {s: GuidedByClassifier(alone, self.classifier, s) for s in (3.0, 4.0, 6.0)}
        if name == "classifier, middle":
            return {s: GuidedByClassifier(alone, self.classifier, s, MIDDLE) for s in (5.0, 8.0, 12.0)}
        assert name == "classifier-free"
        return {s: Guided(self.model, s) for s in (1.5, 2.5)}

    def measure(self, half: str, name: str, scale: float | None, model: Model, **steering: Any) -> Row:
        """Sample one half of the seeds, and score it against as many test images of that half."""
        found = next((row for row in self.rows if (row.half, row.name, row.scale) == (half, name, scale)), None)
        if found:
            return found
        count = self.arguments.count
        seeds = range(count) if half == "chosen on" else range(count, 2 * count)
        asked = torch.arange(count) % CLASSES
        start = time.process_time()
        steering = {"method": METHOD, "nfe": self.arguments.nfe, "labels": asked} | steering
        solution = ddim_ode.sample(model, seeds=seeds, batch_size=100, **steering)
        seconds = time.process_time() - start
        spent = [cost(model, sigma) for sigma in solution.sigmas[:-1].tolist()]
        assert sum(each.evaluations for each in spent) == int(solution.nfe.max())
        score = quality(solution.x, asked, self.arguments.data)
        near = precision_recall(self.space(solution.x), self.space(self.real[seeds.start : seeds.stop]))
        row = Row(
            half=half,
            name=name,
            scale=scale,
            nfe=int(solution.nfe.max()),
            passes=sum(each.passes for each in spent),
            gradients=sum(each.gradients for each in spent),
            recognised=score.recognised or 0.0,
            recall=near.recall,
            precision=near.precision,
            frechet=score.frechet,
            seconds=seconds,
        )
        self.rows.append(row)
        print(f"{half}: {line(row)}", file=sys.stderr, flush=True)
        self.save()
        return row

    def chosen(self, name: str) -> tuple[float, Model]:
        """The scale of a kind, by the first half of the seeds."""
        models = self.candidates(name)
        rows = [self.measure("chosen on", name, scale, model) for scale, model in models.items()]
        enough = [row for row in rows if row.recognised >= ENOUGH]
        best = max(enough, key=lambda row: row.recall) if enough else max(rows, key=lambda row: row.recognised)
        assert best.scale is not None
        return best.scale, models[best.scale]

    def run(self) -> list[Row]:
        """The rows of the second half."""

        reported = partial(self.measure, "reported on")
        found = [reported("no label", None, self.model, labels=None), reported("label", None, self.model)]
        for name in ("classifier", "classifier, middle", "classifier-free"):
            found.append(reported(name, *self.chosen(name)))
        free, _ = self.chosen("classifier-free")
        found.append(reported("classifier-free, rescaled 0.7", free, Guided(self.model, free, rescale=0.7)))
        found.append(reported("projected", free, GuidedByProjection(self.model, free)))
        steps = make_grid("log_snr", self.model.path, self.arguments.nfe // 2, "denoise")
        alike = {"method": "ddim", "grid": steps, "nfe": None}
        found.append(reported("CFG++, ddim", 0.6, Guided.plus_plus(self.model, 0.6, steps), **alike))
        found.append(reported("label and classifier", 1.0, GuidedByClassifier(self.model, self.classifier, 1.0)))
        return found

    @torch.no_grad()
    def accuracy(self) -> dict[int, tuple[float, float, float]]:
        """By time: sigma, and of the classifier that guides the accuracy and the mean largest probability."""
        found, (images, labels) = {}, fashion_mnist("test", self.arguments.data)
        x, labels = to_float(images[:TESTED]), labels[:TESTED]
        eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        for time_step in TIMES:
            sigma = self.model.path.sigma(torch.tensor(float(time_step), dtype=torch.float64))
            batches = (x + float(sigma) * eps).split(250)
            shares = torch.cat([self.classifier(batch, sigma) for batch in batches]).softmax(1)
            right = float((shares.argmax(1) == labels).double().mean())
            found[time_step] = float(sigma), right, float(shares.max(1).values.double().mean())
        return found

    def save(self) -> None:
        """Write what there is to the file."""
        if self.file:
            with replacing(self.file) as new:
                text = json.dumps({**self.record, "rows": [asdict(row) for row in self.rows]}, indent=1)
                new.write(text.encode() + b"\n")

    def picture(self, file: Path) -> None:
        """One column a class and one seed a column; a row for each guidance."""
        labels, nfe = torch.arange(CLASSES), self.arguments.nfe
        rows: list[tuple[Model, dict[str, Any]]] = [
            (self.model, {}),
            (GuidedByClassifier(Unconditional(self.model), self.classifier, 1.0), {"labels": labels}),
            (self.chosen("classifier, middle")[1], {"labels": labels}),
            (self.chosen("classifier-free")[1], {"labels": labels}),
            (GuidedByLoss(self.model, symmetry, 0.02), {"labels": labels}),
        ]
        drawn = [ddim_ode.sample(model, METHOD, nfe, range(CLASSES), **told).x for model, told in rows]
        save_grid(torch.cat(drawn), file, columns=CLASSES)


def line(row: Row) -> str:
    scale = "" if row.scale is None else f"{row.scale:g}"
    spent = f"{row.nfe} = {row.passes} + {row.gradients}"
    scores = f"{row.recognised:.1%} | {row.recall:.1%} | {row.precision:.1%} | {row.frechet:.1f}"
    return f"| {row.name} | {scale} | {spent} | {scores} | {row.seconds:.0f} |"


def table(rows: list[Row]) -> str:
    """Rows in Markdown."""
    head = "| guidance | scale | NFE = passes + gradients | recognised | recall | precision | Frechet | seconds |"
    return "\n".join([head, "|---" * 8 + "|", *map(line, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows in this file")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw samples under each guidance")
    parser.add_argument("--nfe", type=int, default=50, help="evaluations a sample may cost (50)")
    parser.add_argument("--count", type=int, default=160, help="samples of each half, a multiple of 10 (160)")
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST IDX files")
    arguments = parser.parse_args()
    if arguments.count < CLASSES or arguments.count % CLASSES:
        parser.error(f"--count {arguments.count} cannot be split over {CLASSES} classes; use a multiple of {CLASSES}")
    torch.set_num_threads(1)
    bench = Bench(arguments)
    print(table(bench.run()))
    bench.record["accuracy"] = accuracy = bench.accuracy()
    bench.save()
    print("\n| t | sigma | accuracy | mean of the largest probability |\n|---|---|---|---|")
    for time_step, (sigma, right, sure) in accuracy.items():
        print(f"| {time_step} | {sigma:.3g} | {right:.1%} | {sure:.1%} |")
    if arguments.picture:
        bench.picture(arguments.picture)


if __name__ == "__main__":
    main()
