"""On paper: how long 50,000 samples take, and how much disk they need.

    python benchmarks/scale_estimate.py

The networks are built without memory (torch's meta device) and their multiplications counted by torch's flop counter:
ADM of guided-diffusion for ImageNet at 64 x 64 and at 256 x 256, as their published flags make them. Seconds are

    rounds * samples of a shard * NFE * operations of one pass / (peak * share),    rounds = ceil(shards / GPUs)

with the peak of an H100 in bfloat16 and the share of it that convolutions at a large batch are assumed to reach. That
share is an assumption, not a measurement: `--share` takes what you have measured on yours, as passes a second times
operations of a pass over the peak. Each GPU takes the next shard when it has done one, and waits for another at the
end alone: so there should be several shards a GPU, and `--shard-size` be small where there are many.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddim_ode.checkpoints.guided import read_flags
from ddim_ode.commands.shared.forecast import duration
from ddim_ode.models.unet import UNet

MODELS = {
    "ADM, ImageNet 64": {
        "image_size": 64,
        "num_channels": 192,
        "num_res_blocks": 3,
        "attention_resolutions": "32,16,8",
    },
    "ADM, ImageNet 256": {
        "image_size": 256,
        "num_channels": 256,
        "num_res_blocks": 2,
        "attention_resolutions": "32,16,8",
    },
}
COMMON = {"num_head_channels": 64, "class_cond": True, "learn_sigma": True, "resblock_updown": True}
COMMON |= {"use_new_attention_order": True}
PEAK = 989e12  # operations a second of an H100 SXM in bfloat16, dense (NVIDIA's data sheet)
GPUS = (1, 8, 64)


def network(flags: dict[str, object]) -> UNet:
    config, _ = read_flags({**COMMON, **flags}, Path("the published flags"), 1000)
    with torch.device("meta"):
        return UNet(config.network)


def operations(net: UNet, size: int) -> int:
    """Additions and multiplications of one pass of one image."""
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        net(torch.empty(1, 3, size, size), torch.empty(1), torch.empty(1, dtype=torch.int64))
    return int(counter.get_total_flops())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000, metavar="N")
    parser.add_argument("--nfe", type=int, default=20)
    parser.add_argument("--shard-size", type=int, default=256, help="samples of a shard (256)")
    parser.add_argument("--share", type=float, default=0.3, help="of the peak that is reached (0.3)")
    parser.add_argument("--peak", type=float, default=PEAK, help="operations a second of one GPU")
    told = parser.parse_args(arguments)
    columns = " | ".join(map(gpus, GPUS))
    print(f"| {told.count:,} samples at {told.nfe} evaluations | weights | a pass | {columns} | disk |")
    print(f"|---|---|---|{'---|' * len(GPUS)}---|")
    for name, flags in MODELS.items():
        net, size = network(flags), int(str(flags["image_size"]))
        cost = operations(net, size)
        of_shard = told.shard_size * told.nfe * cost / (told.peak * told.share)
        shards = math.ceil(told.count / told.shard_size)
        weights = sum(weight.numel() for weight in net.parameters())
        times = " | ".join(lasting(math.ceil(shards / n) * of_shard) for n in GPUS)
        pixels = told.count * 3 * size**2
        disk = f"{4 * pixels / 1e9:.1f} GB safetensors, {pixels / 1e9:.1f} GB npz"
        print(f"| {name} | {weights / 1e6:.0f} M | {cost / 1e9:.0f} GFLOP | {times} | {disk} |")
    return 0


def gpus(n: int) -> str:
    return f"{n} GPU{'s' if n > 1 else ''}"


def lasting(seconds: float) -> str:
    return duration(seconds) if seconds >= 120 else f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
