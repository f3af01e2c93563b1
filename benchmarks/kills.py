"""Kill the commands that write, at random moments and between system calls, and fill the disk under them.

    python benchmarks/kills.py --moments 30 --calls --full

For each of sample --overwrite, encode --overwrite, compare, train and convert, over a good earlier result where there
is one, a run is killed (kill -9). What must hold then: the result is the old one or the new one, whole; the same
command, run again, comes to what an undisturbed run comes to, and leaves no temporary file or folder.

    moments   killed after a random share of the time that an undisturbed run takes
    calls     killed at the n-th call of each kind that changes the disk, for every n (needs strace)
    full      on a small disk of several sizes (a tmpfs, needs root): one line with the path and exit code 2, or success

Exit code 1 if anything did not hold. A command takes a few seconds, most of them imports: half an hour in all.
"""

import argparse
import hashlib
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

import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.command_line import make_model

CALLS = ("mkdir", "rename", "renameat2", "unlink", "unlinkat", "rmdir", "fsync", "ftruncate", "flock")
MOST_CALLS = 40  # of a kind that are tried
SIZES = (0.02, 0.2, 0.5, 0.8, 0.95)  # of the disk, as shares of what a run needs


@dataclass(frozen=True)
class Case:
    """A command that writes: its words, where `out` stands for the output, and a digest of what it comes to."""

    name: str
    words: tuple[str, ...]
    digest: Callable[[Path], str]
    overwrites: bool  # whether it replaces an earlier result; the others go on, or refuse

    def command(self, out: Path) -> list[str]:
        return [sys.executable, "-m", "ddim_ode", *(str(out) if word == "OUT" else word for word in self.words)]

    def run(self, out: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(out), capture_output=True, text=True)


def tensors(file: Path) -> str:
    found = hashlib.sha256()
    for name, value in sorted(load_file(file).items()):
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def study(out: Path) -> str:
    """The errors of a study that is finished: times differ."""
    from ddim_ode.study import Study

    return repr([(row.key, row.error) for row in Study.load(out).rows])


def cases(root: Path) -> list[Case]:
    """The commands, on a tiny model."""
    model = make_model(root / "model")
    (root / "images").mkdir()
    draw = random.Random(0)
    for n in range(24):
        Image.frombytes("L", (8, 8), draw.randbytes(64)).save(root / "images" / f"{n:02d}.png")
    network = {"shape": [1, 8, 8], "channels": [32], "blocks": 1}
    config = {"model": {"network": network, "schedule": {"name": "cosine", "timesteps": 10}}, "steps": 12}
    config |= {"data": str(root / "images"), "batch_size": 4, "save_every": 2, "sample_every": 6, "log_every": 1}
    config |= {"compile": False, "precision": "float32", "label_dropout": 0.0}
    (root / "train.yaml").write_text(yaml.safe_dump(config))
    folder, images = str(model), str(root / "images")
    sampling = ("sample", folder, "--nfe", "4", "-n", "4", "--images", "--overwrite", "--out", "OUT")
    encoding = ("encode", folder, images, "--nfe", "8", "--overwrite", "--out", "OUT")
    comparing = ("compare", folder, "--methods", "ddim,adams2", "--nfe", "3,5", "-n", "2", "--reference-tol", "0.1")
    return [
        Case("sample", sampling, lambda out: tensors(out / "samples.safetensors"), True),
        Case("encode", encoding, tensors, True),
        Case("compare", (*comparing, "--out", "OUT"), study, False),
        Case("train", ("train", str(root / "train.yaml"), "--out", "OUT"), trained, False),
        Case("convert", ("convert", folder, "OUT"), converted, False),
    ]


def trained(out: Path) -> str:
    return tensors(out / "model" / "model.safetensors")


def converted(out: Path) -> str:
    return tensors(out / "unet" / "diffusion_pytorch_model.safetensors")


