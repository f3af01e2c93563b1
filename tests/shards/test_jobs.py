"""A job's folder: the first process decides and looks for what is missing, the others agree with it, or say why not."""

import json
import os

import pytest
from torch.distributed import HashStore

from ddim_ode.shards.jobs import JOB, difference, job
from ddim_ode.support.files import OutputError
from ddim_ode.support.processes import Processes, processes

RECORD = {"command": "sample", "nfe": 10, "sigmas": (80.0, 0.0)}


@pytest.fixture
def two():
    """Two processes of one run, both of which are this one."""
    store = HashStore()
    return [Processes(rank, 2, os.getppid(), store, "job") for rank in range(2)]


def never():
    raise AssertionError("it was looked for again")


def test_what_was_found_is_kept(tmp_path):
    with job(processes(), tmp_path / "a" / "b", RECORD, lambda: {"tol": 0.1}) as told:
        assert told["found"] == {"tol": 0.1}
    with job(processes(), tmp_path / "a" / "b", RECORD, never) as again:
        assert again == told
    assert json.loads((tmp_path / "a" / "b" / JOB).read_text())["nfe"] == 10


def test_the_others_are_told(two, tmp_path):
    with job(two[0], tmp_path, RECORD, lambda: {"tol": 0.1}) as first, job(two[1], tmp_path, RECORD, never) as second:
        assert first == second


def test_another_that_was_started_otherwise_says_so(two, tmp_path):
    said = "process 2 of 2 was not started as the first, whose nfe is 10, not 20; give all of them the same"
    with (
        job(two[0], tmp_path, RECORD, dict),
        pytest.raises(OutputError, match=said),
        job(two[1], tmp_path, RECORD | {"nfe": 20}, never),
    ):
        pass


@pytest.mark.parametrize("theirs", ["none", "old"])
def test_another_with_another_file_system_says_so(two, tmp_path, theirs):
    with job(processes(), tmp_path / "old", RECORD, lambda: {"tol": 0.2}):
        pass
    said = f"process 2 of 2 does not see {tmp_path}/{theirs}/job.json of this run; give a folder on a file system that"
    with (
        job(two[0], tmp_path / "first", RECORD, lambda: {"tol": 0.1}),
        pytest.raises(OutputError, match=said),
        job(two[1], tmp_path / theirs, RECORD, never),
    ):
        pass


def test_what_was_begun_and_killed_at_once_goes_on(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / f".{JOB}.0123456789ab.tmp").touch()
    with job(processes(), tmp_path, RECORD, dict) as told:
        assert told["nfe"] == 10


def test_a_damaged_record_is_not_gone_on_from(tmp_path):
    with job(processes(), tmp_path, RECORD, dict):
        pass
    (tmp_path / JOB).write_text((tmp_path / JOB).read_text().replace("10", "11"))
    with (
        pytest.raises(OutputError, match=r"job\.json is not as it was written"),
        job(processes(), tmp_path, RECORD, never),
    ):
        pass


def test_a_difference_is_one_value_in_words():
    assert difference({"a": 1, "b": None, "more": 0}, {"a": 1, "b": None}) == ""
    assert difference({"a": [1, 2]}, {"a": None}) == "a is [1, 2], not null"
    assert difference({}, {"a": "x" * 200}).endswith(' ... xxxxxxxxxxxxxxxx"')
