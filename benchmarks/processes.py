"""What several processes make of one run of `ddim-ode sample`: the same bytes, how fast, and in how much memory.

    python benchmarks/processes.py --count 5000 --processes 1,2,3 --json docs/processes.json

Each run is a command line as a user types it, with a thread a process: `--count` samples of `fashion` at 10 evaluations
by each number of processes, one after another, and again by one process with a tenth of them. The table has the
time from start to end, imports and launcher included, and the most memory that any one process took (by the kernel's
accounts, which /usr/bin/time -v reads too).

Exit code 1 if the shards of two runs differ.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.launching import environment, launched


class Run(NamedTuple):
    """One run: by how many processes, how many samples, the digests of its shards, and what it took."""

    processes: int
    count: int
    digests: tuple[str, ...]
    seconds: float
    megabytes: float

    @property
    def row(self) -> dict[str, object]:
        """It for a file, with one digest of all."""
        digest = hashlib.sha256("".join(self.digests).encode()).hexdigest()
        return {**self._asdict(), "digests": len(self.digests), "digest": digest}


def sampled(folder: Path, processes: int, count: int, words: Sequence[str]) -> Run:
    """Run the command in a child of its own, whose memory is accounted for."""
    out = folder / f"{processes}-{count}-{time.monotonic_ns()}"
    command = launched(["sample", *words, "-n", count, "--shards", "--out", out], processes)
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment(), file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)])
    _, status, used = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} ended with exit code {code}")
    index = json.loads((out / "index.json").read_text())
    assert index["asked"] == count
    digests = tuple(digest for shard in index["shards"] for digest in shard["files"].values())
    return Run(processes, count, digests, seconds, memory(used))


def memory(used: resource.struct_rusage) -> float:
    """The most memory of the process, or of one that it has waited for, in MB."""
    return used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, metavar="N", help="samples of a run (5000)")
    parser.add_argument("--processes", default="1,2,3", metavar="LIST", help="how many share it (1,2,3)")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="how often, in turn (1)")
    parser.add_argument("--model", default="fashion")
    parser.add_argument("--nfe", default="10")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    told = parser.parse_args(arguments)
    numbers = [int(part) for part in told.processes.split(",")]
    words = [told.model, "--nfe", told.nfe, "--label", "each"]
    with tempfile.TemporaryDirectory() as folder:
        runs = [sampled(Path(folder), 1, max(1, told.count // 10), words)]
        print("processes  samples  seconds  samples/s  MB", flush=True)
        for processes in numbers * told.repeats:
            runs.append(sampled(Path(folder), processes, told.count, words))
            last = runs[-1]
            rate = last.count / last.seconds
            print(
                f"{processes:>9}  {last.count:>7,}  {last.seconds:7.1f}  {rate:9.1f}  {last.megabytes:.0f}", flush=True
            )
    small, whole = runs[0], runs[1:]
    same = len({run.digests for run in whole}) == 1
    best = {n: min(run.seconds for run in whole if run.processes == n) for n in numbers}
    print(f"{small.count:,} samples by one process: {small.megabytes:.0f} MB")
    print(f"shards: {'the same digests' if same else 'DIFFERENT'} by {told.processes} processes")
    for n in numbers[1:]:
        print(f"{n} processes: {best[numbers[0]] / best[n]:.2f} times as fast as {numbers[0]}")
    if told.json:
        about = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "command": f"python benchmarks/processes.py --count {told.count} --processes {told.processes}",
            "same": same,
        }
        told.json.write_text(json.dumps({**about, "runs": [run.row for run in runs]}, indent=1) + "\n")
    return 0 if same else 1


def machine() -> str:
    """The cores of this one, and what they are."""
    known = Path("/proc/cpuinfo")
    names = [line for line in known.read_text().splitlines() if line.startswith("model name")] if known.exists() else []
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{os.cpu_count()} cores, {name}, one thread a process"


if __name__ == "__main__":
    sys.exit(main())
