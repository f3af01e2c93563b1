"""All that is measured of images: by the shipped network, pixels, a callable and Inception's places by a stand-in."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddim_ode import data
from ddim_ode.metrics import MetricError, feature_space, load_fashion_features, resizing
from ddim_ode.metrics.evaluation.features import extractor
from tests.helpers.assertions import one_line
from tests.helpers.fidelity import install

RGB = (3, 20, 24)


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_fashion_has_features_and_logits():
    images, _ = data.bundled_images()
    net, x = load_fashion_features(), data.to_float(images[:30])
    found = extractor((1, 28, 28), batch_size=7)(images[:30])
    assert list(found) == ["features", "logits"]
    torch.testing.assert_close(found["features"], net.features(x))
    torch.testing.assert_close(found["logits"], net(x))


def test_pixels_and_a_callable_have_features_alone():
    images = random_bytes(9, *RGB)
    for features in (None, "pixels", lambda x: x.mean((2, 3))):
        found = extractor(RGB, features, batch_size=4)(images)
        expected = feature_space("pixels" if features is None else features, RGB)(images)
        assert list(found) == ["features"]
        assert torch.equal(found["features"], expected)


@pytest.mark.parametrize("resize", [None, *resizing.RESIZES])
@pytest.mark.parametrize("channels", [1, 3])
def test_inception_has_all_three(resize, channels, tmp_path, monkeypatch):
    weights = install(monkeypatch, tmp_path)
    images = random_bytes(5, channels, 20, 24)
    found = extractor((channels, 20, 24), "inception", weights, resize, batch_size=2)(images)
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "features": (5, 2048),
        "logits": (5, 1008),
        "spatial": (5, 7 * 17 * 17),
    }
    own = {"clean": resizing.clean, "bytes": resizing.rounded}.get(
        resize, lambda x: F.interpolate(x.float(), (299, 299))
    )
    x = (own(images).float().expand(-1, 3, -1, -1) - 128) / 128
    state = torch.load(weights)
    hidden = F.conv2d(x, state["Conv2d_1a_3x3.weight"], state["Conv2d_1a_3x3.bias"], stride=18)
    branch = F.relu(F.conv2d(hidden, state["Mixed_6d.branch1x1.0.weight"], state["Mixed_6d.branch1x1.0.bias"]))
    features = F.linear(branch.mean((2, 3)), state["last.weight"], state["last.bias"])
    for place, number in {(0, 0, 3): 3, (0, 1, 0): 7, (1, 0, 2): 7 * 17 + 2, (16, 16, 6): 2022}.items():
        row, column, channel = place  # guided-diffusion: (N, 17, 17, 7) flattened, of TensorFlow's (N, H, W, C)
        torch.testing.assert_close(found["spatial"][:, number], branch[:, channel, row, column], rtol=1e-4, atol=1e-5)
    field = np.transpose(branch.numpy(), (0, 2, 3, 1))[..., :7].reshape(5, -1)
    np.testing.assert_allclose(found["spatial"], field, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["features"], features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["logits"], features @ state["fc.weight"].T, rtol=1e-4, atol=1e-5)


def test_what_has_no_use_is_refused(tmp_path, monkeypatch):
    rule = "resize='clean' is for features='inception', and 'fashion' take images as they are"
    assert rule in one_line(MetricError, extractor, (1, 28, 28), "fashion", resize="clean")
    assert "'pixels' take images as they are" in one_line(MetricError, extractor, RGB, None, None, "legacy")
    assert "are for features='inception'; leave them out" in one_line(MetricError, extractor, (1, 28, 28), None, "a")
    assert "features='fashion' are of images (1, 28, 28), not (3" in one_line(MetricError, extractor, RGB, "fashion")
    assert "inception' are of images (1 or 3" in one_line(MetricError, extractor, (4, 8, 8), "inception")
    assert "batch_size=0 must be a whole number" in one_line(MetricError, extractor, RGB, batch_size=0)
    for device in ("gpu", "meta:9:9", 3.5):
        assert f"device={device!r} is not there" in one_line(MetricError, extractor, RGB, device=device)
    weights = install(monkeypatch, tmp_path)
    message = one_line(MetricError, extractor, RGB, "inception", weights, "lanczos")
    assert message == "unknown resize 'lanczos'; choose one of legacy, clean, bytes"
    assert "found no weights at" in one_line(MetricError, extractor, RGB, "inception", tmp_path / "none.pth")
