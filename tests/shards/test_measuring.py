"""Numbers of images by shards: what is there is not measured again, what is another job's is refused by name."""

import json
import os

import pytest
import torch
from torch.distributed import HashStore

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards import jobs
from ddim_ode.shards.jobs import ShardError, ShardWarning
from ddim_ode.shards.measuring import UNWATCHED, Job, Numbers, Watched, digests, measured
from ddim_ode.support.outputs import OutputError
from ddim_ode.support.processes import ProcessError, Processes, alone
from ddim_ode.support.shards import JOB
from tests.helpers.assertions import one_line

IMAGES = torch.arange(10 * 4, dtype=torch.uint8).reshape(10, 1, 2, 2)


class Killed(Exception):
    """What ends a run in the middle."""


class Measure:
    """The sum of each image and its label; keeps account of what it was given."""

    def __init__(self):
        self.first: list[int] = []

    def __call__(self, part):
        self.first.append(part.first)
        part.done(len(part.x) / 2)
        labels = 0 if part.labels is None else part.labels
        return Numbers({"sum": part.x.double().sum((1, 2, 3)) + labels}, {"threads": torch.get_num_threads()})


def job(**changes):
    told = {"name": "sums", "images": IMAGES, "labels": None, "total": 10, "size": 4, "threads": 1}
    return Job(**{**told, "facts": {"method": "sum", "seed": 0}, **changes})


def sums(shards):
    return torch.cat([shard.each["sum"] for shard in shards]).tolist()


EXPECTED = IMAGES.double().sum((1, 2, 3)).tolist()


def process(rank, store):
    return Processes(rank, 2, os.getppid(), store, "job")


@pytest.mark.parametrize("kept", [False, True])
def test_all_shards_are_measured_once(tmp_path, kept):
    measure, told = Measure(), []
    keep = tmp_path / "kept" if kept else None
    found = measured(job(), measure, keep, alone(), Watched(done=told.append))
    assert sums(found) == EXPECTED
    assert measure.first == [0, 4, 8]
    assert [shard.facts for shard in found] == [{"threads": 1}] * 3
    assert told == sorted(told)
    assert (told[0], told[1], told[-1]) == (0, 2, 10)
    names = {f"sums-{n:05d}-of-00003.safetensors" for n in range(3)} | {JOB, ".lock"}
    assert not kept or {file.name for file in keep.iterdir()} == names


def test_labels_and_a_part_of_the_images():
    labels = torch.arange(7) * 100
    found = measured(job(labels=labels, total=7), Measure(), None, alone(), UNWATCHED)
    assert sums(found) == [s + 100 * i for i, s in enumerate(EXPECTED[:7])]


def test_a_run_that_was_killed_goes_on(tmp_path):
    def stop(done):
        if done > 4:
            raise Killed

    with pytest.raises(Killed):
        measured(job(), Measure(), tmp_path, alone(), Watched(done=stop))
    measure = Measure()
    assert sums(measured(job(), measure, tmp_path, alone(), UNWATCHED)) == EXPECTED
    assert measure.first == [4, 8]
    again = Measure()
    assert sums(measured(job(), again, tmp_path, alone(), UNWATCHED)) == EXPECTED
    assert again.first == []


def test_of_two_processes_one_waits_for_the_other(tmp_path):
    store, helped = HashStore(), Measure()
    first, second = process(0, store), process(1, store)
    seen = []

    def help_out(done):
        if done == 2 and not seen:  # in the middle of the first shard
            seen.append(measured(job(), helped, tmp_path, second, UNWATCHED))

    measure = Measure()
    assert sums(measured(job(), measure, tmp_path, first, Watched(done=help_out))) == EXPECTED
    assert (seen, measure.first, helped.first) == ([None], [0], [4, 8])


def test_a_flipped_bit_is_said_and_measured_again(tmp_path):
    measured(job(), Measure(), tmp_path, alone(), UNWATCHED)
    file = tmp_path / "sums-00001-of-00003.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
    measure = Measure()
    with pytest.warns(ShardWarning, match=r"sums-00001-of-00003\.safetensors is damaged.*; it is measured again"):
        assert sums(measured(job(), measure, tmp_path, alone(), UNWATCHED)) == EXPECTED
    assert measure.first == [4]
    assert file.read_bytes() == whole


