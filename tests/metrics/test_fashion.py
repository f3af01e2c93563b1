"""The shipped classifier against real images, and what it says of samples."""

import pytest
import torch

from ddim_ode import data, metrics
from ddim_ode.metrics import FashionFeatures, load_fashion_features, quality

DEBIAN = data.FASHION_FOLDER.is_dir()


def recognised(images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images (N, 1, 28, 28), uint8, that the shipped classifier puts where their labels say."""
    predicted = load_fashion_features()(data.to_float(images)).argmax(1)
    return sum(a == b for a, b in zip(predicted.tolist(), labels.tolist(), strict=True)) / len(images)


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


@pytest.mark.dataset
@pytest.mark.skipif(not DEBIAN, reason="needs the Debian package dataset-fashion-mnist")
def test_quality_is_near_zero_for_real_images_and_large_for_noise():
    images, labels = data.bundled_images()
    static = torch.randn(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    real, noise = quality(data.to_float(images), labels), quality(static, labels)
    assert real.recognised == recognised(images, labels) >= 0.88
    assert noise.recognised == recognised(data.to_uint8(static), labels) < 0.2
    assert noise.frechet > 20 * real.frechet
    assert quality(data.to_float(images)) == metrics.Quality(None, real.frechet)


@pytest.mark.dataset
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
