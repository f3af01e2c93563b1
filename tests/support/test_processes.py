"""The processes of a run: one on its own, several under torchrun, and what becomes of them when one is not there."""

import json
import time
from itertools import chain

import pytest

from ddim_ode.support import processes as module
from ddim_ode.support.processes import ProcessError, is_main, local_rank, processes, speaks, world_size
from tests.helpers.launching import free_port, kill, ranks_of, run, side_by_side, started, under_torchrun

TASKS = 9
SCRIPT = """
import json, os, sys, time
from ddim_ode.support.processes import processes, speaks

here = processes()
rank = here.shared("first", lambda: os.getpid())
mine = []
for task in here.tasks("slow", {tasks}):
    time.sleep(0.05)
    mine.append(task)
here.wait("slow", {tasks})
other = processes()
again = list(other.tasks("slow", 2))
total = here.add("total", len(mine))
told = [rank, mine, again, speaks("the same words"), here.rank, here.size]
open(os.path.join(sys.argv[1], f"{{here.rank}}.json"), "w").write(json.dumps(told))
"""
WAITING = """
import sys, time
from ddim_ode.support.processes import processes
here = processes()
print("here", flush=True)
for task in here.tasks("forever", 10**9):
    here.check()
    time.sleep(0.02)
"""
FAILING = """
import time
from ddim_ode.support.processes import OtherFailedError, processes

here = processes()
try:
    with here.together():
        if here.rank == 1:
            raise TypeError("a bug")
        here.wait("what the other never does", 1)
except (TypeError, OtherFailedError) as error:
    print(type(error).__name__)
after = processes()
with after.together():
    if after.rank == 1:
        time.sleep(1)  # the first has ended by then
    print(after.shared("value", lambda: 7))
"""


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "script.py").write_text(text)
        return str(tmp_path / "script.py")

    return write


def test_a_process_on_its_own_does_everything():
    here = processes()
    assert (here.alone, here.main, is_main(), world_size(), local_rank()) == (True, True, True, 1, 0)
    assert list(here.tasks("a", 3)) == [0, 1, 2]
    here.wait("a", 3)
    assert list(processes().tasks("a", 2)) == [0, 1]  # counters of its own
    assert here.shared("value", lambda: {"x": [1, 2]}) == {"x": [1, 2]}
    assert speaks("twice")
    assert speaks("twice")


def test_a_task_that_was_left_is_not_done():
    here = processes()
    for _ in here.tasks("a", 2):
        break
    assert here.add("a/done", 0) == 0


def test_three_processes_share_the_tasks(script, tmp_path):
    ended = run(under_torchrun([script(SCRIPT.format(tasks=TASKS)), tmp_path], 3))
    assert ended.returncode == 0, ended.stderr
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    firsts, mine, again, speaking, ranks, sizes = zip(*told, strict=True)
    assert len(set(firsts)) == 1
    assert sorted(chain(*mine)) == list(range(TASKS))
    assert sorted(chain(*again)) == [0, 1]
    assert sorted(speaking) == [False, False, True]
    assert (ranks, sizes) == ((0, 1, 2), (3, 3, 3))


def test_two_launchers_meet_over_the_network(script, tmp_path):
    where = (
        "--nnodes",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        "two",
        "--rdzv-endpoint",
        f"localhost:{free_port()}",
    )
    command = under_torchrun([script(SCRIPT.format(tasks=TASKS)), tmp_path], 1, *where)
    launchers = [started(command) for _ in range(2)]
    errors = [launcher.communicate(timeout=60)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], errors
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert sorted(told[0][1] + told[1][1]) == list(range(TASKS))
    assert [each[5] for each in told] == [2, 2]


def test_without_their_launcher_the_processes_end(script):
    launcher = started(under_torchrun([script(WAITING)]))
    assert launcher.stdout.readline() == "here\n"
    assert launcher.stdout.readline() == "here\n"
    assert len(ranks_of(launcher)) == 2
    kill(launcher.pid)
    _, err = launcher.communicate(timeout=20)  # which ends when the last of them has closed the streams
    assert "run it again, and it goes on where it was" in err


def test_of_several_processes_without_a_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ProcessError, match=r"WORLD_SIZE=2 says .*, and RANK is not set; start this with torchrun"):
        processes()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ProcessError, match="WORLD_SIZE='two' in the environment is no number"):
        world_size()


def test_of_a_failure_all_learn_and_the_first_ends_last(script):
    both = side_by_side([script(FAILING)])
    told = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [out.split() for out, _ in told] == [
        ["OtherFailedError", "7"],
        ["TypeError", "7"],
    ]  # a job later all is well


def test_a_launcher_that_was_gone_before_is_not_waited_for(monkeypatch):
    gone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    for name, value in {**gone, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(ProcessError, match=r"the other processes are not at localhost:\d+ .*; start all of them again"):
        processes()
    assert time.monotonic() - began < module.FAILING.total_seconds()


def test_an_environment_that_says_no_number_does_not_hide_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    module.fail()
    assert speaks("words")
