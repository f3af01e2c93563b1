"""Evaluations: the numbers of the metrics themselves, whatever the shards; counts; and a folder that goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_ode import metrics
from ddim_ode.data import DataError, bundled_images, save_images, to_float
from ddim_ode.image_sets.held import HeldImages
from ddim_ode.metrics import CountError, Evaluation, MetricError, evaluate, load_statistics
from ddim_ode.metrics.evaluating import SHARD
from ddim_ode.metrics.extraction import extractor
from ddim_ode.metrics.feature_shards import DamagedWarning, FeatureShards, digests
from ddim_ode.metrics.moments import moments
from ddim_ode.metrics.statistics import About, Statistics
from ddim_ode.support.files import OutputError
from ddim_ode.support.process import computing
from tests.helpers.assertions import one_line
from tests.helpers.fidelity import install

IMAGES, LABELS = bundled_images()
OURS, THEIRS = IMAGES[:90], IMAGES[90:250]
TINY = torch.randint(256, (60, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def folder_of(at: Path, images: torch.Tensor) -> Path:
    save_images(to_float(images), at)
    return at


def timeless(found: Evaluation) -> dict:
    return {**found.record, "seconds": 0}


# --- the numbers


@pytest.mark.parametrize("shard", [SHARD, 32])
def test_the_numbers_are_those_of_the_metrics(shard):
    found = evaluate(OURS, to_float(THEIRS), shard_size=shard, seed=3)
    with computing(1):  # sums over two threads are rounded otherwise
        expected = metrics.distribution(to_float(OURS), THEIRS, "fashion", seed=3)
        logits = extractor((1, 28, 28))(OURS)["logits"]
    assert found.frechet == pytest.approx(expected.frechet, rel=1e-6)  # of features of other batches
    for name in ("kid", "kid_error", "precision", "recall"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6), name
    score = metrics.inception_score(logits, seed=3)
    assert (found.inception_score, found.inception_score_error) == pytest.approx(score, rel=1e-6)
    assert found.missing == {
        "spatial_frechet": "features='fashion' have no spatial ones; sFID is of features='inception'"
    }
    assert found.settings["of"] == {"kid": [90, 160], "precision_recall": [90, 90]}


def test_a_part_stands_for_all_where_there_are_many():
    found = evaluate(OURS, THEIRS, most=40, shard_size=16)
    assert found.settings["of"] == {"kid": [40, 40], "precision_recall": [40, 40]}
    whole = evaluate(OURS, THEIRS)
    assert found.frechet == pytest.approx(whole.frechet, rel=1e-10)
    assert found.kid != whole.kid
    assert abs(found.kid - whole.kid) < 4 * (found.kid_error + whole.kid_error)


def test_inception_has_all_of_them(tmp_path, monkeypatch):
    weights = install(monkeypatch, tmp_path)
    how = {"features": "inception", "weights": weights, "resize": "bytes"}
    found = evaluate(OURS[:12], THEIRS[:15], **how, shard_size=5, batch_size=5)
    extract = extractor((1, 28, 28), *how.values(), batch_size=5)
    with computing(1):
        ours, theirs = extract(OURS[:12]), extract(THEIRS[:15])
    for name, value in (("features", found.frechet), ("spatial", found.spatial_frechet)):
        assert value == pytest.approx(metrics.frechet_distance(ours[name], theirs[name]), rel=1e-9)
    assert found.inception_score == pytest.approx(metrics.inception_score(ours["logits"]).value, rel=1e-12)
    assert found.missing == {}
    assert found.settings["resize"] == "bytes"
    gaussians = (moments(theirs[name].double()).gaussian for name in ("features", "spatial"))
    statistics = Statistics("mine", *gaussians, About("inception", "bytes", extract.weights))
    again = evaluate(OURS[:12], statistics, **how, batch_size=5)
    assert again.frechet == pytest.approx(found.frechet, rel=1e-9)
    assert again.spatial_frechet == pytest.approx(found.spatial_frechet, rel=1e-9)
    message = one_line(MetricError, evaluate, OURS[:12], statistics, **{**how, "resize": "clean"})
    assert message == "mine has statistics of resize='bytes', and these are of resize='clean'; give others"
    without = evaluate(OURS[:12], Statistics("mine", statistics.features, None, statistics.about), **how)
    assert without.missing["spatial_frechet"] == "mine has no spatial statistics, mu_s and sigma_s"


def test_statistics_stand_for_real_images(tmp_path):
    out = tmp_path / "out"
    found = evaluate(OURS, THEIRS, out=out, statistics=True)
    again = evaluate(OURS, out / "statistics.npz")
    assert again.frechet == pytest.approx(found.frechet, rel=1e-8)
    assert again.inception_score == found.inception_score
    reason = f"{out / 'statistics.npz'} stands for real images by a mean and a covariance; give the images"
    assert {again.missing[name] for name in ("kid", "kid_error", "precision", "recall")} == {reason}
    assert again.real == metrics.Counted(str(out / "statistics.npz"), None, 160, None)
    assert again.copies is None
    about = load_statistics(out / "samples-statistics.npz").about
    assert (about.features, about.count) == ("fashion", 90)
    message = one_line(MetricError, evaluate, OURS, out / "statistics.npz", features="pixels")
    assert "features='fashion', and these are of features='pixels'" in message


def test_too_few_images_are_missing_numbers_and_no_error():
    found = evaluate(TINY[:2], TINY[5:8])
    assert found.frechet is not None
    assert set(found.missing) == {
        *("kid", "kid_error", "precision", "recall", "spatial_frechet", "inception_score", "inception_score_error")
    }
    assert "2 samples are too few for an Inception score" in found.missing["inception_score"]
    assert "has 1 image, and a Frechet distance needs 2" in evaluate(TINY[:1], TINY[5:8]).missing["frechet"]
    assert "tell no probabilities of classes" in evaluate(TINY, TINY).missing["inception_score"]


def test_an_evaluation_is_kept_and_read_again(tmp_path):
    found = evaluate(TINY[:30], TINY[20:], out=tmp_path)
    assert Evaluation.load(tmp_path / "evaluation.json") == Evaluation.of(json.loads(json.dumps(found.record)))
    assert found.copies == 10
    text = (tmp_path / "evaluation.json").read_text()
    (tmp_path / "evaluation.json").write_text(text.replace('"found": 30', '"found": 31'))
    assert "is not as it was written" in one_line(MetricError, Evaluation.load, tmp_path / "evaluation.json")


# --- counts


def test_samples_are_counted(tmp_path):
    at = folder_of(tmp_path / "images", TINY)
    counted = evaluate(at, TINY).samples
    assert counted == metrics.Counted(str(at), 60, 60, 60)
    assert evaluate(at, TINY, count=60).samples == counted
    message = one_line(CountError, evaluate, at, TINY, count=64, out=tmp_path / "out")
    expected = "64 samples asked for, 60 found, 60 distinct; make the 4 that are missing, or measure what there are"
    assert message == f"{at}: {expected} with -n 60"
    assert not (tmp_path / "out").exists()
    assert "50 samples asked for, 60 found, 60 distinct; take 10 away" in one_line(
        CountError, evaluate, at, TINY, count=50
    )
    shutil.copy(at / "00000.png", at / "99.png")
    shutil.copy(at / "00003.png", at / "98.png")
    (at / "00007.png").unlink()
    assert "62 samples asked for, 61 found, 59 distinct" in one_line(CountError, evaluate, at, TINY, count=62)
    message = one_line(CountError, evaluate, at, TINY, out=tmp_path / "out")
    assert message.startswith(
        f"{at}: 61 samples asked for, 61 found, 59 distinct; leave out those that are there again"
    )
    assert not (tmp_path / "out" / "evaluation.json").exists()
    found = evaluate(at, TINY, out=tmp_path / "out", repeats=True)
    assert (found.samples.found, found.samples.distinct, found.copies) == (61, 59, 59)


def test_real_images_may_be_there_twice():
    assert evaluate(TINY[:20], TINY[20:40].repeat(2, 1, 1, 1)).real == metrics.Counted("the real images", None, 40, 20)


def test_equal_bytes_of_another_shape_are_another_image():
    a, b = digests(TINY[:1]), digests(TINY[:1].reshape(1, 1, 2, 8))
    assert a.shape == (1, 32)
    assert not torch.equal(a, b)


# --- the folder


class Stopped(Exception):
    pass


def test_an_evaluation_that_was_cut_short_goes_on(tmp_path):
    at, out = folder_of(tmp_path / "images", TINY), tmp_path / "out"
    common = {"shard_size": 7, "batch_size": 5}
    whole = evaluate(at, THEIRS[:60, :, :4, :4], **common)
    seen = []

    def stop(done: int) -> None:
        seen.append(done)
        if done > 30:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(at, THEIRS[:60, :, :4, :4], **common, out=out, callback=stop)
    assert len(list(out.rglob("*.safetensors"))) == 4
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    found = evaluate(at, THEIRS[:60, :, :4, :4], **common, out=out, callback=seen.append)
    assert timeless(found) == timeless(whole)
    assert seen[-1] == 120
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    other = evaluate(at, THEIRS[:60, :, :4, :4], **common, out=out, seed=4, most=20)  # of which features do not depend
    assert other.frechet == found.frechet
    assert other.kid != found.kid


def test_a_shard_with_a_flipped_bit_is_made_again(tmp_path):
    found = evaluate(TINY[:40], TINY[40:], shard_size=16, out=tmp_path)
    shard = tmp_path / "samples" / "00001.safetensors"
    content = shard.read_bytes()
    for damage in (content[:-3], content[:-1] + bytes([content[-1] ^ 1])):
        shard.write_bytes(damage)
        with pytest.warns(DamagedWarning, match=r"samples/00001.safetensors is damaged.*it is made again"):
            again = evaluate(TINY[:40], TINY[40:], shard_size=16, out=tmp_path)
        assert shard.read_bytes() == content
        assert timeless(again) == timeless(found)


def test_a_shard_of_other_work_is_not_taken(tmp_path):
    extract = extractor((1, 4, 4))
    made, other = (FeatureShards(HeldImages("mine", TINY), extract, 16, job, tmp_path) for job in ("a", "b"))
    made.make(0, lambda more: None)
    assert "is of another evaluation" in one_line(MetricError, other.read, 0)


def test_what_has_changed_since_is_refused_by_name(tmp_path):
    at, out = folder_of(tmp_path / "images", TINY), tmp_path / "out"
    evaluate(at, TINY[:30], out=out, shard_size=16)

    def refused(*sets: object, **options: object) -> str:
        message = one_line(OutputError, evaluate, *sets, out=out, **{"shard_size": 16, **options})
        assert message.endswith("choose another --out")
        return message

    assert "belongs to another evaluation: its shard_size is 16, not 17" in refused(at, TINY[:30], shard_size=17)
    assert "its batch_size is 250, not 10" in refused(at, TINY[:30], batch_size=10)
    assert "its threads is 1, not 2" in refused(at, TINY[:30], threads=2)
    assert "its features is pixels, not mean" in refused(at, TINY[:30], features=mean)
    assert f"the images of the real images have changed since {out} was begun (30 then and 31 now)" in refused(
        at, TINY[:31]
    )
    other = folder_of(tmp_path / "other", TINY.flip(0))
    assert f"its samples is {at}, not {other}" in refused(other, TINY[:30])
    (at / "00003.png").write_bytes((other / "00003.png").read_bytes())
    assert f"the images of {at} have changed since {out} was begun (by their files)" in refused(at, TINY[:30])


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3)).repeat(1, 3)


def test_a_network_of_the_same_name_that_answers_otherwise_is_refused(tmp_path):
    factor = 1.0

    def own(x: torch.Tensor) -> torch.Tensor:
        return factor * x.flatten(1)[:, :5]

    evaluate(TINY[:30], TINY[30:], features=own, out=tmp_path)
    evaluate(TINY[:30], TINY[30:], features=own, out=tmp_path)
    factor = 1.5
    message = one_line(OutputError, evaluate, TINY[:30], TINY[30:], features=own, out=tmp_path)
    assert "its features answer otherwise" in message


# --- what is refused


def test_what_cannot_be_is_refused(tmp_path):
    assert "the samples has images (1, 4, 4), and the real images (1, 28, 28); give equal shapes" in one_line(
        MetricError, evaluate, TINY, THEIRS
    )
    for name in ("most", "shard_size", "threads", "count", "batch_size"):
        assert f"{name}=0 must be a whole number >= 1" in one_line(MetricError, evaluate, TINY, TINY, **{name: 0})
    assert "seed='a'" in one_line(MetricError, evaluate, TINY, TINY, seed="a")
    assert "no such file or folder" in one_line(DataError, evaluate, tmp_path / "none", TINY)
    assert "holds values that are not finite" in one_line(MetricError, evaluate, TINY.float() / 0, TINY)
    (tmp_path / "file").touch()
    assert "is a file" in one_line(OutputError, evaluate, TINY, TINY, out=tmp_path / "file")
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    message = one_line(MetricError, evaluate, TINY, tmp_path / "a.npz")
    assert "has statistics of 3 features, and 'pixels' has 16" in message
