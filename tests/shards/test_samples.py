"""Samples in shards are those of one run, and a run goes on where it was, whatever has happened to its folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ddim_ode
from ddim_ode import Denoiser, SolveOptions, paths
from ddim_ode.errors import DDIMError
from ddim_ode.image_sets import open_images
from ddim_ode.planning.plan import AdaptivePlan
from ddim_ode.shards import samples, work
from ddim_ode.shards.formats import FORMATS
from ddim_ode.shards.jobs import ShardError, ShardWarning
from ddim_ode.shards.samples import sample_shards
from ddim_ode.support.files import OutputError
from ddim_ode.support.outputs import going_on
from ddim_ode.support.process import computing
from tests.helpers import conditional
from tests.helpers.command_line import make_model
from tests.helpers.sharding import HOW, LABELS, bytes_of, contents, flip, members

UNLABELLED = {**HOW, "labels": None}
PICTURES = ["samples-00001-of-00003.safetensors", "images/000005.png", "samples.npz", "samples-00001-of-00003.tar"]


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


class Stop(Exception):
    """What a test stops a run with."""


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
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            sample_shards(net, out, overwrite=True, **HOW | {"nfe": 4})
    sample_shards(net, out, **HOW | {"nfe": 4})
    kept = [load_file(out / f"samples-0000{n}-of-00003.safetensors")["nfe"].tolist() for n in range(3)]
    assert kept == [[4] * 4, [4] * 4, [4] * 3]


def test_another_torch_is_refused(whole, net, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0.0")
    with pytest.raises(OutputError, match=r'its torch is "[^"]+", not "1\.0\.0"'):
        sample_shards(net, whole / "safetensors", **HOW)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_record_may_be_replaced_with_all_that_others_name(again, net, whole, name):
    out = again(name)
    flip(out / "job.json", 100)
    with pytest.raises(OutputError, match=r"job\.json is not"):
        sample_shards(net, out, format=name, **HOW)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        sample_shards(net, out, format=name, overwrite=True, **HOW)
    (out / "notes.txt").unlink()
    sample_shards(net, out, format=name, overwrite=True, **HOW)
    assert contents(out) == contents(whole / name)


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
    before = contents(tmp_path / "out")
    (tmp_path / "out" / PICTURES[0]).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(work, "settled", None)  # nobody asks again
        with pytest.warns(ShardWarning, match="is gone"):
            sample_shards(mixture, tmp_path / "out", **how)
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "profile.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(work, "settled", None)  # which would be asked
        with pytest.raises(TypeError):
            sample_shards(mixture, tmp_path / "out", **how)
    sample_shards(mixture, tmp_path / "out", **how)
    assert contents(tmp_path / "out") == before
    flip(tmp_path / "out" / "profile.safetensors")
    with pytest.warns(ShardWarning, match=r"profile\.safetensors is not as it was written; it is made again"):
        sample_shards(mixture, tmp_path / "out", **how)
    assert contents(tmp_path / "out") == before


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
    with pytest.raises(OutputError, match=r"its conditions\.mean is"):
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
        ({"seeds": [5, 6, 5], "labels": None}, "seeds has 5 in it twice, and samples in shards are counted"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(net, tmp_path, change, told):
    with pytest.raises(DDIMError, match=told):
        sample_shards(net, tmp_path / "out", **HOW | change)
    assert not (tmp_path / "out").exists()


def test_pictures_are_asked_for_of_pictures(tmp_path):
    with pytest.raises(ShardError, match=r"format='png' holds pictures, and samples \(3,\) are none"):
        sample_shards(conditional.model(), tmp_path / "out", seeds=[0], format="png")


def test_a_library_that_is_not_installed_is_named(net, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ShardError, match=r"needs the library webdataset; pip install 'ddim_ode\[webdataset\]'"):
        sample_shards(net, tmp_path / "out", format="webdataset", **HOW)
