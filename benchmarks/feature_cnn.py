"""Train the Fashion-MNIST classifier whose features ddim_ode.metrics uses, and write it as half-precision weights.

python benchmarks/feature_cnn.py [--data DIR] [--epochs 8] [--out FILE]        (about 5 minutes on one core)
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from ddim_ode.data import ASSETS, fashion_mnist, to_float
from ddim_ode.metrics import FashionFeatures

BATCH, PEAK, DECAY, SMOOTHING = 250, 5e-3, 5e-2, 0.05


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> FashionFeatures:
    torch.manual_seed(seed)
    net = FashionFeatures()
    net.to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for index in torch.randperm(len(images)).split(BATCH):
            x = to_float(images[index]).contiguous(memory_format=torch.channels_last)
            loss = cross_entropy(net(x), labels[index], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(images):.4f}, {seconds:.0f} s", flush=True)
    return net.eval()


@torch.no_grad()
def accuracy(net: FashionFeatures, images: Tensor, labels: Tensor) -> float:
    predicted = torch.cat([net(to_float(batch)).argmax(1) for batch in images.split(500)])
    return float((predicted == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST IDX files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ASSETS / "fashion-features.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)

    net = train(*fashion_mnist("train", args.data), args.epochs, args.seed)
    stored = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in net.state_dict().items()
    }
    # What is measured is what is shipped: the weights after rounding to half precision.
    net.load_state_dict(stored)
    score = accuracy(net, *fashion_mnist("test", args.data))
    save_file(stored, args.out, {"trained_on": "Fashion-MNIST training set", "test_accuracy": f"{score:.4f}"})
    print(f"{args.out}: {args.out.stat().st_size} bytes, test accuracy {score:.4f}")


if __name__ == "__main__":
    main()
