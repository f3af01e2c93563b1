"""Restore real test images from what was measured of them, by every method, and measure how near they come.

    python benchmarks/inverse.py [MODEL] [--json docs/inverse.json] [--images 64] [--nfe 20] [--tasks ...] [--ways ...]
    python benchmarks/inverse.py --choose       # the methods' constants, on the other half of the images
    python benchmarks/inverse.py --picture docs/restore.png

The 300 test images of the package are shuffled once; the constants were chosen on the first half, the results are of
the second. Each row: PSNR and SSIM in the mean over images, and the RMS of y - A x over images and measured values,
which a right answer has equal to the noise. Labels are told. Rows are saved one by one, and are not measured again; the
table is of all that the file holds.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ddim_ode
from ddim_ode import data
from ddim_ode.inverse import Blur, BoxDownsampling, LinearOperator, Mask, restore
from ddim_ode.metrics.pairs import psnr, ssim
from ddim_ode.support.versions import circumstances

SIZE = (28, 28)
TASKS: dict[str, LinearOperator] = {
    "half": Mask.half(SIZE),
    "random 70%": Mask.random(SIZE, 0.7),
    "random 75%": Mask.random(SIZE, 0.75),
    "hole 14x14": Mask.box(SIZE, 14),
    "down 2x": BoxDownsampling(2),
    "down 4x": BoxDownsampling(4),
    "blur 1.5": Blur.gaussian(1.5),
}
NOISES = (0.0, 0.05)
#: a name -> method, solver and settings
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mmps": ("mmps", "ddim", {}),
    "mmps, dpmpp_2m": ("mmps", "dpmpp_2m", {}),
    "pigdm": ("pigdm", "ddim", {}),
    "ddnm": ("ddnm", "ddim", {}),
    "dps": ("dps", "ddim", {}),
    "repaint": ("repaint", "ddim", {}),
}
PLAIN = ("A+ y", "nearest", "bicubic")
CHOICES = {
    "pigdm": [{"highest": value} for value in (3.0, 10.0, 30.0, math.inf)],
    "dps": [{"scale": value} for value in (0.01, 0.03, 0.1, 0.3)],
    "repaint": [{"times": value} for value in (1, 2, 4)],
    "mmps": [{"prior_std": value} for value in (0.5, 1.0, 2.0)],
    "ddnm": [{"prior_std": value} for value in (0.5, 1.0, 2.0)],
}


@dataclass(frozen=True)
class Row:
    """A task, with or without noise, by one method at one budget."""

    task: str
    noise: float
    way: str
    nfe: int
    images: int
    psnr: float
    ssim: float
    residual: float
    seconds: float = 0.0


def halves() -> list[Tensor]:
    """Indices of the images on which constants are chosen, and of those that are reported on."""
    count = len(data.bundled_images()[0])
    return list(torch.randperm(count, generator=torch.Generator().manual_seed(0)).chunk(2))


def measured(operator: LinearOperator, x: Tensor, noise: float) -> Tensor:
    y = operator.apply(x)
    return y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))


def plain(name: str, operator: LinearOperator, y: Tensor, noise: float) -> Tensor | None:
    """What is done without a model; None where that has no meaning."""
    if name == "A+ y":
        return operator.pseudo_inverse(operator.seen(y), noise**2)
    if isinstance(operator, Mask) and name == "nearest":
        places = operator.known[0].nonzero().double()
        everywhere = torch.ones(SIZE).nonzero().double()
        source = places[torch.cdist(everywhere, places).argmin(1)].long()
        return y[..., source[:, 0], source[:, 1]].reshape(y.shape)
    if isinstance(operator, BoxDownsampling):
        return F.interpolate(y, size=SIZE, mode="nearest" if name == "nearest" else "bicubic")
    return None


def row(task: str, noise: float, way: str, nfe: int, x: Tensor, restored: Tensor, seconds: float = 0.0) -> Row:
    operator, clipped = TASKS[task], restored.clamp(-1, 1)
    residual = operator.residual(restored, measured(operator, x, noise)).square().mean().sqrt()
    scores = (float(psnr(clipped, x).mean()), float(ssim(clipped, x).mean()), float(residual))
    return Row(task, noise, way, nfe, len(x), *scores, seconds)


def say(begin: float, what: str) -> None:
    print(f"{time.perf_counter() - begin:6.0f} s  {what}", file=sys.stderr, flush=True)


def measure(model: ddim_ode.Denoiser, x: Tensor, labels: Tensor, arguments: argparse.Namespace) -> list[Row]:
    """All the rows asked for, and those that are in the file already."""
    file, begin = arguments.json, time.perf_counter()
    stored = json.loads(file.read_text()) if file and file.exists() else {}
    rows = [Row(**one) for one in stored.get("rows", ())]

    def keep(found: Row) -> None:
        rows.append(found)
        say(begin, f"{found.task}, {found.noise:g}, {found.way}, {found.nfe}: {found.psnr:.2f} dB")
        if file:
            facts = {"date": f"{date.today()}", "command": " ".join(sys.argv), **circumstances()}
            file.write_text(json.dumps(facts | {"rows": [asdict(one) for one in rows]}, indent=1) + "\n")

    known = {(one.task, one.noise, one.way, one.nfe) for one in rows}
    for nfe in arguments.nfe:
        for task in arguments.tasks:
            for noise in NOISES:
                operator, y = TASKS[task], measured(TASKS[task], x, noise)
                for name in PLAIN:
                    found = plain(name, operator, y, noise)
                    if found is not None and (task, noise, name, 0) not in known:
                        known.add((task, noise, name, 0))
                        keep(row(task, noise, name, 0, x, found))
                for name in arguments.ways:
                    method, solver, settings = WAYS[name]
                    if (task, noise, name, nfe) in known or (method == "repaint" and not isinstance(operator, Mask)):
                        continue
                    started = time.perf_counter()
                    how = {"method": method, "solver": solver, "nfe": nfe, "noise_std": noise, **settings}
                    restored = restore(model, y, operator, labels=labels, batch_size=32, **how).x
                    keep(row(task, noise, name, nfe, x, restored, time.perf_counter() - started))
    return rows


def choose(model: ddim_ode.Denoiser, x: Tensor, labels: Tensor, arguments: argparse.Namespace) -> None:
    """PSNR and residual of each value of a constant, over the tasks."""
    for name, values in CHOICES.items():
        method, solver, _ = WAYS[name]
        for settings in values:
            for noise in NOISES:
                tasks = [task for task in arguments.tasks if method != "repaint" or isinstance(TASKS[task], Mask)]
                cells = []
                for task in tasks:
                    y, how = measured(TASKS[task], x, noise), {"noise_std": noise, "nfe": arguments.nfe[0]}
                    found = restore(
                        model, y, TASKS[task], method=method, solver=solver, labels=labels, **how, **settings
                    )
                    one = row(task, noise, name, arguments.nfe[0], x, found.x)
                    cells.append(f"{one.psnr:.2f} / {one.residual:.3f}")
                print(f"| {name} {settings} | {noise:g} | " + " | ".join(cells) + " |", flush=True)


def table(rows: list[Row], field: str, noise: float) -> str:
    """A line a method and budget, a column a task."""
    tasks = [task for task in TASKS if any(one.task == task for one in rows)]
    lines = [f"| {field}, noise {noise:g} | NFE | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 2) + "|"]
    order = [*PLAIN, *WAYS]
    for way, nfe in sorted({(one.way, one.nfe) for one in rows}, key=lambda pair: (pair[1], order.index(pair[0]))):
        own = {one.task: one for one in rows if (one.way, one.nfe, one.noise) == (way, nfe, noise)}
        digits = 1 if field == "psnr" else 3
        cells = [f"{getattr(own[task], field):.{digits}f}" if task in own else "" for task in tasks]
        lines.append(f"| {way} | {nfe or ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(model: ddim_ode.Denoiser, x: Tensor, labels: Tensor, file: Path, nfe: int) -> None:
    """An image a task: truth, what was measured, and every method's answer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = ("half", "random 75%", "hole 14x14", "down 4x", "blur 1.5")
    ways = [way for way in WAYS if way != "mmps, dpmpp_2m"]
    titles = ["truth", "measured", *ways]
    figure, axes = plt.subplots(len(tasks), len(titles), figsize=(1.25 * len(titles), 7.2), layout="constrained")
    figure.suptitle(f"{nfe} NFE, noise 0.05", fontsize=11)
    for line, task, image, label in zip(axes, tasks, x, labels, strict=False):
        operator, image = TASKS[task], image[None]
        y = measured(operator, image, 0.05)
        shown = [image, plain("nearest", operator, y, 0.05) if task == "down 4x" else y]
        if isinstance(operator, Mask):
            shown[1] = torch.where(operator.known, y, 0)
        for name in ways:
            method, solver, settings = WAYS[name]
            fits = method != "repaint" or isinstance(operator, Mask)
            how = {"method": method, "solver": solver, "nfe": nfe, "noise_std": 0.05, **settings}
            shown.append(restore(model, y, operator, labels=[int(label)], **how).x if fits else None)
        line[0].set_ylabel(task, fontsize=9)
        for axis, title, picture in zip(line, titles, shown, strict=True):
            axis.set(xticks=[], yticks=[])
            if task == tasks[0]:
                axis.set_title(title, fontsize=9)
            if picture is None:
                axis.set_frame_on(False)
                continue
            axis.imshow(data.to_uint8(picture)[0, 0], cmap="gray", vmin=0, vmax=255)
            if title not in ("truth", "measured"):
                axis.set_xlabel(f"{float(psnr(picture.clamp(-1, 1), image)):.1f} dB", fontsize=8)
    figure.savefig(file, dpi=110)


def names(known: dict[str, Any]) -> Any:
    """Of an option: names in a table between semicolons, as some have commas."""

    def parse(text: str) -> list[str]:
        found = [name.strip() for name in text.split(";")]
        if wrong := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {'; '.join(known)}")
        return found

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=64, help="of the second half, at most 150")
    parser.add_argument("--nfe", type=lambda text: [int(part) for part in text.split(",")], default=[20])
    parser.add_argument("--tasks", type=names(TASKS), default=list(TASKS), help="between semicolons")
    parser.add_argument("--ways", type=names(WAYS), default=list(WAYS), help="between semicolons")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    model, (images, labels) = ddim_ode.load(arguments.model), data.bundled_images()
    chosen = halves()[0 if arguments.choose else 1][: arguments.images]
    x, labels = data.to_float(images[chosen]), labels[chosen]
    if arguments.choose:
        choose(model, x, labels, arguments)
    elif arguments.picture:
        draw(model, x, labels, arguments.picture, arguments.nfe[0])
    else:
        rows = measure(model, x, labels, arguments)
        for noise in NOISES:
            for field in ("psnr", "ssim", "residual"):
                print(table(rows, field, noise), "\n")


if __name__ == "__main__":
    main()
