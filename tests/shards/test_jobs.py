"""A job's folder: the first process decides and looks for what is missing, the others agree with it, or say why not."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from torch.distributed import HashStore

from ddim_ode.shards import jobs
from ddim_ode.shards.jobs import REPLACES, ShardError, job, patiently
from ddim_ode.shards.listed import SAMPLES
from ddim_ode.support.files import OutputError
from ddim_ode.support.outputs import going_on
from ddim_ode.support.processes import Processes, alone
from ddim_ode.support.shards import JOB
from tests.helpers.assertions import one_line

RECORD = {"command": "sample", "nfe": 10, "sigmas": (80.0, 0.0), "seeds": "0-2", "shard_size": 2, "format": "png"}
OTHER = RECORD | {"nfe": 20}
IMAGES = [f"images/{n:06d}.png" for n in range(3)]


@pytest.fixture
def two(monkeypatch):
    """Two processes of one run, both of which are this one."""
    monkeypatch.setattr(jobs, "LOOKS", (0.01, 0.02))
    store = HashStore()
    return [Processes(rank, 2, os.getppid(), store, "job") for rank in range(2)]


def never():
    raise AssertionError("it was looked for again")


def begin(folder, record=RECORD, find=dict, here=None, **options):
    return job(here or alone(), folder, record, SAMPLES, find=find, **options)


def refused(folder, record=RECORD, find=never, **options):
    """What is said instead of beginning."""

    def enter():
        with begin(folder, record, find, **options):
            pass

    return one_line(OutputError, enter)


@pytest.fixture
def old(tmp_path):
    """A folder with the pictures of another run."""
    with begin(tmp_path / "out", OTHER):
        (tmp_path / "out" / "images").mkdir()
        for name in IMAGES:
            (tmp_path / "out" / name).write_text("picture")
    return tmp_path / "out"


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}


def test_what_was_found_is_kept(tmp_path):
    with begin(tmp_path / "a" / "b", find=lambda: {"tol": 0.1}) as told:
        assert told["found"] == {"tol": 0.1}
    with begin(tmp_path / "a" / "b", find=never) as again:
        assert again == told
    assert json.loads((tmp_path / "a" / "b" / JOB).read_text())["nfe"] == 10


def test_the_others_are_told(two, tmp_path):
    with (
        begin(tmp_path, find=lambda: {"tol": 0.1}, here=two[0]) as first,
        begin(tmp_path, find=never, here=two[1]) as second,
    ):
        assert first == second


def test_another_that_was_started_otherwise_says_so(two, tmp_path):
    with begin(tmp_path, here=two[0]):
        assert refused(tmp_path, OTHER, here=two[1]) == (
            "process 2 of 2 was not started as the first, whose nfe is 10, not 20; give all of them the same"
        )


@pytest.mark.parametrize("theirs", ["none", "old"])
def test_another_with_another_file_system_says_so(two, tmp_path, theirs):
    with begin(tmp_path / "old", find=lambda: {"tol": 0.2}):
        pass
    with begin(tmp_path / "first", find=lambda: {"tol": 0.1}, here=two[0]):
        assert refused(tmp_path / theirs, here=two[1]) == (
            f"process 2 of 2 does not see {tmp_path}/{theirs}/job.json of this run"
            "; give a folder on a file system that all processes share"
        )


def test_what_is_late_to_be_seen_is_waited_for(two):
    looks = []

    def look():
        looks.append(1)
        if len(looks) < 3:
            raise ShardError("not yet")
        return "seen"

    assert patiently(look, two[1]) == "seen"
    with pytest.raises(ShardError):
        patiently(lambda: looks.clear() or look(), two[1])
    looks.clear()
    with pytest.raises(ShardError):
        patiently(look, alone())  # whose own files are there at once
    assert len(looks) == 1


def test_what_was_begun_and_killed_at_once_goes_on(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / f".{JOB}.0123456789ab.tmp").touch()
    with begin(tmp_path) as told:
        assert told["nfe"] == 10


def test_nothing_is_looked_for_before_the_folder_is_free(tmp_path, old):
    (tmp_path / "file").touch()
    assert "is a file; choose another --out" in refused(tmp_path / "file")
    assert "belongs to another run: its nfe is 20, not 10; give the same, choose another --out" in refused(old)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").touch()
    assert "is not empty and not a run of this program" in refused(tmp_path / "theirs", overwrite=True)
    assert os.listdir(tmp_path / "theirs") == ["notes.txt"]
    with going_on(tmp_path / "busy", JOB, SAMPLES.name, {}):
        (tmp_path / "busy" / JOB).unlink()
        assert "another run is at work in" in refused(tmp_path / "busy")


def test_a_search_that_fails_leaves_all_as_it_was(tmp_path, old):
    def fail():
        raise ShardError("no such tolerance")

    before = files(old)
    for folder, overwrite in ((tmp_path / "new", False), (old, True)):
        with pytest.raises(ShardError), begin(folder, find=fail, overwrite=overwrite):
            pass
    assert not (tmp_path / "new").exists()
    assert files(old) == before
    with begin(old, OTHER, never):
        pass


def test_the_old_run_goes_before_the_new_one_begins(old):
    (old / "images" / ".DS_Store").touch()
    with begin(old, overwrite=True) as told:
        assert REPLACES not in told
        assert files(old) == {JOB}
        assert not (old / "images").exists()


@pytest.mark.parametrize("name", [".mynotes.tmp", "images/7.png", "shards/9.json", "notes/", "samples.npz"])
def test_what_no_record_names_is_not_deleted(old, name):
    if name.endswith("/"):
        (old / name).mkdir()
    else:
        (old / name).parent.mkdir(exist_ok=True)
        (old / name).write_text("mine")
    line = refused(old, overwrite=True)
    assert f"holds {name}, which no run has written and --overwrite would delete; move it away" in line
    assert {*IMAGES, JOB} <= files(old)


def test_what_a_link_leads_to_stays(old, tmp_path):
    shutil.rmtree(old / "images")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.png").write_text("mine")
    (old / "images").symlink_to(tmp_path / "mine")
    (old / "grid.png").touch()
    with begin(old, overwrite=True):
        assert files(old) == {JOB}
    assert os.listdir(tmp_path / "mine") == ["000000.png"]


def test_what_came_during_the_search_is_not_deleted(old):
    def find():
        (old / "thesis.txt").write_text("mine")
        return {}

    assert "holds thesis.txt, which no run has written" in refused(old, find=find, overwrite=True)
    assert {*IMAGES, JOB, "thesis.txt"} == files(old)
    with begin(old, OTHER, never):  # which goes on
        pass


def test_what_came_after_a_kill_is_not_deleted(old, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jobs._Claim, "_clear", never)
        with pytest.raises(TypeError), begin(old, overwrite=True):
            pass
    assert json.loads((old / JOB).read_text())[REPLACES] == ["images/", *IMAGES]
    (old / "images" / "7.png").write_text("mine")
    assert "holds images/7.png, which no run has written" in refused(old)
    (old / "images" / "7.png").unlink()
    with begin(old, find=never):
        assert files(old) == {JOB}


def test_room_is_looked_for_before_the_old_run_goes(old, monkeypatch):
    before, usage = files(old), shutil.disk_usage(old)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    line = refused(old, overwrite=True, need=1022)
    assert "has too little room: what is missing takes 1.02 kB, and 1.02 kB are free once the other run is gone" in line
    assert files(old) == before
    with begin(old, overwrite=True, need=1021):  # three pictures are 21 bytes
        assert files(old) == {JOB}


def test_a_damaged_record_is_not_gone_on_from(tmp_path, old):
    (old / JOB).write_text((old / JOB).read_text().replace("20", "21"))
    assert f"{JOB} is not as it was written" in refused(old, OTHER)
    assert "holds images/, which no run has written" in refused(old, overwrite=True)  # as far as one can tell
    shutil.rmtree(old / "images")
    with begin(old, overwrite=True) as told:
        assert told["nfe"] == 10


def test_a_job_of_another_command_is_told(tmp_path):
    likelihoods = replace(SAMPLES, name="ddim_ode likelihood shards 1", replaceable=False, option="--keep")
    with job(alone(), tmp_path, {"n": 3}, likelihoods):
        pass
    for overwrite in (False, True):
        assert refused(tmp_path, overwrite=overwrite) == (
            f"{tmp_path} is of another command: its job.json says 'ddim_ode likelihood shards 1', and not"
            " 'ddim_ode job 1'; choose another --out"
        )


def test_a_job_of_which_there_is_nothing_gives_way(tmp_path):
    with begin(tmp_path, OTHER):
        (tmp_path / "shards").mkdir()
    with begin(tmp_path) as told:
        assert told["nfe"] == 10
