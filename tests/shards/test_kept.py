"""A shard on disk is taken for whole if it is: of this run, at its place, unchanged. A full disk leaves no half."""

import errno
import json
import os
import shutil
import warnings
from dataclasses import replace

import pytest

from ddim_ode.shards import kept, npz
from ddim_ode.shards.formats import FORMATS
from ddim_ode.shards.jobs import ShardError, ShardWarning
from ddim_ode.shards.samples import sample_shards
from ddim_ode.support import files
from ddim_ode.support.files import OutputError
from tests.helpers.sharding import HOW, contents, flip

PICTURES = ["samples-00001-of-00003.safetensors", "images/000005.png", "samples.npz", "samples-00001-of-00003.tar"]


class Stop(Exception):
    """What a test stops a run with."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_finished_run_is_verified_and_nothing_drawn(again, net, counted, name):
    before = contents(out := again(name))
    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_shards(net, out, format=name, callback=heard.append, **HOW)
    assert counted == []
    assert heard == [4, 8, 11]
    assert contents(out) == before


@pytest.mark.parametrize(("name", "file"), list(zip(FORMATS, PICTURES, strict=True)))
def test_a_flipped_bit_is_said_and_its_shard_made_again(again, net, counted, name, file):
    before = contents(out := again(name))
    flip(out / file, 600)  # of the second shard in the npz, whose rows begin at 187
    with pytest.warns(ShardWarning, match="is not as it was written; shard . is made again") as said:
        sample_shards(net, out, format=name, **HOW)
    assert len(said) == 1
    assert str(out / file) in str(said[0].message)
    assert sum(counted) == 3 * 4
    assert contents(out) == before


def test_a_flipped_bit_beside_the_rows_of_an_npz(again, net, counted):
    before = contents(out := again("npz"))
    flip(out / "samples.npz")
    with pytest.warns(ShardWarning, match=r"samples.npz is not as it was written; it is made again"):
        sample_shards(net, out, format="npz", **HOW)
    assert counted == []
    assert contents(out) == before


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_gone_is_made_again(again, net, name):
    before = contents(out := again(name))
    (out / "shards" / "00002.json").unlink()
    flip(out / "shards" / "00001.json", 50)
    (out / "grid.png").unlink()
    (out / "index.json").unlink()
    with pytest.warns(ShardWarning) as said:
        sample_shards(net, out, format=name, **HOW)
    assert [str(each.message) for each in said] == [
        f"{out}/grid.png is gone; shard 0 is made again",
        f"{out}/shards/00001.json is not as it was written; shard 1 is made again",
    ]
    assert contents(out) == before


@pytest.mark.parametrize("name", FORMATS)
def test_the_record_of_another_shard_is_not_taken(again, net, name):
    before = contents(out := again(name))
    shutil.copy(out / "shards" / "00000.json", out / "shards" / "00001.json")
    shutil.copy(out / "shards" / "00002.json", out / "shards" / "00000.json")
    with pytest.warns(ShardWarning) as said:
        index = sample_shards(net, out, format=name, **HOW)
    assert [str(each.message) for each in said] == [
        f"{out}/shards/0000{n}.json is of another shard; shard {n} is made again" for n in (0, 1)
    ]
    assert (index.asked, index.made) == (11, 11)
    assert contents(out) == before


def test_the_record_of_another_run_is_not_taken(again, net, tmp_path):
    before = contents(out := again())
    sample_shards(net, tmp_path / "other", **HOW | {"seeds": range(11, 22)})
    for name in ("shards/00001.json", PICTURES[0]):
        shutil.copy(tmp_path / "other" / name, out / name)
    with pytest.warns(ShardWarning, match="00001.json is of another run; shard 1 is made again"):
        sample_shards(net, out, **HOW)
    assert contents(out) == before


def test_a_run_is_not_complete_without_all_samples(net, tmp_path, monkeypatch):
    seen = kept.Shelf._seen

    def fewer(shelf, n, here):
        one = seen(shelf, n, here)
        return one._replace(shard=replace(one.shard, count=one.shard.count - 1))

    monkeypatch.setattr(kept.Shelf, "_seen", fewer)
    with pytest.raises(ShardError, match="out has 8 of 11 samples; run it again"):
        sample_shards(net, tmp_path / "out", **HOW)
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_cannot_be_read_back_is_not_kept(net, tmp_path, monkeypatch, name):
    def broken(file, error, *_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(npz, "open_regular", broken)
        with pytest.raises(ShardError, match="cannot be read: Input/output error"):
            sample_shards(net, tmp_path / "out", format=name, **HOW)
    assert list((tmp_path / "out" / "shards").iterdir()) == []


def test_what_an_orphan_leaves_is_not_taken_from_a_finished_run(net, whole, tmp_path, monkeypatch):
    """A process outlives its launcher, another run finishes the folder, and then the process is stopped."""
    out, put, orphans = tmp_path / "out", kept.Shelf.put, []

    def interrupted(shelf, n, *rest):
        put(shelf, n, *rest)
        if n == 1 and not orphans:
            orphans.append(n)
            raise KeyboardInterrupt

    monkeypatch.setattr(kept.Shelf, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample_shards(net, out, **HOW)
    assert (out / PICTURES[0]).is_file()
    sample_shards(net, out, **HOW)
    assert contents(out) == contents(whole / "safetensors")


def test_a_sheet_with_a_flipped_bit_is_made_again(again, net):
    before = contents(out := again())
    flip(out / "grid.png", 100)
    with pytest.warns(ShardWarning, match="grid.png is not as it was written; shard 0 is made again"):
        sample_shards(net, out, **HOW)
    assert contents(out) == before


def test_a_file_that_is_gone_is_said(again, net):
    out = again()
    (out / PICTURES[0]).unlink()
    with pytest.warns(ShardWarning, match=f"{PICTURES[0]} is gone; shard 1 is made again"):
        sample_shards(net, out, **HOW)


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_that_was_stopped_goes_on(net, whole, tmp_path, name):
    def stop(done):
        if 4 < done < 8:
            raise Stop

    with pytest.raises(Stop):
        sample_shards(net, tmp_path / "out", format=name, callback=stop, **HOW)
    assert not (tmp_path / "out" / "index.json").exists()
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 1
    heard = []
    sample_shards(net, tmp_path / "out", format=name, callback=heard.append, **HOW)
    assert heard[0] == 4  # found whole at once
    assert contents(tmp_path / "out") == contents(whole / name)


def test_a_disk_without_room_is_known_before_sampling(net, tmp_path, counted, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        OutputError, match=r"has too little room: what is missing takes 3\.52 kB, and 1 kB are free; make room"
    ):
        sample_shards(net, tmp_path / "out", **HOW)
    assert counted == []


def test_a_disk_must_have_room_for_the_array_too(net, tmp_path, monkeypatch):
    def stop(done):
        if done > 8:
            raise Stop

    with pytest.raises(Stop):
        sample_shards(net, tmp_path / "out", format="npz", callback=stop, **HOW)
    usage = shutil.disk_usage(tmp_path)
    need = 3 * (64 + 16) + 11 * 64  # of three samples, and of all in one
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need - 1))
    with pytest.raises(OutputError, match="has too little room: what is missing takes 944 bytes"):
        sample_shards(net, tmp_path / "out", format="npz", **HOW)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    sample_shards(net, tmp_path / "out", format="npz", **HOW)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    sample_shards(net, tmp_path / "out", format="npz", **HOW)  # where nothing is missing


def test_an_old_run_stays_where_the_new_one_has_no_room(again, net, monkeypatch):
    before, usage = contents(out := again()), shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match="has too little room"):
        sample_shards(net, out, overwrite=True, **HOW | {"seeds": range(1000), "labels": None})
    assert contents(out) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_that_gets_full_leaves_no_half_of_a_shard(net, whole, tmp_path, monkeypatch, name):
    out, written, write = tmp_path / "out", [], files._Written.write
    room = 1.5 * sum(len((whole / name / file).read_bytes()) for file in contents(whole / name)) / 3

    def limited(file, data):
        written.append(len(data))
        if sum(written) > room:
            file.refused = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise file.refused
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(files._Written, "write", limited)
        with pytest.raises(OutputError, match="cannot be written: No space left on device"):
            sample_shards(net, out, format=name, **HOW)
    assert not [file for file in out.rglob("*") if file.name.endswith(".tmp")]
    kept = [json.loads(file.read_text())["shard"]["files"] for file in (out / "shards").iterdir()]
    named = {name for record in kept for name in record}
    assert {name for name in contents(out) if name.startswith(("samples", "images"))} == named
    sample_shards(net, out, format=name, **HOW)
    assert contents(out) == contents(whole / name)
