"""The Frechet distance against its closed form, and the shipped classifier against real images."""

import pytest
import torch

from ddim_ode import data, metrics
from ddim_ode.metrics import FashionFeatures, frechet_distance, load_fashion_features, quality

DEBIAN = data.FASHION_FOLDER.is_dir()


def whitened(count: int, width: int, seed: int) -> torch.Tensor:
    """Points (count, width) whose sample mean is 0 and sample covariance the identity, both exactly."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, _ = torch.linalg.qr(x - x.mean(0))
    return q * (count - 1) ** 0.5


def recognised(images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images (N, 1, 28, 28), uint8, that the shipped classifier puts where their labels say."""
    predicted = load_fashion_features()(data.to_float(images)).argmax(1)
    return sum(a == b for a, b in zip(predicted.tolist(), labels.tolist(), strict=True)) / len(images)


@pytest.mark.parametrize("width", [1, 2, 16])
def test_diagonal_covariances_match_the_closed_form(width):
    generator = torch.Generator().manual_seed(width)
    mean_a, mean_b, std_a, std_b = torch.rand(4, width, generator=generator, dtype=torch.float64) * 3
    a, b = whitened(50, width, 1) * std_a + mean_a, whitened(70, width, 2) * std_b + mean_b
    expected = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_covariances_that_do_not_commute_match_the_two_by_two_formula():
    root_a = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    root_b = torch.tensor([[1.0, 0.0], [-2.0, 3.0]], dtype=torch.float64)
    a, b = whitened(40, 2, 3) @ root_a.mT, whitened(40, 2, 4) @ root_b.mT
    cov_a, cov_b = root_a @ root_a.mT, root_b @ root_b.mT
    assert not torch.allclose(cov_a @ cov_b, cov_b @ cov_a)
    # Tr sqrt(M) = sqrt(Tr M + 2 sqrt(det M)) for a 2 x 2 matrix M = cov_a cov_b
    product = cov_a @ cov_b
    overlap = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = cov_a.trace() + cov_b.trace() - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_it_does_not_move_with_a_rotation_and_is_symmetric():
    a, b = whitened(60, 5, 5) * torch.arange(1.0, 6.0) + 1, whitened(60, 5, 6)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("count", [2, 40])
def test_identical_sets_are_at_distance_zero(count):
    a = torch.randn(count, 8, generator=torch.Generator().manual_seed(8))
    assert 0 <= frechet_distance(a, a) < 1e-6


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 4), torch.zeros(5, 4), r"a has shape \(1, 4\), expected .* N >= 2"),
        (torch.zeros(5, 4), torch.zeros(1, 4), r"b has shape \(1, 4\)"),
        (torch.zeros(5), torch.zeros(5, 4), r"a has shape \(5,\)"),
        (torch.zeros(5, 4), torch.zeros(5, 3), "a has 4 features and b has 3"),
        (torch.zeros(5, 4), torch.full((5, 4), torch.nan), "b holds values that are not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


def test_the_network_is_its_features_and_a_last_layer():
    net, x = FashionFeatures().eval(), torch.zeros(3, 1, 28, 28)
    assert net.features(x).shape == (3, 64)
    assert net(x).shape == (3, 10)
    assert torch.equal(net(x), net.classes(net.features(x).relu()))


def test_the_shipped_classifier_knows_real_images():
    net = load_fashion_features()
    assert not net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert recognised(*data.bundled_images()) >= 0.88


def test_the_shipped_classifier_is_small():
    assert (data.ASSETS / "fashion-features.safetensors").stat().st_size < 1_000_000


@pytest.mark.skipif(not DEBIAN, reason="needs the Debian package dataset-fashion-mnist")
def test_quality_is_near_zero_for_real_images_and_large_for_noise():
    images, labels = data.bundled_images()
    static = torch.randn(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    real, noise = quality(data.to_float(images), labels), quality(static, labels)
    assert real.recognised == recognised(images, labels) >= 0.88
    assert noise.recognised == recognised(data.to_uint8(static), labels) < 0.2
    assert noise.frechet > 20 * real.frechet
    assert quality(data.to_float(images)) == metrics.Quality(None, real.frechet)


@pytest.mark.skipif(not DEBIAN, reason="needs the Debian package dataset-fashion-mnist")
def test_quality_scores_what_an_image_file_would_hold():
    images, labels = data.bundled_images()
    x = data.to_float(images)
    beyond = torch.where(x == 1, 3.0, x) + 0.3 / 127.5
    assert quality(beyond, labels) == quality(x, labels)


@pytest.mark.parametrize(
    ("samples", "labels", "message"),
    [
        (torch.zeros(4, 3, 28, 28), None, r"shape \(4, 3, 28, 28\), expected \(N, 1, 28, 28\)"),
        (torch.zeros(1, 1, 28, 28), None, "N >= 2"),
        (torch.full((4, 1, 28, 28), torch.nan), None, "not finite"),
        (torch.zeros(4, 1, 28, 28), torch.zeros(3, dtype=torch.int64), r"labels have shape \(3,\), expected \(4,\)"),
    ],
)
def test_samples_that_cannot_be_scored_are_refused(samples, labels, message):
    with pytest.raises(ValueError, match=message):
        quality(samples, labels)
