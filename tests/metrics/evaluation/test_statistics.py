"""Statistics as the field exchanges them: written and read, ours and others', and refused by name."""

import numpy as np
import pytest
import torch

from ddim_ode.metrics import MetricError, frechet, frechet_distance, load_statistics, save_statistics
from ddim_ode.metrics.evaluation.statistics import About, Statistics, check_alike, is_statistics
from ddim_ode.metrics.moments import moments
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import encrypt
from tests.helpers.tensors import normal

X, Y = normal(80, 6, seed=0) * torch.arange(1, 7) + 2, normal(90, 6, seed=1)
ABOUT = About("inception", "clean", "ab" * 32, 80, "cd" * 32)


def of(x: torch.Tensor, about: About = ABOUT, spatial: torch.Tensor | None = None) -> Statistics:
    return Statistics("mine", moments(x).gaussian, None if spatial is None else moments(spatial).gaussian, about)


def test_what_is_written_is_what_the_field_reads(tmp_path):
    save_statistics(tmp_path / "a.npz", of(X, spatial=Y))
    with np.load(tmp_path / "a.npz") as found:
        assert sorted(found.files) == ["ddim_ode", "mu", "mu_s", "sigma", "sigma_s"]
        for end, x in (("", X), ("_s", Y)):
            assert found["mu" + end].dtype == found["sigma" + end].dtype == np.float64
            np.testing.assert_allclose(found["mu" + end], x.mean(0), rtol=1e-14)
            np.testing.assert_allclose(found["sigma" + end], np.cov(x.numpy(), rowvar=False), rtol=1e-12, atol=1e-13)
    save_statistics(tmp_path / "b.npz", of(X, spatial=Y))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("count", [80, 4])
def test_distances_to_statistics_are_those_to_the_images(count, tmp_path):
    save_statistics(tmp_path / "a.npz", of(X[:count]))
    found = load_statistics(str(tmp_path / "a.npz"))
    assert found.about == ABOUT
    assert found.spatial is None
    assert found.name == str(tmp_path / "a.npz")
    # The root of a variance that is zero but for rounding is known to half the digits.
    rel = 1e-12 if count > 6 else 1e-6
    assert frechet.between(moments(Y).gaussian, found.features) == pytest.approx(
        frechet_distance(Y, X[:count]), rel=rel
    )


def test_those_of_others_say_less_and_are_taken(tmp_path):
    for dtype in (np.float32, np.float64):
        np.savez(tmp_path / "a.npz", mu=X.mean(0).numpy().astype(dtype), sigma=np.cov(X.numpy().T).astype(dtype))
        found = load_statistics(tmp_path / "a.npz")
        assert found.about == About()
        assert frechet.between(moments(Y).gaussian, found.features) == pytest.approx(frechet_distance(Y, X), rel=1e-5)
        check_alike(found, ABOUT, 6)
    message = "a.npz has statistics of 6 features, and 'fashion' has 64; give those of the same features"
    assert message in one_line(MetricError, check_alike, found, About("fashion"), 64)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (About("fashion", None, None), "features='inception', and these are of features='fashion'"),
        (About("inception", "legacy", ABOUT.weights), "resize='clean', and these are of resize='legacy'"),
        (About("inception", "clean", "00"), f"weights='{ABOUT.weights}', and these are of weights='00'"),
    ],
)
def test_ours_of_other_features_are_refused_by_name(about, message):
    assert message in one_line(MetricError, check_alike, of(X), about, 6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "has no numbers 'sigma'; give an .npz with mu (D,) and sigma (D, D)"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "of shapes (3,) and (2, 2)"),
        ({"mu": np.zeros(2), "sigma": np.array([[1, np.nan], [0, 1]])}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2], [0, 1]])}, "sigma is not symmetric"),
        ({"mu": np.zeros(2), "sigma": np.diag([1.0, -1])}, "sigma has the negative variance -1"),
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, "has no numbers"),
        ({"mu": np.array([None]), "sigma": np.eye(1)}, "is damaged or no .npz of numbers"),
        ({"mu": np.zeros(1), "sigma": np.eye(1), "ddim_ode": np.array("{")}, "does not say what it is of"),
        ({"mu": np.zeros(1), "sigma": np.eye(1), "ddim_ode": np.array('{"kind": 1}')}, "does not say what it is of"),
        ({"mu": np.zeros(1), "sigma": np.eye(1), "ddim_ode": np.array('{"count": "many"}')}, "'many' is no count"),
    ],
)
def test_what_are_no_statistics_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    assert is_statistics(tmp_path / "a.npz")
    found = one_line(MetricError, load_statistics, tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in found
    assert message in found


def test_a_file_that_is_cut_short_or_missing_is_named(tmp_path):
    save_statistics(tmp_path / "a.npz", of(X))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    assert f"{tmp_path}/a.npz is damaged" in one_line(MetricError, load_statistics, tmp_path / "a.npz")
    assert f"{tmp_path}/b.npz: no such file" in one_line(MetricError, load_statistics, tmp_path / "b.npz")


def test_what_is_asked_of_memory_is_what_is_packed(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", mu=np.zeros(1500), sigma=np.zeros((1500, 1500)))
    monkeypatch.setenv("DDIM_ODE_MEMORY", "60M")
    assert "a.npz would take 72 MB of memory" in one_line(MetricError, load_statistics, tmp_path / "a.npz")
    images = np.zeros((20_000, 32, 32, 1), np.uint8)
    np.savez_compressed(tmp_path / "b.npz", mu=np.zeros(3), sigma=np.eye(3), arr_0=images)  # which are not read
    assert len(load_statistics(tmp_path / "b.npz").examples) == 20_000


def test_an_encrypted_one_is_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    encrypt(tmp_path / "a.npz")
    assert "is encrypted" in one_line(MetricError, load_statistics, tmp_path / "a.npz")
