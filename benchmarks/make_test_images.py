"""Write the real images that ddim_ode ships: the first 30 of each class of the Fashion-MNIST test set.

python benchmarks/make_test_images.py [--data DIR] [--out FILE]
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from ddim_ode.data import ASSETS, FASHION_LABELS, fashion_mnist

PER_CLASS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST IDX files")
    parser.add_argument("--out", type=Path, default=ASSETS / "fashion-mnist-test.safetensors")
    args = parser.parse_args()

    images, labels = fashion_mnist("test", args.data)
    first = [torch.nonzero(labels == k).flatten()[:PER_CLASS] for k in range(len(FASHION_LABELS))]
    index = torch.cat(first).sort().values
    metadata = {
        "source": "Fashion-MNIST test set, https://github.com/zalandoresearch/fashion-mnist (arXiv:1708.07747)",
        "selection": f"the first {PER_CLASS} images of each class, in the order of the test set",
        "license": "MIT, Copyright (c) 2017 Zalando SE, https://tech.zalando.com; see LICENSE-fashion-mnist.txt",
    }
    save_file({"images": images[index], "labels": labels[index].to(torch.uint8)}, args.out, metadata)
    print(f"{args.out}: {len(index)} images, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
