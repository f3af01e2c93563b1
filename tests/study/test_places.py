"""A device to each process that measures: a GPU, or cores of its own."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
import torch

from ddim_ode.study.places import machine, own_cores, placed, whole_cores

CPU = torch.device("cpu")
affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a system without affinities")


@pytest.fixture
def rank(monkeypatch):
    def of(number: int, size: int) -> None:
        monkeypatch.setenv("WORLD_SIZE", str(size))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(size))
        monkeypatch.setenv("LOCAL_RANK", str(number))
        monkeypatch.setattr(os, "getppid", os.getpid)  # the launcher has the cores of this process

    return of


@contextmanager
def waiting_thread() -> Iterator[int]:
    """The system's number of a thread that does nothing meanwhile."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    try:
        yield thread.native_id
    finally:
        end.set()
        thread.join()


@affinity
def test_the_cores_are_shared_out_and_given_back(rank):
    had = os.sched_getaffinity(0)
    if len(whole_cores(had)) < 2:
        pytest.skip("one core")
    places, shares = [], []
    for number in range(2):
        rank(number, 2)
        with placed(CPU) as place:
            places.append(place)
            shares.append(os.sched_getaffinity(0))
            assert {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")} == {
                frozenset(shares[-1])
            }
        assert os.sched_getaffinity(0) == had
    assert shares[0] | shares[1] <= had
    assert not shares[0] & shares[1]
    assert places[0].key != places[1].key
    assert [place.threads for place in places] == [len(share) for share in shares]


@affinity
def test_each_thread_gets_back_the_cores_that_it_had(rank):
    had = os.sched_getaffinity(0)
    if len(whole_cores(had)) < 2:
        pytest.skip("one core")
    with waiting_thread() as old:
        own = {max(had)}
        os.sched_setaffinity(old, own)
        rank(0, 2)
        with placed(CPU), waiting_thread() as new:
            assert os.sched_getaffinity(old) == os.sched_getaffinity(new) == os.sched_getaffinity(0) != had
            ended = ExitStack()
            later = ended.enter_context(waiting_thread())
        with ended:
            assert os.sched_getaffinity(old) == own
            assert os.sched_getaffinity(later) == os.sched_getaffinity(0) == had


@affinity
def test_a_thread_that_cannot_be_moved_leaves_the_others_where_they_were(rank, monkeypatch):
    had, move = os.sched_getaffinity(0), os.sched_setaffinity
    if len(whole_cores(had)) < 2:
        pytest.skip("one core")
    with waiting_thread() as last:

        def refuse(thread: int, cores: set[int]) -> None:
            if thread == last and cores != had:
                raise PermissionError("not this one")
            move(thread, cores)

        monkeypatch.setattr(os, "sched_setaffinity", refuse)
        rank(0, 2)
        with pytest.raises(PermissionError), placed(CPU):
            pass
        assert os.sched_getaffinity(0) == had


@affinity
def test_more_processes_than_cores_are_on_one_device(rank):
    keys = set()
    for number in range(2):
        rank(number, 1000)
        with placed(CPU) as place:
            keys.add(place.key)
            assert (place.name, place.threads) == ("cpu", None)
    assert len(keys) == 1


@affinity
def test_cores_that_somebody_has_given_a_process_are_left_to_it(rank, monkeypatch):
    rank(0, 2)
    assert own_cores() or len(whole_cores(os.sched_getaffinity(0))) < 2
    had = os.sched_getaffinity
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: had(pid) if pid == 0 else had(0) | {4095})
    assert own_cores() is None


def test_a_process_on_its_own_keeps_all_cores():
    assert own_cores() is None
    with placed(CPU) as place:
        assert place.name == "cpu"
        assert machine() in place.key


def test_a_gpu_is_known_by_what_it_is_and_not_by_its_number(monkeypatch):
    """A launcher may show each process its own GPU alone, as the first."""
    keys = []
    for identifier in ("GPU-a", "GPU-b", "GPU-a"):
        facts = SimpleNamespace(uuid=identifier)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, facts=facts: facts)
        with placed(torch.device("cuda:0")) as place:
            keys.append(place.key)
            assert place.name == "cuda:0"
    assert keys[0] == keys[2] != keys[1]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with placed(torch.device("cuda")) as place:
        assert place.name == "cuda:3"
        assert machine() in place.key


def test_the_threads_of_a_core_go_together(tmp_path):
    for number in range(4):
        topology = tmp_path / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{number % 2},{number % 2 + 2}\n")
    assert whole_cores(range(4), tmp_path) == [{0, 2}, {1, 3}]
    assert whole_cores({0, 1, 3}, tmp_path) == [{0}, {1, 3}]
    for number in (0, 2):
        (tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list").write_text("0-0,2-2")
    assert whole_cores({0, 2}, tmp_path) == [{0, 2}]
    assert whole_cores({7, 5}, tmp_path) == [{5}, {7}]  # of which the system does not tell
