"""Bits per dimension of real test images, beside those of the same images with shuffled pixels and under wrong labels.

    python benchmarks/likelihood.py [MODEL] [--images 64] [--tol 1e-3] [--probes 1]

The dequantisation and the probes are the same in every row, so that differences are of the images alone; the last
column is the mean difference to the first row over images, with its standard error.
"""

import argparse
import math

import torch

import ddim_ode
from ddim_ode import data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--probes", type=int, default=1)
    arguments = parser.parse_args()
    model = ddim_ode.load(arguments.model)
    images, labels = data.bundled_images()
    chosen = torch.linspace(0, len(images) - 1, arguments.images).long()
    images, labels = images[chosen], labels[chosen]
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(images[0].numel(), generator=generator) for _ in images])
    shuffled = images.flatten(1).gather(1, order).reshape(images.shape)
    cases = {
        "test images, their labels": (images, labels),
        "another class's label": (images, (labels + 1) % model.num_classes),
        "no label": (images, None),
        "pixels shuffled": (shuffled, labels),
    }
    print("| | bits/dim | standard error over images | over probes | NFE | difference |\n|---|---|---|---|---|---|")
    first = None
    for name, (x, classes) in cases.items():
        found = ddim_ode.log_likelihood(model, x, classes, tol=arguments.tol, probes=arguments.probes, batch_size=16)
        bits = found.bits_per_dim
        first = bits if first is None else first
        gap = bits - first
        off = float(gap.std() / math.sqrt(len(gap)))
        probe = float(found.standard_error.square().mean().sqrt()) / (images[0].numel() * math.log(2))
        nfe = found.nfe.double().mean()
        print(
            f"| {name} | {found.mean:.3f} | {found.mean_error:.3f} | {probe:.3f} | {nfe:.0f} |"
            f" {float(gap.mean()):+.3f} +- {off:.3f}, higher for {int((gap > 0).sum())} of {len(gap)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
