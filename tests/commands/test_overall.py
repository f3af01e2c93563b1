"""Progress over all processes: what is counted, and the line that each leaves in a log."""

import pytest

from ddim_ode.commands.shared.overall import Overall, overall
from ddim_ode.support.processes import Processes, processes


@pytest.fixture
def here():
    return processes()


def test_what_is_done_is_counted_once(here):
    shown = []
    counted = Overall(here, shown.append)
    for done in (0.4, 1.6, 1.6, 3.0):
        counted.update(done)
    assert shown == [0, 1, 1, 3]
    other = Overall(here, shown.append)  # as of another process, which shares the counter
    other.update(4)
    counted.idle()
    assert shown[-2:] == [7, 7]


def test_a_part_that_is_done_again_does_not_count_backwards(here):
    shown = []
    counted = Overall(here, shown.append)
    counted.update(2.0)
    counted.update(1.0)
    assert shown == [2, 2]


def test_several_processes_leave_a_line_each(here, capsys):
    with overall(here, 10) as alone:
        alone.update(10)
        alone.finished("1 of 1 shards")
    assert capsys.readouterr().err == ""
    second = Processes(rank=1, size=2, parent=here.parent, store=here.store, job=here.job)
    counted = Overall(second, lambda done: pytest.fail("the first process alone shows it"))
    counted.here.store.add(f"{here.job}/samples done", 0)
    counted.idle()
    counted.finished("3 of 5 shards")
    assert capsys.readouterr().err.startswith("process 2 of 2: 3 of 5 shards, 0 in 0 s, 0.0/s")
