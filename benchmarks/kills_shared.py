"""Kill the processes that share a run, at random moments, and see what becomes of it.

    python benchmarks/kills_shared.py --moments 20

For each of sample, evaluate, compare, likelihood and reconstruct, two processes of torchrun work in one folder, and
kill -9 meets one of them, both, the launcher, or all three, in turn. What must hold then: the same command, run again,
comes to what an undisturbed run comes to, digest by digest; nothing is lost, nothing is doubled, and no temporary file
is left. A launcher's processes outlive it by a moment; a run that is begun meanwhile may say so, and is begun again.

Exit code 1 if anything did not hold. A tiny network; most of the time is that of starting processes: about ten seconds
a moment.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from tests.helpers.command_line import make_model
from tests.helpers.launching import environment, kill, launched, ranks_of

VICTIMS = ("one process", "both processes", "the launcher", "all")
PATIENCE = 30.0  # seconds that a launcher's processes may outlive it
AT_WORK = "another run is at work"


@dataclass(frozen=True)
class Case:
    """A command that several processes share: its words, OUT for its folder, and a digest of the result."""

    name: str
    words: tuple[str, ...]
    digest: Callable[[Path], str]

    def command(self, out: Path) -> list[str]:
        return launched([word.replace("OUT", str(out)) for word in self.words], 2)


def shards(out: Path) -> str:
    """The files of a sharded run with what they hold, of which none may be more than the index names."""
    index = json.loads((out / "index.json").read_text())
    files = sorted(file.relative_to(out).as_posix() for file in out.glob("samples*") if file.is_file())
    return repr([(name, hashlib.sha256((out / name).read_bytes()).hexdigest()) for name in files] + [index["asked"]])


def numbers(out: Path, file: str) -> str:
    """The results in a file of JSON, without what differs from run to run: times, places, versions, seals."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if not any(word in key for word in VARYING)}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return json.dumps(plain(json.loads((out / file).read_text())), sort_keys=True)


VARYING = ("seconds", "time", "timing", "sha256", "platform", "versions", "date", "images_per_second", "memory", "out")


def study(out: Path) -> str:
    """The errors of a study that is finished: times differ."""
    from ddim_ode.study import Study

    return repr([(row.key, row.error, row.measured_nfe) for row in Study.load(out).rows])


def cases(root: Path) -> list[Case]:
    """The commands, on a tiny model."""
    model = str(make_model(root / "model"))
    images = root / "images.npz"
    np.savez(images, arr_0=np.random.default_rng(0).integers(0, 256, (96, 8, 8, 1), dtype=np.uint8))
    real = root / "real.npz"
    np.savez(real, arr_0=np.random.default_rng(1).integers(0, 256, (96, 8, 8, 1), dtype=np.uint8))
    small = ("--batch-size", "8")
    sampling = ("sample", model, "--nfe", "8", "-n", "160", "--shards", "--shard-size", "16", *small)
    comparing = ("compare", model, "--methods", "ddim,adams2,heun_angle", "--nfe", "4,6", "-n", "8", *small)
    measuring = ("likelihood", model, str(images), *small, "--method", "rk4", "--nfe", "16", "--keep", "OUT")
    returning = ("reconstruct", model, str(images), *small, "--method", "ddim", "--nfe", "8", "--keep", "OUT")
    return [
        Case("sample", (*sampling, "--out", "OUT"), shards),
        Case("evaluate", ("evaluate", str(images), "--real", str(real), "--out", "OUT"), evaluated),
        Case("compare", (*comparing, "--reference-tol", "0.05", "--out", "OUT"), study),
        Case("likelihood", (*measuring, "--out", "OUT.csv", "--overwrite"), bits),
        Case("reconstruct", returning, returned),
    ]


def evaluated(out: Path) -> str:
    return numbers(out, "evaluation.json")


def bits(out: Path) -> str:
    """The table, and all numbers that are kept."""
    return hashlib.sha256(out.with_suffix(".csv").read_bytes()).hexdigest() + returned(out)


def returned(out: Path) -> str:
    return numbers(out, "results.json")


class Trial:
    """One command in a folder of its own, with what an undisturbed run comes to."""

    def __init__(self, case: Case, root: Path):
        self.case, self.folder, self.faults = case, root / case.name, list[str]()
        self.folder.mkdir()
        self.out = self.folder / "out"
        began = time.monotonic()
        ended = self._run()
        self.seconds = time.monotonic() - began
        assert ended.returncode == 0, ended.stderr
        self.wanted = case.digest(self.out)

    def moments(self, count: int, seed: int) -> None:
        """Kill after random times, one victim after the other."""
        draw = random.Random(f"{seed} {self.case.name}")
        for n in range(count):
            shutil.rmtree(self.out, ignore_errors=True)
            wait, victim = draw.uniform(0.2, 1.0) * self.seconds, VICTIMS[n % len(VICTIMS)]
            ended = self._kill(wait, victim)
            what = f"{victim} killed after {wait:.2f} s of {self.seconds:.2f}{' (it had ended)' if ended else ''}"
            self._check(what)
            print(f"{self.case.name}: {n + 1}/{count}, {what}", flush=True)

    def _kill(self, wait: float, victim: str) -> bool:
        """Start, wait, and kill. Returns whether the run had ended before."""
        nowhere = subprocess.DEVNULL
        launcher = subprocess.Popen(self.case.command(self.out), env=environment(), stdout=nowhere, stderr=nowhere)
        time.sleep(wait)
        ended = launcher.poll() is not None
        ranks = ranks_of(launcher)
        kill(*{"one process": ranks[-1:], "both processes": ranks, "the launcher": [], "all": ranks}[victim])
        if victim in ("the launcher", "all"):
            launcher.kill()
        launcher.wait()
        return ended

    def _check(self, what: str) -> None:
        until = time.monotonic() + PATIENCE
        while AT_WORK in (ended := self._run()).stderr and time.monotonic() < until:
            time.sleep(0.5)
        self._expect(what, f"the next run ({ended.stderr.strip()[-300:]})", ended.returncode == 0)
        found = self.case.digest(self.out) if ended.returncode == 0 else ""
        self._expect(what, f"what the next run came to: {found[:300]}", found == self.wanted)
        left = [file.name for file in self.folder.rglob(".*") if file.name != ".lock"]
        self._expect(what, f"left: {left}", not left)

    def _run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.case.command(self.out), env=environment(), capture_output=True, text=True)

    def _expect(self, what: str, which: str, holds: bool) -> None:
        if not holds:
            self.faults.append(f"{self.case.name}, {what}: {which}")
            print("FAULT", self.faults[-1], flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, metavar="N", help="kill each command N times")
    parser.add_argument("--only", metavar="NAME", help="one command")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    faults = 0
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    with tempfile.TemporaryDirectory() as root:
        for case in cases(Path(root)):
            if told.only in (None, case.name):
                trial = Trial(case, Path(root))
                trial.moments(told.moments, told.seed)
                faults += len(trial.faults)
                print(f"{case.name:<12} {told.moments} moments: {len(trial.faults)} faults", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
