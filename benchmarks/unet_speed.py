"""How fast is our UNet? Against the UNet2DModel of diffusers with the same weights, as google/ddpm-cifar10-32 is built.

python benchmarks/unet_speed.py [--batches 1,8] [--pairs N] [--threads N] [--device cpu|cuda] [--no-fast] [--json FILE]

Weights are random; float32. The networks take turns in one process, and the order changes from turn to turn, so that
whatever slows the machine slows all. Ratios are medians over turns of theirs / ours, of wall time and (on a CPU) of
processor time, which other jobs disturb less: above 1, ours is faster. "fast" is ours as `ddim-ode sample --fast` runs
it, which depends on the hardware: see `ddim_ode.models.recipes`. The relative error of its output is RMS over RMS,
against ours in float32. The outputs of the two in float32 are compared first. An error that is no number or more than
rounding makes, or a network that is not run as compiled, is named in the end, and the exit code is 1.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from diffusers import UNet2DModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ddim_ode.checkpoints.diffusers_config import read_network, read_unet
from ddim_ode.checkpoints.diffusers_folder import names
from ddim_ode.checkpoints.fitting import fit
from ddim_ode.models.fast import COMPILED, Fast
from ddim_ode.models.recipes import recipe_for
from ddim_ode.models.unet import UNet

LAYOUT = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
MOST = 0.01  # relative error that rounding to bfloat16 makes of such a network, with room
Forward = Callable[[Tensor, Tensor], Tensor]


def networks(device: str, layout: Mapping[str, Any] = LAYOUT) -> tuple[UNet2DModel, UNet]:
    """The same random weights twice; none is zero."""
    generator, file = torch.Generator().manual_seed(0), Path("in memory")
    theirs = UNet2DModel(**layout).eval().requires_grad_(False)
    for p in theirs.parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * (0.5 / math.sqrt(max(p[0].numel(), 1))))
    config = read_network(read_unet(dict(theirs.config), file), file)
    ours = UNet(config).eval().requires_grad_(False)
    ours.load_state_dict(fit(theirs.state_dict(), names(config), config, file))
    return theirs.to(device), ours.to(device)


def timed(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


def take_turns(forwards: dict[str, Forward], x: Tensor, t: Tensor, turns: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each call; the first turn is for warming up."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in forwards}
    for turn in range(turns + 1):
        order = list(forwards) if turn % 2 else list(reversed(forwards))
        for name in order:
            spent[name].append(timed(lambda name=name: forwards[name](x, t), x.device.type))
    return {name: values[1:] for name, values in spent.items()}


def target(name: str, batch: int, hardware: str) -> float:
    """Times as fast as diffusers that a network should be."""
    if name == "ours":
        return 1.0
    if hardware.endswith("AMX"):
        return 3.5 if batch == 1 else 4.5
    return 2.0


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).square().mean() / expected.square().mean()).sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,8", help="sizes of batches")
    parser.add_argument("--pairs", type=int, default=11, help="turns of each network")
    parser.add_argument("--threads", type=int, help="torch's threads")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--no-fast", action="store_true", help="leave out the compiled network")
    parser.add_argument("--json", type=Path, help="write the numbers to a file too")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    theirs, ours = networks(options.device)
    forwards: dict[str, Forward] = {"diffusers": lambda x, t: theirs(x, t).sample, "ours": ours}
    fast = None if options.no_fast else Fast(ours)
    if fast is not None:
        forwards["fast"] = fast
    hardware = recipe_for(torch.device(options.device)).hardware

    rows, faults = [], []
    for batch in map(int, options.batches.split(",")):
        generator = torch.Generator().manual_seed(batch)
        x = torch.randn(batch, 3, 32, 32, generator=generator).to(options.device)
        t = torch.linspace(0, 999, batch, device=options.device)
        outputs = {name: forward(x, t) for name, forward in forwards.items()}
        error = float((outputs["ours"] - outputs["diffusers"]).abs().max() / outputs["diffusers"].abs().max())
        assert error < 1e-5, f"the two networks differ by {error:.2g}"
        spent = take_turns(forwards, x, t, options.pairs)
        for name in list(forwards)[1:]:
            pairs = list(zip(spent["diffusers"], spent[name], strict=True))
            rows.append(
                {
                    "batch": batch,
                    "network": name,
                    "diffusers_ms": 1000 * statistics.median(wall for wall, _ in spent["diffusers"]),
                    "ms": 1000 * statistics.median(wall for wall, _ in spent[name]),
                    "ratio": statistics.median(a[0] / b[0] for a, b in pairs),
                    "processor": statistics.median(a[1] / b[1] for a, b in pairs),
                    "target": target(name, batch, hardware),
                    "error": relative(outputs[name], outputs["ours"] if name == "fast" else outputs["diffusers"]),
                    "hardware": hardware,
                }
            )
            if not rows[-1]["error"] <= MOST:
                faults.append(f"batch {batch}: the relative error of {name} is {rows[-1]['error']:.1e}")
    table = Table("batch", "network", "diffusers, ms", "ms", "times as fast", "processor time", "target", "error")
    for row in rows:
        keys = {"diffusers_ms": ".0f", "ms": ".0f", "ratio": ".2f", "processor": ".2f", "target": ".1f", "error": ".1e"}
        table.add_row(str(row["batch"]), row["network"], *(format(row[key], how) for key, how in keys.items()))
    capability = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{hardware}, {capability}"
    Console().print(f"{sum(p.numel() for p in ours.parameters()):,} weights, {where}, torch {torch.__version__}", table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    if fast is not None:
        print(fast.account())
        faults += [
            f"a kind of call is run {verdict.way}" for verdict in fast.verdicts.values() if verdict.way != COMPILED
        ]
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
