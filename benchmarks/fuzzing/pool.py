"""Workers, their watchdog, and the loop over inputs."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import Queue

from benchmarks.fuzzing.inputs import FOREIGN, HANG, Verdict

ROOT = Path(__file__).parents[2]
SECONDS = 20.0  # of an input
GRACE = 5.0  # until one that does not hear the alarm is killed
START = 120.0  # of a worker, or of the files that an input begins with

#: one thread each, no network, no compiler, no terminal
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MPLBACKEND": "Agg",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "PYTHONFAULTHANDLER": "1",
    "COLUMNS": "100",
}


class Lost(Exception):
    """A worker that does not answer any more; `late` if it still lives."""

    def __init__(self, late: bool):
        super().__init__("late" if late else "dead")
        self.late = late


class Worker:
    """A process with a folder of its own; started anew after each death."""

    def __init__(self, root: Path, seconds: float = SECONDS):
        self.root, self.seconds = root, seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.buffer = b""

    def judge(self, name: str) -> Verdict:
        """What came of the input of a name."""
        what = ""
        try:
            self._say(name)
            what = json.loads(self._hear(START))
            return Verdict(**json.loads(self._hear(self.seconds + GRACE)))
        except Lost as lost:
            code = self.stop()
            trace = (self.root / "stderr").read_text(errors="replace")[-20_000:]
            error = "Hung" if lost.late else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return Verdict(name, what, HANG if lost.late else FOREIGN, error, _frame(trace), "", trace)

    def stop(self) -> int:
        """End the process and its children; returns its exit code, which is negative for a signal."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        code = process.poll()
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, and left nobody
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        return process.returncode if code is None else code

    def _say(self, name: str) -> None:
        if self.process is None:
            self.buffer = b""
            command = [sys.executable, "-m", "benchmarks.fuzzing.worker", str(self.root), str(self.seconds)]
            with open(self.root / "stderr", "wb") as log:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
                    start_new_session=True,
                )
            self._hear(START)  # ready
        assert self.process.stdin
        try:
            self.process.stdin.write(name.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Lost(late=False) from None

    def _hear(self, seconds: float) -> str:
        assert self.process
        assert self.process.stdout
        pipe = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            if not select.select([pipe], [], [], seconds)[0]:
                raise Lost(late=True)
            more = os.read(pipe, 65536)
            if not more:
                self.process.wait()
                raise Lost(late=False)
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()


def run(names: Sequence[str], workers: int = 1, seconds: float = SECONDS) -> Iterator[Verdict]:
    """The verdict of each input, as they come in, from so many workers at a time."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    idle: Queue[Worker] = Queue()
    everyone = [Worker(root / f"{number}", seconds) for number in range(workers)]
    for worker in everyone:
        worker.root.mkdir()
        idle.put(worker)

    def judge(name: str) -> Verdict:
        worker = idle.get()
        try:
            return worker.judge(name)
        finally:
            idle.put(worker)

    try:
        with ThreadPoolExecutor(workers) as pool:
            waiting: set[Future[Verdict]] = set()
            try:
                for name in names:
                    waiting.add(pool.submit(judge, name))
                    if len(waiting) >= 2 * workers:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                yield from (future.result() for future in waiting)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        for worker in everyone:
            worker.stop()
        shutil.rmtree(root, ignore_errors=True)


def _frame(trace: str) -> str:
    """The innermost frame of ddim_ode in what faulthandler wrote, whose most recent call comes first."""
    found = re.search(r'File ".*/ddim_ode/([^"]+)", line (\d+) in (\S+)', trace)
    return "{}:{} in {}".format(*found.groups()) if found else ""
