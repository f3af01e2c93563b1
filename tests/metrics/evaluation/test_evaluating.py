"""Evaluations: the numbers of the metrics themselves, whatever the shards; and what is refused."""

import numpy as np
import pytest
import torch

from ddim_ode import metrics
from ddim_ode.data import DataError, to_float
from ddim_ode.metrics import Evaluation, MetricError, evaluate, load_statistics
from ddim_ode.metrics.evaluation.evaluating import SHARD
from ddim_ode.metrics.evaluation.features import extractor
from ddim_ode.metrics.evaluation.statistics import About, Statistics
from ddim_ode.metrics.moments import moments
from ddim_ode.support.files import OutputError
from ddim_ode.support.process import computing
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import OURS, THEIRS, TINY
from tests.helpers.fidelity import install


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
    few = "the set of samples gives 2 images, and precision and recall need 4 at least"
    assert found.missing["precision"] == found.missing["recall"] == few
    assert "2 samples are too few for an Inception score" in found.missing["inception_score"]
    assert "has 1 image, and a Frechet distance needs 2" in evaluate(TINY[:1], TINY[5:8]).missing["frechet"]
    assert "tell no probabilities of classes" in evaluate(TINY, TINY).missing["inception_score"]


def test_statistics_and_images_of_one_file_tell_each_what_they_can(tmp_path):
    """As guided-diffusion's reference batches: mu and sigma of all images, and some of them."""
    evaluate(OURS, THEIRS, out=tmp_path / "all")
    with np.load(tmp_path / "all" / "statistics.npz") as stored:
        statistics = {name: stored[name] for name in ("mu", "sigma")}
    batch = tmp_path / "batch.npz"
    np.savez(batch, arr_0=THEIRS[:50].movedim(1, -1).numpy(), **statistics)
    found = evaluate(OURS, batch, out=tmp_path / "out")
    of_images, of_all = evaluate(OURS, THEIRS[:50]), evaluate(OURS, THEIRS)
    assert found.frechet == pytest.approx(of_all.frechet, rel=1e-8)
    assert found.frechet != pytest.approx(of_images.frechet, rel=0.01)
    for name in ("kid", "kid_error", "precision", "recall", "copies"):
        assert getattr(found, name) == getattr(of_images, name), name
    assert found.settings["of"] == {"kid": [90, 50], "precision_recall": [50, 50]}
    assert found.unsaid == f"{batch} does not say in which features, or how resized: see to it that these are the same"
    assert of_all.unsaid is None
    assert not (tmp_path / "out" / "statistics.npz").exists()  # which would be of 50 images
    np.savez(batch, arr_0=THEIRS[:50].movedim(1, -1).numpy()[:, :8], **statistics)
    assert "images of the samples are (1, 28, 28), and of" in one_line(MetricError, evaluate, OURS, batch)


# --- what is refused


def test_what_cannot_be_is_refused(tmp_path):
    assert "images of the samples are (1, 4, 4), and of the real images (1, 28, 28); give equal shapes" in one_line(
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


def test_many_values_are_no_features_unless_they_are_asked_for(tmp_path, monkeypatch):
    large = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    assert one_line(MetricError, evaluate, large, large, out=tmp_path) == (
        "images (3, 40, 40) have 4,800 values each, which are compared as they are up to 3,072"
        "; say where with --features, as in --features inception"
    )
    assert evaluate(large[:, :, :32, :32], large[:, :, :32, :32], repeats=True).settings["features"] == "pixels"
    monkeypatch.setenv("DDIM_ODE_MEMORY", "150M")
    message = one_line(MetricError, evaluate, large, large, features="pixels", repeats=True, out=tmp_path / "out")
    assert message.startswith(
        "to compare 2 images in 4,800 features (pixels) would take 185 MB of memory, and 150 MB are allowed"
        "; choose --features of fewer numbers, or a smaller --most"
    )
    assert not (tmp_path / "out").exists()
    assert evaluate(large, large, features="pixels", repeats=True).frechet == 0  # no covariance is written


def test_a_row_is_kept_before_statistics_that_do_not_fit(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OutputError("the disk is full")

    monkeypatch.setattr("ddim_ode.metrics.evaluation.work.save_statistics", fail)
    assert one_line(OutputError, evaluate, TINY[:30], TINY[30:], out=tmp_path) == "the disk is full"
    assert Evaluation.load(tmp_path / "evaluation.json").samples.found == 30
