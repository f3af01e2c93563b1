"""A study over several processes is the study of one, wherever it is cut short and whoever measures what."""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

import ddim_ode
from ddim_ode.errors import DDIMError
from ddim_ode.study import archive, comparison, sharing
from ddim_ode.study.cells import StudyError, cells_of, named
from ddim_ode.study.comparison import Study, compare
from ddim_ode.study.places import Place, SharedDeviceWarning
from ddim_ode.study.progress import Watch
from ddim_ode.study.report.page import render
from ddim_ode.study.sharing import longest_first
from ddim_ode.support.files import OutputError
from ddim_ode.support.process import computing
from ddim_ode.support.processes import OtherFailedError, Processes, processes
from tests.helpers import launching
from tests.helpers.assertions import one_line
from tests.helpers.launching import kill, launched, ranks_of, under_torchrun
from tests.helpers.small_study import MODEL, SMALL, timeless

ROOT = Path(__file__).parents[2]
SHARED = {**SMALL, "batch_size": 2}  # a reference of three parts
ONE = {"methods": ["ddim"], "nfe": [4]}  # cell
PROCESS = threading.local()  # that a thread passes for


def of(size: int, store: HashStore | None = None, job: str = "job") -> list[Processes]:
    """The processes of one run, in one process."""
    store = store or HashStore()
    return [Processes(rank, size, os.getppid(), store, job) for rank in range(size)]


