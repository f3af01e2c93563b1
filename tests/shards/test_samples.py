"""Samples in shards are those of one run, and a run goes on where it was, whatever has happened to its folder."""

import errno
import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ddim_ode
from ddim_ode import Denoiser, SolveOptions, paths
from ddim_ode.errors import DDIMError
from ddim_ode.image_sets import open_images
from ddim_ode.models.unet import UNet
from ddim_ode.planning.plan import AdaptivePlan
from ddim_ode.shards import blocks, samples
from ddim_ode.shards.formats import FORMATS, ShardError
from ddim_ode.shards.kept import ShardWarning
from ddim_ode.shards.samples import sample_shards
from ddim_ode.support import files
from ddim_ode.support.files import OutputError
from ddim_ode.support.outputs import going_on
from ddim_ode.support.process import computing
from tests.helpers import conditional
from tests.helpers.command_line import make_model
from tests.helpers.mixtures import MIXTURES
from tests.helpers.sharding import HOW, LABELS, bytes_of, contents, flip, members

UNLABELLED = {**HOW, "labels": None}
PICTURES = ["samples-00001-of-00003.safetensors", "images/000005.png", "samples.npz", "samples-00001-of-00003.tar"]


@pytest.fixture(scope="module")
def net(model):
    return ddim_ode.load(model)


@pytest.fixture(scope="module")
def mixture():
    """A model that costs nothing, of pictures of 4 x 4."""
    return MIXTURES["tight"].denoiser(paths.Noise(0.01, 50.0))


@pytest.fixture(scope="module")
def whole(net, tmp_path_factory):
    """A folder of each format, none of which a test may change."""
    top = tmp_path_factory.mktemp("whole")
    for name in FORMATS:
        sample_shards(net, top / name, format=name, **HOW)
    return top


@pytest.fixture
def again(whole, tmp_path):
    """A copy of such a folder."""

    def copied(name="safetensors"):
        shutil.copytree(whole / name, tmp_path / name)
        return tmp_path / name

    return copied


@pytest.fixture
def counted(monkeypatch):
    """How many samples went through the network, each as often as it did."""
    seen, forward = [], UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda net, x, *rest: seen.append(len(x)) or forward(net, x, *rest))
    return seen


def in_one(net, how):
    """A run that is not cut, with the threads of one that is."""
    with computing(1):
        return ddim_ode.sample(net, **{name: value for name, value in how.items() if name != "shard_size"})


@pytest.fixture(scope="module")
def plain(net):
    return in_one(net, HOW)


