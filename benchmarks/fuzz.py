"""Bad input, by the thousand: what comes of command lines, files, calls and flipped bits that nobody expects.

    python benchmarks/fuzz.py [--inputs 20000] [--seed 0] [--kind KIND] [--workers 1] [--json FILE]
    python benchmarks/fuzz.py --only 'api:sample:17'

An input follows from its name, KIND:SUBJECT:NUMBER, alone, so that --only repeats a single one and prints all there is
to see of it. The kinds, of 20,000 inputs 4400, 8500, 6700 and 400:

    command_line    a valid command line of each command, one to three of whose arguments are changed
    files           a valid file of each format that is read, damaged or replaced, and read by what reads it
    api             a valid call of each public function, one or two of whose arguments are something else
    bits            a file that the library wrote, with one bit flipped, and a small result computed from it

How to read the table. Two outcomes are as they should be: "clean line" is a refusal in one line, by a DDIMError (of the
command line: "error: ..." and exit code 2), and "fine" is success. The others are failures: an exception of another
library or of Python, or a message that is not one printable line; more than 4 GiB of memory; more than 20 seconds; and
"silent", a result that is not the one of the undamaged file, without a word. Below the table is each distinct failure
once: how many inputs failed with the same exception in the same frame, the message, one input, and up to three names.
The exit code is 1 if there are failures.

Inputs run in worker processes, one after the other, on one thread each; a worker that hangs is killed. What was found
until Ctrl-C is told. KIND:SUBJECT:valid is what the inputs of a subject begin with, unchanged.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fuzzing import kinds, pool, report
from benchmarks.fuzzing.inputs import Verdict


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    if given.only:
        (found,) = pool.run([given.only])
        print(f"{found.name}\n{found.what!r}\n{found.outcome} {found.error} {found.where}\n{found.message}")
        print(found.trace)
        return 0 if found.good else 1
    chosen = [given.kind] if given.kind else list(kinds.KINDS)
    counts = kinds.shared_out(given.inputs, chosen)
    names = [name for kind, count in counts.items() for name in kinds.names(kind, count, given.seed)]
    verdicts: list[Verdict] = []
    started = time.monotonic()
    try:
        for verdict in pool.run(names, given.workers):
            verdicts.append(verdict)
            show(verdicts, len(names), time.monotonic() - started)
    except KeyboardInterrupt:
        print(f"interrupted after {len(verdicts)} of {len(names)} inputs", file=sys.stderr)
    print(report.text(verdicts))
    if given.json:
        report.write(given.json, verdicts)
    return 0 if all(verdict.good for verdict in verdicts) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--kind", choices=list(kinds.KINDS), help="this kind alone")
    parser.add_argument("--only", metavar="NAME", help="this input alone, with its traceback")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the failures there")
    given = parser.parse_args(arguments)
    if given.only and not kinds.known(given.only):
        parser.error(f"--only {given.only!r} is no input; give KIND:SUBJECT:NUMBER, such as api:sample:17")
    for name in ("inputs", "workers"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if given.seed < 0:
        parser.error("--seed must be at least 0")
    return given


def show(verdicts: Sequence[Verdict], total: int, seconds: float) -> None:
    """How far it is, on one line of a terminal."""
    if sys.stderr.isatty():
        failed = sum(not verdict.good for verdict in verdicts)
        end = "\n" if len(verdicts) == total else ""
        line = f"{len(verdicts)}/{total} inputs, {failed} failed, {len(verdicts) / seconds:.0f} a second"
        print(f"\r\033[K{line} {verdicts[-1].name}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
