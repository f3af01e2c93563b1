"""What the library does on a GPU: one command of nine minutes at most, whose tables go into the documentation.

    python benchmarks/gpu.py                                  writes docs/gpu.json and its tables in docs/performance.md
    python benchmarks/gpu.py --device cpu --small             all of it, tiny, in a minute on one core: does it work?

What is tiny or of a CPU goes into a folder of its own, which is named in the end, unless --json says where.

The sections, the most important first: card, forwards, images, unets, solvers, adaptive, exactness, noise, memory,
training. Each has a share of the time, and what it leaves over goes to the next. The file is written after every case,
so that a kill loses none that is done; a run of the same code on the same card goes on from it, and any other is
refused unless told to replace it. What was skipped, and what failed, is in the tables by name with the reason. Exits
with 1 if anything failed.

Times are of synchronised clocks and medians over works that take turns; the first calls warm up and do not count.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.gpu_sections import SECTIONS
from benchmarks.gpu_sections.base import Setting
from benchmarks.gpu_sections.report import (
    ROOT,
    Call,
    Report,
    Row,
    Table,
    UnreadableError,
    circumstances,
    markdown,
    put,
    read,
    unmeasured,
)
from benchmarks.gpu_sections.running import run
from ddim_ode.support.files import replacing

SECONDS = 500.0  # of 540: imports, and a case that does not stop at once, have the rest


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--only", default=",".join(SECTIONS), metavar="LIST", help="sections, in the order above")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of measuring ({SECONDS:.0f})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go (docs/gpu.json)")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="where the tables go (docs/performance.md; with --json, beside it)"
    )
    parser.add_argument("--again", action="store_true", help="do not go on from FILE, replace it")
    parser.add_argument("--tables", action="store_true", help="measure nothing: make the tables of the numbers in FILE")
    given = parser.parse_args(arguments)
    given.only = given.only.split(",")
    if unknown := sorted(set(given.only) - set(SECTIONS)):
        parser.error(f"--only {','.join(unknown)} is no section; choose of {','.join(SECTIONS)}")
    if not 0 < given.seconds < 86400:
        parser.error(f"--seconds {given.seconds:g} is no time; use 1 to 86400")
    if given.device == "cuda" and not torch.cuda.is_available() and not given.tables:
        parser.error("--device cuda: torch finds no GPU; use --device cpu --small to see that it runs")
    if given.json is None:
        ours = given.tables or (given.device == "cuda" and not given.small)  # what the documentation shows
        given.page = given.page or (ROOT / "docs/performance.md" if ours else None)
        given.json = ROOT / "docs/gpu.json" if ours else Path(tempfile.mkdtemp(prefix="gpu-")) / "gpu.json"
    given.page = given.page or given.json.with_suffix(".md")
    return given


def begun(given: argparse.Namespace, arguments: Sequence[str], setting: Setting) -> Report:
    """The report to go on with: the file's, if it is of the same circumstances, or a new one."""
    here = circumstances(setting)
    call = Call(date=date.today().isoformat(), command=shlex.join(["python", "benchmarks/gpu.py", *arguments]))
    if given.again or not given.json.exists():
        return Report(calls=[call], circumstances=here)
    remedy = "give another --json, or --again to replace it"
    try:
        report = read(given.json)
    except UnreadableError as error:
        raise SystemExit(f"{error}; {remedy}") from None
    if others := report.circumstances.others(here):
        raise SystemExit(f"{given.json} is of {', '.join(others)}; {remedy}")
    if report.calls[-1] != call:
        report.calls.append(call)
    return report


def main(arguments: Sequence[str]) -> int:
    started, given = time.monotonic(), parse(arguments)
    if given.tables:
        try:
            put(markdown(read(given.json)), given.page)
        except UnreadableError as error:
            raise SystemExit(f"{error}; --tables needs the numbers of a run: give its --json") from None
        return 0
    setting = Setting(torch.device(given.device), given.small)
    report = begun(given, arguments, setting)
    spent = report.seconds

    def told(table: Table, row: Row) -> None:
        now = time.monotonic() - started
        report.seconds = spent + now
        with replacing(given.json) as new:
            new.write(report.model_dump_json(indent=1).encode() + b"\n")
        put(markdown(report), given.page)
        print(
            f"{now:6.1f} s  {table.name}: {', '.join(map(str, row.names.values()))}: {row.why or row.status}",
            flush=True,
        )

    sections = [section for section in SECTIONS.values() if section.name in given.only]
    run(report, sections, setting, started + given.seconds, told)
    print("\n".join(["", *([markdown(report)] if given.device == "cpu" else unmeasured(report.tables))]))
    print(f"\nnumbers: {given.json}\ntables: {given.page}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
