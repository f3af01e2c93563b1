"""How good are the samples of the emoji model? Styles and groups recognised, and a Frechet distance, beside real ones.

    python benchmarks/emoji_quality.py DATA [MODEL] [--count 1024] [--nfe 10 20 50] [--guidance S] [--sheet PNG]

DATA is the folder that make_emoji.py has drawn. A small convolutional network learns the 12 classes, 4 drawing styles
of 3 groups, from nine emoji in ten, all of their drawings; the tenth is the test set. It is asked for the style and the
group of samples, seeds 0, 1, ..., classes in turn, with DDIM. The distance is between features of its last hidden
layer, of the samples and of the test set; the floor is that of as many training images. It is no FID and compares only
within a table.
"""

import argparse
import os
import time
import zlib
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ddim_ode
from ddim_ode.data import save_grid, to_float
from ddim_ode.metrics.frechet import frechet_distance

STYLES, GROUPS, WIDTH = 4, 3, 48
EPOCHS, BATCH, PEAK = 8, 128, 4e-3


class Classifier(nn.Module):
    """Three strided convolutions: images (B, 3, 32, 32) in [-1, 1] to features (B, 4 WIDTH) and 12 scores."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, WIDTH, 2 * WIDTH, 4 * WIDTH)
        self.body = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU()
                )
                for a, b in pairwise(widths)
            )
        )
        self.head = nn.Linear(4 * WIDTH, STYLES * GROUPS)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def read(data: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, 32, 32) in [-1, 1], labels, and whether each is of the tenth that is kept for tests."""
    images, labels, test = [], [], []
    for label, folder in enumerate(sorted(data.iterdir())):
        for file in sorted(folder.glob("*.png")):
            images.append(torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1))
            labels.append(label)
            test.append(zlib.crc32(file.stem.removesuffix("-mirrored").encode()) % 10 == 0)
    return to_float(torch.stack(images)), torch.tensor(labels), torch.tensor(test)


def learned(images: Tensor, labels: Tensor) -> Classifier:
    torch.manual_seed(0)
    net = Classifier()
    steps = EPOCHS * (len(images) // BATCH + 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=0.2)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH):
            loss = cross_entropy(net(images[index]), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def row(net: Classifier, name: str, x: Tensor, labels: Tensor, test: Tensor) -> str:
    said = torch.cat([net(part) for part in x.split(256)]).argmax(1)
    style = (said // GROUPS == labels // GROUPS).double().mean()
    group = (said % GROUPS == labels % GROUPS).double().mean()
    here, there = (torch.cat([net.features(part) for part in images.split(256)]) for images in (x, test))
    return f"| {name} | {style:.1%} | {group:.1%} | {frechet_distance(here, there):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", nargs="?", default="emoji")
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--nfe", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="the first 64, a class a column, at the most NFE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images, labels, test = read(args.data)
    net = learned(images[~test], labels[~test])
    held, real = images[test], torch.randperm(int((~test).sum()))[: args.count]
    print("| images | style | group | distance |\n|---|---|---|---|")
    print(row(net, f"{len(held)} test images", held, labels[test], held))
    print(
        row(net, f"{len(real)} training images (the floor)", images[~test][real], labels[~test][real], held), flush=True
    )
    model, asked = ddim_ode.load(args.model), torch.arange(args.count) % (STYLES * GROUPS)
    for nfe in args.nfe:
        begin = time.perf_counter()
        x = ddim_ode.sample(model, "ddim", nfe, range(args.count), labels=asked, guidance=args.guidance).x.clamp(-1, 1)
        seconds = time.perf_counter() - begin
        print(row(net, f"each class, nfe {nfe} ({seconds:.0f} s)", x, asked, held), flush=True)
        if args.sheet and nfe == max(args.nfe):
            save_grid(x[:64], args.sheet, columns=STYLES * GROUPS)


if __name__ == "__main__":
    main()
