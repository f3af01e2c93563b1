"""How near do the networks come to what the machine can do, and what could another one do? The roofline.

    python benchmarks/roofline.py [--batches 1,16,64] [--ways LIST] [--threads N] [--json FILE]

A pass takes at least FLOPs / peak and at least bytes / bandwidth; the larger of the two is its roof. FLOPs are those of
products and convolutions. Bytes are what each operation of the eager network reads and writes, weights included, as if
no cache held anything from one to the next: an upper bound of what must be moved. The peaks of this machine are
measured: that of products as one of two 1024 x 1024 matrices, which takes turns with the passes, that of its memory as
a copy of 256 MB. Times are the processor's, on one thread unless told otherwise, since other jobs disturb them least.
The figures of GPUs are NVIDIA's for dense matrices; nothing of theirs is measured here.

--ways times the network otherwise too, and says how many times as fast that is: "channels_last", and "fast", as
`Denoiser.fast()` makes it, which compiles for minutes; where it would not run what is compiled, the command stops.

The second table is of the GPUs: the least that a pass can take there, in microseconds an image.
"""

import argparse
import copy
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ddim_ode
from benchmarks.gpu_sections.base import Setting
from benchmarks.gpu_sections.card import copied, matmul
from benchmarks.gpu_sections.clocks import in_turns
from benchmarks.gpu_sections.models import NotCompiledError, inputs_for, large, need_compiled
from benchmarks.gpu_sections.report import grid, number, processor
from benchmarks.gpu_sections.solvers import Traffic

Works = dict[str, Callable[[], object]]
HERE = Setting(torch.device("cpu"), small=False)
SIZE = 1024  # of matrices
HEADS = ["network", "batch", "GFLOP", "MB weights", "MB moved", "FLOP/byte", "operations", "ms", "GFLOP/s", "peak"]
MODELS = ("fashion", "emoji", "ddpm-cifar10-32")
WAYS = ("channels_last", "fast")


class Roof(NamedTuple):
    """A machine: FLOP/s of dense products, bytes/s of its memory, and bytes of a number."""

    name: str
    peak: float
    bandwidth: float
    width: int = 4

    def seconds(self, flops: float, moved: float) -> float:
        """The least that a pass takes; moved: bytes in float32."""
        return max(flops / self.peak, moved * self.width / 4 / self.bandwidth)


#: SXM, dense, as glennklockwood.com/garden/processors/h100 quotes NVIDIA; 4.8 TB/s is NVIDIA's figure for the H200
PAPER = (
    Roof("H100 fp32", 67e12, 3.35e12),
    Roof("H100 bf16", 989.4e12, 3.35e12, 2),
    Roof("H200 bf16", 989.4e12, 4.8e12, 2),
)


@dataclass(frozen=True)
class Row:
    """A network at a size of batch; GFLOP and MB are an image's."""

    network: str
    batch: int
    gflop: float
    weights_mb: float
    moved_mb: float
    operations: int  # of a pass, each a kernel or more
    ms: float  # a pass
    peak: float  # GFLOP/s of a product of matrices meanwhile
    roof: float  # % of the pass that it would take at the roof
    ways: dict[str, float]  # how many times as fast it is otherwise
    paper_us: dict[str, float]  # an image, at the roof of a GPU


def works_for(model: ddim_ode.Denoiser, batch: int, ways: Sequence[str], quick: nn.Module) -> Works:
    """A product of matrices, a pass of the network, and of the others; quick: the fast one."""
    matrices = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    x, *rest = inputs_for(model, batch)
    works: Works = {"product": lambda: matrices[0] @ matrices[1], "eager": lambda: model.net(x, *rest)}
    if "channels_last" in ways:
        last, image = (copy.deepcopy(each).to(memory_format=torch.channels_last) for each in (model.net, x))
        works["channels_last"] = lambda: last(image, *rest)
    if "fast" in ways:
        works["fast"] = lambda: quick(x, *rest)
    return works


def measure(name: str, batch: int, bandwidth: float, ways: Sequence[str]) -> Row:
    model = large(HERE) if name == MODELS[-1] else ddim_ode.load(name)
    quick = model.fast().net
    works = works_for(model, batch, ways, quick)
    with FlopCounterMode(display=False) as counter:
        works["eager"]()
    with Traffic(least=1) as traffic:
        works["eager"]()
    flops, turns = counter.get_total_flops(), in_turns(HERE, works, 6.0, processor=True)
    if "fast" in ways:
        need_compiled(quick)
    computed, moved = flops / (2.0 * SIZE**3) * turns.ratio("product", "eager"), traffic.bytes / bandwidth
    return Row(
        network=name,
        batch=batch,
        gflop=flops / batch / 1e9,
        weights_mb=sum(p.nbytes for p in model.net.parameters()) / 1e6,
        moved_mb=traffic.bytes / batch / 1e6,
        operations=traffic.operations,
        ms=1e3 * turns["eager"],
        peak=2e-9 * SIZE**3 / turns["product"],
        roof=100 * max(computed, moved / turns["eager"]),
        ways={way: turns.ratio("eager", way) for way in list(works)[2:]},
        paper_us={roof.name: 1e6 * roof.seconds(flops, traffic.bytes) / batch for roof in PAPER},
    )


def tables(rows: Sequence[Row]) -> tuple[str, str]:
    """What was measured here, and the least that GPUs take."""
    measured, paper = [], []
    for row in rows:
        rate, names = 1e3 * row.gflop * row.batch / row.ms, [row.network, str(row.batch)]
        cells = [row.gflop, row.weights_mb, row.moved_mb, 1e3 * row.gflop / row.moved_mb]
        cells += [row.operations, row.ms, rate, row.peak, row.roof, *row.ways.values()]
        measured.append([*names, *map(number, cells)])
        paper.append([*names, *map(number, row.paper_us.values())])
    heads = [*HEADS, "% of roof", *rows[0].ways]
    return grid(heads, measured), grid([*HEADS[:2], *(f"{roof.name}, us" for roof in PAPER)], paper)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,16,64", help="sizes of batches (1,16,64)")
    parser.add_argument("--models", default=",".join(MODELS), help="networks (%(default)s)")
    parser.add_argument("--ways", default="", metavar="LIST", help=f"of {', '.join(WAYS)} (none)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1); of more, all their time counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    given = parser.parse_args(arguments)
    ways = given.ways.split(",") if given.ways else []
    if unknown := sorted(set(ways) - set(WAYS)):
        parser.error(f"--ways {','.join(unknown)} is no way to run a network; choose of {','.join(WAYS)}")
    torch.set_num_threads(given.threads)
    torch.set_grad_enabled(False)
    bandwidth = copied(HERE)
    about = f"{processor()}, torch {torch.__version__}: bf16 product {matmul(HERE, 'bf16', SIZE) / 1e9:.0f} GFLOP/s"
    print(f"{about}, copy {bandwidth / 1e9:.1f} GB/s", flush=True)
    asked = [(name, int(size)) for name in given.models.split(",") for size in given.batches.split(",")]
    rows = []
    for network, batch in asked:
        try:
            rows.append(measure(network, batch, bandwidth, ways))
        except NotCompiledError as error:
            raise SystemExit(f"{network}, batch {batch}, fast: {error}") from None
        print(f"{network}, batch {batch}, is done", flush=True)
    print("\n\n".join(tables(rows)))
    if given.json:
        command = shlex.join(["python", "benchmarks/roofline.py", *arguments])
        found = {"date": date.today().isoformat(), "machine": about, "command": command, "copy_gb_s": bandwidth / 1e9}
        given.json.write_text(json.dumps(found | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