def in_threads(*calls: Callable[[], Study]) -> list[Study | BaseException]:
    """What calls return, or raise, that are at work at once."""
    found: list[Study | BaseException] = [RuntimeError()] * len(calls)

    def keep(n: int) -> None:
        try:
            found[n] = calls[n]()
        except BaseException as error:
            found[n] = error

    threads = [threading.Thread(target=keep, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def shared(out: Path | None, here: Processes, callback=None, **choices) -> Callable[[], Study]:
    """A call that makes a study as one of several processes."""

    def call() -> Study:
        PROCESS.here = here
        try:
            return compare(MODEL, **{**SHARED, **choices}, out=out, callback=callback)
        finally:
            del PROCESS.here

    return call


@pytest.fixture(autouse=True)
def threads_are_processes(monkeypatch):
    monkeypatch.setattr(comparison, "processes", lambda: getattr(PROCESS, "here", None) or processes())


@pytest.fixture
def own_devices(monkeypatch):
    """Threads that pass for processes have a device each."""

    @contextmanager
    def placed(device: torch.device) -> Iterator[Place]:
        yield Place(f"core {threading.get_ident()}", f"{threading.get_ident()}")

    monkeypatch.setattr(sharing, "placed", placed)


def page_of(study: Study) -> str:
    """Without what no two runs share."""
    results = json.loads(json.dumps(study.results))
    results["timing"] |= {"seconds": 1, "network_seconds": 1, "ratio": 1, "processes": 1, "devices": ["cpu"]}
    for row in results["rows"]:
        row["timing"] = row["timing"] and dict.fromkeys(row["timing"], 1.0)
    return render(results, {})


def test_two_processes_write_the_study_of_one(run, model, tmp_path):
    words = ["compare", model, "--methods", "ddim,dopri5", "--nfe", "2,5", "-n", 17, "--reference-tol", 0.1]
    both = launching.run(launched([*words, "--out", tmp_path / "two"], 2))
    assert both.returncode == 0, both.stderr
    with computing(1):
        out = run(*words, "--out", tmp_path / "one").out
    one, two = (Study.load(tmp_path / name) for name in ("one", "two"))
    assert timeless(two) == timeless(one)
    assert page_of(two) == page_of(one)
    assert two.pictures.keys() == one.pictures.keys()
    assert all(torch.equal(pictures, one.pictures[key]) for key, pictures in two.pictures.items())
    assert both.stdout.count("best at ") == out.count("best at ") == 2  # one alone tells
    assert {row.status for row in two.rows} == {"done", "skipped"}
    assert (two.timing.processes, two.timing.evaluations) == (2, one.timing.evaluations)
    assert len(two.timing.devices) in (1, 2)
    for number in (1, 2):
        assert f"process {number} of 2: " in both.stderr
    assert not (tmp_path / "two" / "reference").exists()


def test_a_process_is_killed_and_the_study_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = under_torchrun(["-m", "tests.helpers.killed_study", tmp_path / "a", tmp_path / "told.json"])
    launcher = launching.started(command)
    cells, deadline = tmp_path / "a" / "cells", time.monotonic() + 60
    while len(list(cells.glob("*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    kept = {file.name: file.read_bytes() for file in cells.glob("*.safetensors")}
    kill(ranks_of(launcher)[-1])
    launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert not (tmp_path / "told.json.0").exists()
    assert launching.run(command).returncode == 0
    with computing(1):
        wanted = timeless(compare(MODEL, **SMALL))
    assert [json.loads((tmp_path / f"told.json.{rank}").read_text()) for rank in range(2)] == [wanted, wanted]
    assert len(list(cells.iterdir())) == 1 + len(wanted["rows"])
    assert all((cells / name).read_bytes() == written for name, written in kept.items())  # nothing was done twice


def test_parts_of_the_reference_and_cells_are_shared(own_devices, tmp_path):
    def slow(now):
        time.sleep(0.03 if now.own else 0)  # so that none is done with all cells before the other has one

    here, one = of(2), compare(MODEL, **SHARED)
    studies = in_threads(*(shared(tmp_path, each, slow) for each in here))
    for found in studies:
        assert timeless(found) == timeless(one)
        assert found.timing.processes == len(found.timing.devices) == 2
        assert found.timing.evaluations == one.timing.evaluations
        assert found.results == studies[0].results
    assert here[0].add("reference, resolution 1/done", 0) == 3
    assert here[0].add("cells/done", 0) == 8


def test_of_processes_on_one_device_one_measures_and_that_is_said_once(tmp_path):
    took: set[int] = set()

    def watching(here: Processes) -> Callable[[], Study]:
        return shared(tmp_path, here, lambda now: took.add(here.rank) if now.own else None)

    with pytest.warns(SharedDeviceWarning, match="not each of 3 processes has a GPU, or cores, to itself") as warned:
        studies = in_threads(*map(watching, of(3)))
    assert len([each for each in warned if each.category is SharedDeviceWarning]) == 1
    assert len(took) == 1
    assert {len(found.timing.devices) for found in studies} == {1}
    assert all(found.rows == studies[0].rows for found in studies)


@dataclasses.dataclass(frozen=True)
class Broken:
    """It fails, and says how often."""

    calls: list[int] = dataclasses.field(default_factory=list, repr=False)
    to_zero = False

    def init(self, ode, sigmas, y):
        self.calls.append(len(y))
        raise RuntimeError("the network has had enough")


def test_what_fails_in_one_process_fails_once_and_is_a_row_in_all(own_devices, tmp_path):
    broken = dataclasses.replace(ddim_ode.METHODS["ddim"], solver=Broken())
    methods = {"broken": broken, "ddim": "ddim", "dopri5": "dopri5"}
    studies = in_threads(*(shared(tmp_path, each, methods=methods, nfe=[2]) for each in of(2)))
    for found in studies:
        assert [row.status for row in found.rows] == ["failed", "done", "skipped"]
        assert found.rows[0].reason == "RuntimeError: the network has had enough"
        assert found.results == studies[0].results
    assert len(broken.solver.calls) == 1


def test_a_process_that_fails_ends_the_others_and_not_what_they_do_next(own_devices, tmp_path):
    store = HashStore()

    def fail(now):
        if now.own and store.add("told", 1) == 1:
            raise OSError("the disk of my log is full")

    errors = in_threads(*(shared(tmp_path, each, fail) for each in of(2, store)))
    assert {type(error) for error in errors} == {OtherFailedError, OSError}
    studies = in_threads(*(shared(tmp_path, each, **ONE) for each in of(2, store, "next job")))
    assert studies[0].rows == studies[1].rows


@pytest.mark.parametrize("choice", [{"methods": ["tuned"]}, {"seeds": []}, {"callback": "not one"}])
def test_a_process_that_is_asked_for_what_cannot_be_ends_the_others(choice, own_devices, tmp_path):
    here = of(2)
    errors = in_threads(shared(tmp_path, here[0]), shared(tmp_path, here[1], **choice))
    assert isinstance(errors[0], OtherFailedError)
    assert isinstance(errors[1], DDIMError)
    assert not isinstance(errors[1], OtherFailedError)


@pytest.mark.parametrize("late", ["reference, resolution 2", "cells"])
def test_the_folder_is_held_until_all_have_read_it(late, own_devices, monkeypatch, tmp_path):
    wait, ended, said = Watch.wait, threading.Event(), []

    def slow(watch, name, total):
        wait(watch, name, total)
        if (watch.here.rank, name) == (1, late):
            ended.wait(0.5)
            said.append(one_line(OutputError, archive.opened(tmp_path, {}).__enter__))

    monkeypatch.setattr(Watch, "wait", slow)
    here = of(2)

    def first() -> Study:
        found = shared(tmp_path, here[0], **ONE)()
        ended.set()
        return found

    studies = in_threads(first, shared(tmp_path, here[1], **ONE))
    assert studies[0].results == studies[1].results
    assert said == [f"another run is at work in {tmp_path}; wait for it, or choose another --out"]
    assert not (tmp_path / "reference").exists()


def test_no_cell_is_timed_while_another_process_is_on_its_way(monkeypatch, tmp_path):
    compare(MODEL, **{**SHARED, **ONE}, out=tmp_path)
    events = []

    @contextmanager
    def placed(device: torch.device) -> Iterator[Place]:
        if PROCESS.here.rank == 1:
            time.sleep(0.5)
            events.append("placed")
        yield Place("core", f"{PROCESS.here.rank}")

    def callback(now):
        if now.own:
            events.append("measures")

    monkeypatch.setattr(sharing, "placed", placed)
    in_threads(*(shared(tmp_path, each, callback, methods=["ddim", "adams4"]) for each in of(2)))
    assert events[0] == "placed"
    assert "measures" in events


def test_every_process_sees_the_folder_and_is_asked_for_the_same(tmp_path):
    first, other = of(2)
    told = {"folder": archive.record_digest(tmp_path), "cells": [], "threads": 1}
    first.tell("study", {**told, "folder": "of another machine"})
    line = one_line(StudyError, shared(tmp_path, other))
    assert line == f"{tmp_path} is not the folder that the first process sees; give one that all processes share"
    compare(MODEL, **{**SMALL, "methods": ["ddim"], "nfe": [4]}, out=tmp_path)
    first.tell("study", {**told, "folder": archive.record_digest(tmp_path)})
    line = one_line(StudyError, shared(tmp_path, other))
    assert line == "this process was asked for other methods, grids or budgets than the first; ask all alike"
    line = one_line(StudyError, shared(tmp_path, other, seeds=range(1, 7)))
    assert "belongs to another study: its seeds is [0, 1, 2, 3, 4, 5], not [1, 2, 3, 4, 5, 6]" in line


def test_several_processes_need_a_folder():
    line = one_line(StudyError, shared(None, of(2)[1]))
    assert line == "out=None: 2 processes share a study by its folder; give out, or start one process"


def test_the_longest_cells_come_first():
    methods = named(["ddim", "adaptive"], MODEL)
    cells = [*cells_of(methods, [4, 9], [], ["own"], []), *cells_of(methods, [5], [0.1], ["own"], [])]
    first = [(cells[n].name, cells[n].nfe) for n in longest_first(cells)]
    adaptive = [("adaptive", None), ("adaptive", 9), ("adaptive", 4)]
    assert first == [*adaptive, ("ddim", 9), ("ddim", 5), ("ddim", 4)]
