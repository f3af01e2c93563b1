"""Run the zoo, or as much of it as is asked for, and tell what holds of its problems.

    python benchmarks/zoo.py OUT [--count N] [--only SECTION ...] [--problems TEXT ...] [--tell]

It goes on where it was stopped: each problem has a JSON file in OUT, written when a section is done. Sections:

grids        every method at 10 and 20 evaluations, on its default grid and on every named one
auto         four methods on grids made for the model
adaptive     `adaptive` at 8, 10, 15 and 20 evaluations in the mean, and for tolerances from 0.1 to 0.003
diffusers    the schedulers of diffusers on the same problem
tuned        a method tuned to the model at 6 and 10 predictions, all others there, and those schedulers

A network takes about six minutes a problem and core of the first section, a closed form one. --problems takes parts of
their names, such as "relabelled" or "/edm". --tell measures nothing.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.zoo import problems
from benchmarks.zoo.cells import SECTIONS, Record
from benchmarks.zoo.report import report


def told(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{what:60s}", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=8, help="samples a problem (8)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument(
        "--problems", nargs="+", default=[""], metavar="TEXT", help="parts of the names of those to run"
    )
    parser.add_argument("--tell", action="store_true", help="only tell what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    records = [Record.opened(name, args.out, args.count) for name in problems.names()]
    chosen = [record for record in records if any(part in record.name for part in args.problems)]
    begin = time.perf_counter()
    for record in [] if args.tell else chosen:
        wanted = [section for section in args.only if section not in record.done]
        on = problems.problem(record.name, args.count) if wanted else None
        for section in wanted:
            assert on is not None
            record.complete(section, on, told)
        if wanted:
            told("")
            print(f"{time.perf_counter() - begin:6.0f} s  {record.name}", flush=True)
    text = report([record for record in chosen if record.cells])
    (args.out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