class Trial:
    """One command in a folder of its own, with what an undisturbed run comes to."""

    def __init__(self, case: Case, root: Path):
        self.case, self.folder = case, root / case.name
        self.folder.mkdir()
        self.out = self.folder / "out"
        began = time.monotonic()
        ended = case.run(self.out)
        self.seconds = time.monotonic() - began
        assert ended.returncode == 0, ended.stderr
        self.wanted = case.digest(self.out)
        self.size = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        self.faults: list[str] = []

    def begin(self) -> None:
        """A good earlier result, or none for a command that goes on or refuses."""
        if not self.case.overwrites:
            shutil.rmtree(self.out, ignore_errors=True)
        elif not self.out.exists():
            self.case.run(self.out)

    def check(self, what: str) -> None:
        """After a kill: whole, and whole again after the next run, which leaves nothing else."""
        if self.case.overwrites:
            self._expect(what, "a kill", self.out.exists() and self.case.digest(self.out) == self.wanted)
        elif self.case.name == "convert" and self.out.exists():
            self._expect(what, "a kill", self.case.digest(self.out) == self.wanted)
            shutil.rmtree(self.out)
        ended = self.case.run(self.out)
        self._expect(what, f"the next run ({ended.stderr.strip()[-200:]})", ended.returncode == 0)
        self._expect(what, "what the next run came to", self.case.digest(self.out) == self.wanted)
        left = [file for file in self.folder.rglob(".*") if file.name != ".lock"]
        self._expect(what, f"left: {[file.name for file in left]}", not left)

    def _expect(self, what: str, which: str, holds: bool) -> None:
        if not holds:
            self.faults.append(f"{self.case.name}, {what}: {which}")
            print("FAULT", self.faults[-1], flush=True)

    def moments(self, count: int, seed: int) -> None:
        """Killed after random times."""
        draw = random.Random(f"{seed} {self.case.name}")
        for n in range(count):
            self.begin()
            wait = draw.uniform(0, 1.05) * self.seconds
            child = subprocess.Popen(self.case.command(self.out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(wait)
            child.kill()
            child.wait()
            self.check(f"killed after {wait:.2f} s ({n + 1}/{count})")

    def calls(self) -> int:
        """Killed at every call that changes the disk; returns how many there were."""
        total = 0
        for call in CALLS:
            for n in range(1, MOST_CALLS):
                self.begin()
                inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={n}"]
                command = ["strace", "-f", "-qq", "-o", os.devnull, *inject, *self.case.command(self.out)]
                ended = subprocess.run(command, capture_output=True)
                if ended.returncode != -9 and ended.returncode != 128 + 9:  # there is no n-th call
                    break
                total += 1
                self.check(f"killed at {call} {n}")
        return total

    def full(self) -> None:
        """On disks that are too small."""
        disk = self.folder / "disk"
        disk.mkdir()
        for share in SIZES:
            size = max(int(self.size * share) // 4096, 2) * 4096
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
            try:
                ended = self.case.run(disk / "out")
                lines = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
                told = ended.returncode == 2 and len(lines) == 1 and str(disk / "out") in lines[0]
                what = f"a disk of {size} bytes"
                self._expect(what, ended.stderr[-300:], "Traceback" not in ended.stderr)
                self._expect(what, ended.stderr[-300:], ended.returncode == 0 or told)
                left = [file.name for file in disk.rglob("*.tmp")]
                self._expect(what, f"left: {left}", not left)
            finally:
                subprocess.run(["umount", disk], check=True)
        disk.rmdir()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=0, metavar="N", help="kill each command N times at random")
    parser.add_argument("--calls", action="store_true", help="kill each command at every call that changes the disk")
    parser.add_argument("--full", action="store_true", help="run each command on disks that are too small")
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
                calls = trial.calls() if told.calls else 0
                if told.full:
                    trial.full()
                faults += len(trial.faults)
                print(f"{case.name:<8} {told.moments} moments, {calls} calls: {len(trial.faults)} faults", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
