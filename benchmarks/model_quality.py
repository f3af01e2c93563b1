"""How good are the samples of a Fashion-MNIST model? Recognised classes and Frechet distance, beside real images.

python benchmarks/model_quality.py MODEL [--method NAME] [--nfe N ...] [--grid NAME] [--guidance SCALE]
    [--eta ETA ...] [--fast] [--json FILE] [--sheet PNG]

2000 samples, seeds 0..1999, 200 a class (label = seed % 10), with DDIM at each NFE; and, unguided, 2000 with the null
class at the largest. With --eta each NFE is run at each of these scales of noise, as in DDIM's Table 1, and no more.
--fast compiles the network and computes it in bfloat16 (half a percent off, twice as fast on two cores). With --json
the rows are saved as they come, and a run that was cut short goes on from there.
The first row of the table is the floor: 2000 random training images, 200 a class, against the same test set. The
classifier was trained on those (98% recognised); of the test images, new to it, it recognises 92.9%.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ddim_ode
from ddim_ode.commands.shared.parsing import parse_eta
from ddim_ode.data import fashion_mnist, to_float, to_uint8
from ddim_ode.metrics import quality
from ddim_ode.support.files import replacing

CLASSES = 10
NFES = (10, 20, 50)


@dataclass(frozen=True)
class Row:
    """One line of the table. `nfe`: evaluations measured, a sample; None for real images."""

    images: str
    nfe: int | None
    recognised: float | None
    frechet: float
    seconds: float | None


def real_images(count: int, data: Path | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`count` random training images, equally many a class: floats (count, 1, 28, 28) and labels (count,)."""
    images, labels = fashion_mnist("train", data)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for k in range(CLASSES):
        members = torch.nonzero(labels == k).flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[: count // CLASSES]])
    index = torch.cat(chosen)
    return to_float(images[index]), labels[index]


def contact_sheet(x: Tensor, side: int = 8) -> Image.Image:
    """The first side * side of the images x (N, 1, H, W) in [-1, 1] as one grey picture, row by row."""
    tiles = to_uint8(x[: side * side, 0])
    blank = tiles.new_zeros(side * side - len(tiles), *tiles.shape[1:])
    height, width = tiles.shape[1:]
    sheet = torch.cat([tiles, blank]).reshape(side, side, height, width).transpose(1, 2)
    return Image.frombytes("L", (side * width, side * height), bytes(sheet.flatten().tolist()))


def study(model: Any, args: argparse.Namespace, report: Callable[[str], None]) -> list[Row]:
    """Sample and score; `report` is called with a line before each run."""
    rows = earlier(args)
    done = {(row.images, row.nfe) for row in rows}
    if not rows:
        real, real_labels = real_images(args.count, args.data)
        score = quality(real, real_labels, args.data)
        rows = [Row("real training images", None, score.recognised, score.frechet, None)]

    asked = torch.arange(args.count) % CLASSES
    runs: list[tuple[int, Tensor | None, Any]] = [(nfe, asked, eta) for nfe in args.nfe for eta in args.eta or [None]]
    if args.guidance == 1 and not args.eta:
        runs.append((max(args.nfe), None, None))
    for nfe, labels, eta in runs:
        name = f"{args.method}, {'null class' if labels is None else 'each class'}"
        name += "" if eta is None else f", eta {eta}"
        if (name, nfe) in done:
            continue
        report(f"{name}, nfe {nfe} ...")
        start = time.perf_counter()
        solution = ddim_ode.sample(
            model,
            method=args.method,
            nfe=nfe,
            seeds=range(args.count),
            labels=labels,
            guidance=args.guidance,
            batch_size=args.batch_size,
            grid=args.grid,
            eta=eta,
        )
        seconds = time.perf_counter() - start
        score = quality(solution.x, labels, args.data)
        rows.append(Row(name, int(solution.nfe.max()), score.recognised, score.frechet, seconds))
        if args.sheet and nfe == max(args.nfe) and labels is not None:
            contact_sheet(solution.x).save(args.sheet)
        save(args, rows)
    return rows


def settings(args: argparse.Namespace) -> dict[str, Any]:
    return {k: getattr(args, k) for k in ("model", "method", "grid", "guidance", "count", "fast")}


def earlier(args: argparse.Namespace) -> list[Row]:
    """The rows of the --json file, if a run with these settings left any there."""
    if not args.json or not args.json.exists():
        return []
    stored = json.loads(args.json.read_text())
    rows = stored.pop("rows")
    if stored != settings(args):
        raise SystemExit(f"{args.json} is of another study, {stored}; give another --json, or remove it")
    return [Row(**row) for row in rows]


def save(args: argparse.Namespace, rows: list[Row]) -> None:
    if args.json:
        with replacing(args.json) as tmp:
            text = json.dumps({**settings(args), "rows": [asdict(row) for row in rows]}, indent=2) + "\n"
            tmp.write(text.encode())


def table(rows: list[Row]) -> Table:
    result = Table("images", "NFE", "recognised", "Frechet distance", "seconds")
    for row in rows:
        recognised = "" if row.recognised is None else f"{row.recognised:.1%}"
        nfe = "" if row.nfe is None else str(row.nfe)
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        result.add_row(row.images, nfe, recognised, f"{row.frechet:.3f}", seconds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="what ddim_ode.load takes: 'fashion', a folder or a file")
    parser.add_argument("--method", default="ddim", help="name of the method (ddim)")
    parser.add_argument("--nfe", type=int, nargs="+", default=NFES, metavar="N", help="evaluations (10 20 50)")
    parser.add_argument("--guidance", type=float, default=1.0, help="scale of classifier-free guidance (1: none)")
    parser.add_argument("--eta", type=parse_eta, nargs="+", help="scales of the noise: numbers, or ddpm_large")
    parser.add_argument("--fast", action="store_true", help="compile the network, in bfloat16")
    parser.add_argument("--grid", help="name of the sigma grid; the method's own by default")
    parser.add_argument("--count", type=int, default=2000, help="samples a run, a multiple of 10 (default 2000)")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST IDX files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file too")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write the first 64 samples at the largest NFE")
    args = parser.parse_args()
    if args.count < CLASSES or args.count % CLASSES:
        parser.error(f"--count {args.count} cannot be split over {CLASSES} classes; use a multiple of {CLASSES}")

    console = Console()
    model = ddim_ode.load(args.model)
    rows = study(model.fast() if args.fast else model, args, lambda line: console.print(line, style="dim"))
    console.print(table(rows))
    save(args, rows)


if __name__ == "__main__":
    main()
