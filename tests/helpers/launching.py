"""Commands and scripts under torchrun, on the CPUs of this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RUN = "torch.distributed.run"


def environment() -> dict[str, str]:
    """That of a user, whose network is not asked, with a thread a process."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def launched(words: Sequence[object], processes: int = 2, *options: str) -> list[str]:
    """The command line of `ddim-ode WORDS` in so many processes; 1 is without a launcher."""
    command = [sys.executable, "-m", "ddim_ode", *map(str, words)]
    return command if processes == 1 else under_torchrun(["-m", "ddim_ode", *map(str, words)], processes, *options)


def under_torchrun(words: Sequence[object], processes: int = 2, *options: str) -> list[str]:
    """The command line of a script, or of `-m MODULE`, and its arguments in so many processes."""
    options = options or ("--standalone",)
    return [sys.executable, "-m", RUN, *options, "--nproc_per_node", str(processes), *map(str, words)]


def run(command: Sequence[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout)


def started(command: Sequence[str]) -> subprocess.Popen[str]:
    """A launcher in a process group of its own, that can be killed with all its processes."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def side_by_side(words: Sequence[object], processes: int = 2) -> list[subprocess.Popen[str]]:
    """Python with these words, in so many processes that know each other by their environment alone, as under srun: the
    first has the store.
    """
    run = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    command, pipe = [sys.executable, *map(str, words)], subprocess.PIPE
    return [
        subprocess.Popen(command, env={**environment(), **run, "RANK": str(rank)}, stdout=pipe, stderr=pipe, text=True)
        for rank in range(processes)
    ]


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher has started, those that are there by now."""
    folder = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(pid) for pid in folder.read_text().split()] if folder.exists() else []


def kill(*pids: int) -> None:
    """Kill processes at once, those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def free_port() -> int:
    """A port that nobody listens at, for launchers to meet."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return int(taken.getsockname()[1])