def test_a_shard_of_another_folder_is_measured_again(tmp_path):
    measured(job(facts={"method": "sum", "seed": 1}), Measure(), tmp_path / "other", alone(), UNWATCHED)
    measured(job(), Measure(), tmp_path / "mine", alone(), UNWATCHED)
    name = "sums-00002-of-00003.safetensors"
    (tmp_path / "mine" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.warns(ShardWarning, match="is of another job; it is measured again"):
        measured(job(), Measure(), tmp_path / "mine", alone(), UNWATCHED)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"facts": {"method": "mean", "seed": 0}}, 'method is "sum", not "mean"'),
        ({"facts": {"method": "sum", "seed": 7}}, "seed is 0, not 7"),
        ({"threads": 2}, "threads is 1, not 2"),
        ({"total": 9}, "n is 10, not 9"),
        ({"labels": torch.full((10,), 3)}, "labels is null, not 3"),
    ],
)
def test_another_job_is_refused_by_name(tmp_path, changes, told):
    measured(job(), Measure(), tmp_path, alone(), UNWATCHED)
    line = one_line(OutputError, measured, job(**changes), Measure(), tmp_path, alone(), UNWATCHED)
    assert line == f"{tmp_path} belongs to another job: its {told}; choose another --keep"


def test_a_folder_in_which_nothing_was_measured_takes_another_job(tmp_path):
    def broken(part):
        raise ShardError("no")

    with pytest.raises(ShardError):
        measured(job(), broken, tmp_path, alone(), UNWATCHED)
    other = job(facts={"method": "sum", "seed": 9})
    assert sums(measured(other, Measure(), tmp_path, alone(), UNWATCHED)) == EXPECTED
    assert json.loads((tmp_path / JOB).read_text())["seed"] == 9


def test_another_image_is_refused_by_its_number(tmp_path):
    measured(job(), Measure(), tmp_path, alone(), UNWATCHED)
    images = IMAGES.clone()
    images[6, 0, 1, 1] += 1
    line = one_line(ShardError, measured, job(images=images), Measure(), tmp_path, alone(), UNWATCHED)
    assert "holds the numbers of other images: image 6 is not the one that was measured; put it back" in line


def test_what_is_no_folder_of_a_job_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    line = one_line(OutputError, measured, job(), Measure(), tmp_path, alone(), UNWATCHED)
    assert line == f"{tmp_path} is not empty and has no job.json of ours; choose another --keep"
    line = one_line(OutputError, measured, job(), Measure(), tmp_path / "letters.txt", alone(), UNWATCHED)
    assert line.endswith("is a file; choose another --keep")


def test_processes_share_a_folder(tmp_path, monkeypatch):
    store = HashStore()
    line = one_line(ProcessError, measured, job(), Measure(), None, process(1, store), UNWATCHED)
    assert line == "2 processes share the work by a folder; say which: --keep DIR"
    process(0, store).tell("job", job().record)
    monkeypatch.setattr(jobs, "LOOKS", (0.01,))
    line = one_line(OutputError, measured, job(), Measure(), tmp_path, process(1, store), UNWATCHED)
    assert f"process 2 of 2 does not see {tmp_path}/{JOB} of this run; give a folder on a file system that all" in line
    other = job(facts={"method": "sum", "seed": 2})
    assert "not started as the first, whose seed is 0, not 2" in one_line(
        OutputError, measured, other, Measure(), tmp_path, process(1, store), UNWATCHED
    )


def test_a_failure_says_the_image_by_its_number_in_the_set():
    def broken(part):
        raise NonFiniteError(0.5, 1)

    with pytest.raises(NonFiniteError, match=r"sample 1;") as failure:
        measured(job(), broken, None, alone(), UNWATCHED)
    assert failure.value.sample == 1

    def later(part):
        return Measure()(part) if part.first < 8 else broken(part)

    with pytest.raises(NonFiniteError, match=r"sample 9;"):
        measured(job(), later, None, alone(), UNWATCHED)


def test_images_of_one_shard_at_a_time_are_read():
    class Counted:
        def __init__(self):
            self.read = []

        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, rows):
            self.read.append((rows.start, rows.stop))
            return IMAGES[rows]

    images = Counted()
    assert sums(measured(job(images=images), Measure(), None, alone(), UNWATCHED)) == EXPECTED
    assert images.read == [(0, 4), (4, 8), (8, 10)]


def test_threads_that_cannot_be():
    assert one_line(SampleError, job, threads=0) == "threads=0 must be a whole number >= 1"


def test_digests_tell_images_apart():
    found = digests(torch.cat([IMAGES, IMAGES[:1]]))
    assert (found.dtype, len(set(found.tolist())), bool(found[0] == found[10])) == (torch.int64, 10, True)
