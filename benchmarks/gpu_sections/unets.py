"""Our UNet against that of diffusers, with the same weights."""

import copy
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from diffusers.utils import logging
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError, Values
from benchmarks.gpu_sections.card import PRECISIONS, precision
from benchmarks.gpu_sections.clocks import in_turns
from benchmarks.unet_speed import LAYOUT, networks, relative

LAYOUTS: dict[str, dict[str, Any]] = {
    "ddpm-cifar10-32": LAYOUT,
    "ddpm-celebahq-256": LAYOUT
    | {
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
    },
}
SMALL = LAYOUT | {
    "sample_size": 8,
    "block_out_channels": (32, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
BATCHES = {"ddpm-cifar10-32": (64, 1), "ddpm-celebahq-256": (8, 1)}
BOUND = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 0.1}  # of what the two may differ by, who add in another order


@lru_cache(maxsize=1)
def built(setting: Setting, layout: str) -> tuple[Any, Any]:
    """Theirs and ours, of random weights."""
    logging.set_verbosity_error()  # of a cast: that there is nothing to keep in float32
    return networks(setting.device.type, setting.pick(LAYOUTS[layout], SMALL))


def compare(setting: Setting, layout: str, name: str, batch: int) -> Values:
    """Passes of the two, in turns."""
    if name == "tf32" and not setting.cuda:
        raise SkippedError("TF32 needs CUDA")
    theirs, ours = built(setting, layout)
    size = theirs.config.sample_size
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch)).to(setting.device)
    t = torch.linspace(0, 999, batch, device=setting.device)
    with precision("fp32"), FlopCounterMode(display=False) as flops:
        exact = ours(x, t)
    with precision(name) as dtype:
        if dtype != torch.float32:
            theirs, ours = (copy.deepcopy(net).to(dtype) for net in (theirs, ours))
        x = x.to(dtype)
        found = ours(x, t).float()
        gap = relative(found, theirs(x, t).sample.float())
        if not gap <= BOUND[name]:
            raise AssertionError(f"the two networks differ by {gap:.2g}, relative")
        works = {"theirs": lambda: theirs(x, t).sample, "ours": lambda: ours(x, t)}
        turns = in_turns(setting, works, most=3.0)
    return {
        "diffusers, ms": 1e3 * turns["theirs"],
        "ours, ms": 1e3 * turns["ours"],
        "times as fast": turns.ratio("theirs", "ours"),
        "TFLOP/s": flops.get_total_flops() / turns["ours"] / 1e12,
        "error": relative(found, exact),
        "differ by": gap,
    }


def cases(setting: Setting) -> Iterator[Case]:
    def measure(layout: str, name: str, batch: int) -> Callable[[], Values]:
        return lambda: compare(setting, layout, name, batch)

    for layout, batches in BATCHES.items():
        for batch in setting.pick(batches, (2,)):
            for name in PRECISIONS:
                if name in BOUND:
                    yield Case({"layout": layout, "batch": batch, "precision": name}, measure(layout, name, batch))


SECTION = Section(
    "unets",
    "One pass, eager, the same random weights, in turns. TFLOP/s are of products and convolutions in our network."
    " Error: of our output against its own in fp32; differ by: of the two networks. RMS over RMS.",
    75,
    cases,
)