@pytest.mark.parametrize("name", FORMATS)
def test_the_samples_are_those_of_one_run(whole, plain, name):
    expected = ((plain.x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[:, 0]
    assert torch.equal(bytes_of(whole / name), expected)
    images = open_images(whole / name)
    assert torch.equal(images[0 : len(images)][:, 0], expected)
    assert images.labels.tolist() == LABELS


def test_tensors_are_the_same_to_the_last_bit(whole, plain):
    names = [f"samples-{n:05d}-of-00003.safetensors" for n in range(3)]
    parts = [load_file(whole / "safetensors" / name) for name in names]
    assert torch.equal(torch.cat([part["x"] for part in parts]), plain.x)
    assert torch.cat([part["seeds"] for part in parts]).tolist() == list(range(11))
    assert torch.cat([part["labels"] for part in parts]).tolist() == LABELS
    assert torch.cat([part["nfe"] for part in parts]).tolist() == [3] * 11


def test_labels_are_where_readers_look_for_them(whole):
    assert np.load(whole / "npz" / "samples.npz")["arr_1"].tolist() == LABELS
    classes = members(whole / "webdataset", ".cls")
    assert list(classes) == [f"{n:06d}.cls" for n in range(11)]
    assert [int(data) for data in classes.values()] == LABELS


def test_the_index_says_what_there_is(whole, net):
    index = sample_shards(net, whole / "safetensors", **HOW)
    assert (index.asked, index.made, index.format, index.shape) == (11, 11, "safetensors", (1, 8, 8))
    assert [shard.seeds for shard in index.shards] == ["0-3", "4-7", "8-10"]
    assert [shard.nfe for shard in index.shards] == [{3: 4}, {3: 4}, {3: 3}]
    assert index.labels == LABELS


@pytest.mark.parametrize(
    ("total", "batch", "shape", "size"),
    [
        (50_000, 128, (1, 28, 28), 1024),
        (50_000, 128, (3, 256, 256), 128),  # 64 MB are 85 of them
        (5_000, 128, (1, 28, 28), 128),
        (5_000, 50, (1, 28, 28), 150),
        (10, 128, (1, 28, 28), 128),
    ],
)
def test_shards_are_whole_batches_and_enough_to_share(total, batch, shape, size):
    options = SolveOptions(batch_size=batch)
    assert (
        samples._shard_size(None, Denoiser(lambda x, t: x, paths.Noise(0.01, 50.0), "data", shape), options, total)
        == size
    )


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
    with pytest.warns(ShardWarning, match="00001.json is not as it was written"):
        sample_shards(net, out, format=name, **HOW)
    assert contents(out) == before


def test_a_file_that_is_gone_is_said(again, net):
    out = again()
    (out / PICTURES[0]).unlink()
    with pytest.warns(ShardWarning, match=f"{PICTURES[0]} is gone; shard 1 is made again"):
        sample_shards(net, out, **HOW)


class Stop(Exception):
    """What a test stops a run with."""


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


CHANGES = [
    ({"nfe": 4}, "its nfe is 3, not 4"),
    ({"method": "heun", "nfe": 4}, 'its method is "ddim", not "heun"'),
    ({"guidance": 2.0}, "its guidance is 1.0, not 2.0"),
    ({"seeds": range(1, 12)}, 'its seeds is "0-10", not "1-11"'),
    ({"labels": 3}, 'its labels is "11 with digest [0-9a-f]+", not 3'),
    ({"labels": None}, 'its labels is "11 with digest [0-9a-f]+", not null'),
    ({"threads": 2}, "its threads is 1, not 2"),
    ({"shard_size": 6}, "its shard_size is 4, not 6"),
    ({"format": "png"}, 'its format is "safetensors", not "png"'),
    ({"dtype": torch.float64}, 'its dtype is "float32", not "float64"'),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[told for _, told in CHANGES])
def test_another_run_is_refused_by_name(whole, net, change, told):
    before = contents(whole / "safetensors")
    with pytest.raises(OutputError, match=f"{whole}/safetensors belongs to another run: {told}; give the same, choose"):
        sample_shards(net, whole / "safetensors", **HOW | change)
    assert contents(whole / "safetensors") == before


def test_another_model_is_refused(whole, tmp_path):
    other = ddim_ode.load(make_model(tmp_path / "other", seed=1))
    with pytest.raises(OutputError, match=r'its model is "[0-9a-f]{64}", not "[0-9a-f]{64}"'):
        sample_shards(other, whole / "safetensors", **HOW)


def test_another_run_is_replaced_if_asked_for(again, net, tmp_path):
    sample_shards(net, out := again(), overwrite=True, **HOW | {"nfe": 4, "seeds": range(5), "labels": None})
    sample_shards(net, tmp_path / "new", **HOW | {"nfe": 4, "seeds": range(5), "labels": None})
    found, expected = contents(out), contents(tmp_path / "new")
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found if name.endswith((".safetensors", ".png")))


def test_the_same_run_goes_on_though_it_may_be_replaced(again, net, counted):
    sample_shards(net, again(), overwrite=True, **HOW)
    assert counted == []


def test_what_was_cut_short_while_it_was_replaced_is_replaced(again, net, monkeypatch):
    out = again()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            sample_shards(net, out, overwrite=True, **HOW | {"nfe": 4})
    sample_shards(net, out, **HOW | {"nfe": 4})
    kept = [load_file(out / f"samples-0000{n}-of-00003.safetensors")["nfe"].tolist() for n in range(3)]
    assert kept == [[4] * 4, [4] * 4, [4] * 3]


def test_files_of_somebody_else_stay(again, net, tmp_path):
    out = again()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt, which no run has written and --overwrite would delete"):
        sample_shards(net, out, overwrite=True, **HOW | {"nfe": 4})
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and not a run of this program"):
        sample_shards(net, tmp_path / "theirs", overwrite=True, **HOW)
    assert [file.name for file in (tmp_path / "theirs").iterdir()] == ["notes.txt"]


def test_two_runs_in_a_folder(again, net):
    out = again()
    with (
        going_on(out, "job.json", "ddim_ode job 1", {}),
        pytest.raises(OutputError, match=f"another run is at work in {out}"),
    ):
        sample_shards(net, out, **HOW)


@pytest.mark.parametrize("options", [{"method": "adaptive", "nfe": 9}, {"method": "dopri5", "nfe": 20}], ids=str)
def test_the_tolerance_of_a_budget_is_found_once(mixture, tmp_path, monkeypatch, options):
    searched, search = [], AdaptivePlan.with_budget
    monkeypatch.setattr(AdaptivePlan, "with_budget", lambda *of, **kw: searched.append(of) or search(*of, **kw))
    how = UNLABELLED | options
    sample_shards(mixture, tmp_path / "out", **how)
    assert len(searched) == 1
    found = json.loads((tmp_path / "out" / "job.json").read_text())["found"]
    (tmp_path / "out" / PICTURES[0]).unlink()
    with pytest.warns(ShardWarning, match="is gone"):
        sample_shards(mixture, tmp_path / "out", **how)
    assert len(searched) == 1
    plain = in_one(mixture, how)
    assert found["tol"] == plain.tol
    parts = [load_file(tmp_path / "out" / f"samples-0000{n}-of-00003.safetensors") for n in range(3)]
    assert torch.equal(torch.cat([part["x"] for part in parts]), plain.x)
    assert torch.equal(torch.cat([part["nfe"] for part in parts]), plain.nfe)


def test_a_grid_is_made_once(mixture, tmp_path, monkeypatch):
    how = UNLABELLED | {"method": "dpmpp_2m", "grid": "auto", "nfe": 6}
    sample_shards(mixture, tmp_path / "out", **how)
    assert (tmp_path / "out" / "profile.safetensors").is_file()
    (tmp_path / "out" / PICTURES[0]).unlink()
    monkeypatch.setattr(blocks, "settled", None)  # nobody asks again
    before = contents(tmp_path / "out")
    with pytest.warns(ShardWarning):
        sample_shards(mixture, tmp_path / "out", **how)
    assert contents(tmp_path / "out").items() >= before.items()


def test_a_budget_that_cannot_be_leaves_nothing(net, tmp_path):
    with pytest.raises(DDIMError, match="nfe=1 is too small"):
        sample_shards(net, tmp_path / "out", method="adaptive", nfe=1, seeds=range(3))
    assert not (tmp_path / "out").exists()


def test_noise_on_the_way_and_conditions_are_each_samples_own(tmp_path):
    told = {"mean": conditional.means(7)}
    how = {
        "method": "sde_euler",
        "nfe": 5,
        "seeds": range(7),
        "batch_size": 2,
        "conditions": told,
        "dtype": torch.float64,
    }
    model = conditional.model()
    index = sample_shards(model, tmp_path, shard_size=4, **how)
    x = torch.cat([load_file(tmp_path / name)["x"] for shard in index.shards for name in shard.files])
    assert torch.equal(x, in_one(model, how).x)
    assert not (tmp_path / "grid.png").exists()  # they are no pictures
    with pytest.raises(OutputError, match="its conditions is"):
        sample_shards(model, tmp_path, shard_size=4, **how | {"conditions": {"mean": conditional.means(7, seed=1)}})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"shard_size": 5},
            "shard_size=5 is no multiple of batch_size=2, and shards are whole batches; use shard_size=4",
        ),
        ({"shard_size": 0}, "shard_size=0 must be a whole number >= 1"),
        ({"format": "jpeg"}, "unknown format 'jpeg'; .*choose one of safetensors, png, npz, webdataset"),
        ({"threads": 0}, "threads=0 must be a whole number >= 1"),
        ({"method": "euler", "eta": lambda sigma: 0.5}, "eta is a function; shards take a number"),
        ({"labels": [3, 11] * 5 + [1]}, "label 11 does not exist"),
        ({"seeds": []}, "seeds is empty"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(net, tmp_path, change, told):
    with pytest.raises(DDIMError, match=told):
        sample_shards(net, tmp_path / "out", **HOW | change)
    assert not (tmp_path / "out").exists()


def test_pictures_are_asked_for_of_pictures(tmp_path):
    with pytest.raises(ShardError, match=r"format='png' holds pictures, and samples \(3,\) are none"):
        sample_shards(conditional.model(), tmp_path / "out", seeds=[0], format="png")


def test_a_disk_without_room_is_known_before_sampling(net, tmp_path, counted, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"has too little room: 3 shards take 3\.52 kB, and 1 kB are free; make room"):
        sample_shards(net, tmp_path / "out", **HOW)
    assert counted == []


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


def test_a_library_that_is_not_installed_is_named(net, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ShardError, match=r"needs the library webdataset; pip install 'ddim_ode\[webdataset\]'"):
        sample_shards(net, tmp_path / "out", format="webdataset", **HOW)
