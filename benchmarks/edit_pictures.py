"""Draw the pictures of edits that docs/editing.md shows beside those of `ddim-ode edit`.

    python benchmarks/edit_pictures.py DIR

edit_window.png: translations whose target holds in windows of sigma. edit_between.png: from one edit to another.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

import ddim_ode
from ddim_ode.commands.shared.pictures import save_columns
from ddim_ode.data import FASHION_LABELS, bundled_images, to_float
from ddim_ode.editing import Side, between_edits, decode_under, translate
from ddim_ode.inversion import encode

NFE = 50
WINDOWS = ((0.0, None), (0.3, None), (1.0, None), (3.0, None), (0.0, 3.0), (0.0, 30.0))
ROWS = ((0, 8), (1, 3), (2, 0), (3, 1), (5, 7), (9, 8))  # from a class to another
WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def first_of(label: int, place: int = 0) -> Tensor:
    """A test image of a class, (1, 1, 28, 28)."""
    images, labels = bundled_images()
    return to_float(images[(labels == label).nonzero()[place]])


def windows(model: ddim_ode.Denoiser, file: Path) -> None:
    source, target = (torch.tensor(labels) for labels in zip(*ROWS, strict=True))
    x = torch.cat([first_of(label) for label, _ in ROWS])
    latent = encode(model, x, nfe=NFE, labels=source)
    columns = {"before": x}
    for low, high in WINDOWS:
        title = "everywhere" if (low, high) == (0.0, None) else f"below {high:g}" if high else f"above {low:g}"
        columns[title] = decode_under(model, latent, Side(target, guidance=1.5), window=(low, high)).x
        print(f"window {title}", file=sys.stderr, flush=True)
    words = [f"to {FASHION_LABELS[label]}" for _, label in ROWS]
    save_columns(columns, "the new class holds at some sigmas only", file, beside=words)


def between(model: ddim_ode.Denoiser, file: Path) -> None:
    x = torch.cat([first_of(0), first_of(0), first_of(7)])
    others = torch.cat([first_of(0), first_of(0, 3), first_of(7, 5)])
    first = translate(model, x, [0, 0, 7], Side([3, 2, 9], guidance=1.5), nfe=NFE)
    second = translate(model, others, [0, 0, 7], Side([8, 2, 5], guidance=1.5), nfe=NFE)
    frames = between_edits(first, second, WEIGHTS).x.reshape(len(x), len(WEIGHTS), *model.shape)
    columns = {"image": x, **{f"{w:g}": frames[:, i] for i, w in enumerate(WEIGHTS)}, "other image": others}
    words = ["one image, two classes", "two images, one class", "both"]
    save_columns(columns, "from one edit to another", file, beside=words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    model = ddim_ode.load("fashion")
    windows(model, folder / "edit_window.png")
    between(model, folder / "edit_between.png")


if __name__ == "__main__":
    main()
