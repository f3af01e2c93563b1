"""Images to features: the shipped network, pixels, a callable, and Inception by a stand-in for torch-fidelity."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from ddim_ode import data
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.metrics import SPACES, MetricError, default_features, extract, feature_space, load_fashion_features
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode
from tests.helpers.tensors import normal

GREY = (1, 28, 28)


def random_bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_default_is_a_space_for_the_shape():
    assert default_features(GREY) == default_features([1, 28, 28]) == "fashion"
    assert default_features((3, 28, 28)) == default_features((1, 32, 32)) == "pixels"
    for shape in (GREY, (3, 8, 8)):
        assert feature_space(default_features(shape), shape).shape == shape


def test_fashion_features_are_those_of_the_shipped_network():
    before = torch.random.get_rng_state()
    images, _ = data.bundled_images()
    space = feature_space("fashion", GREY)
    found = space(images)
    assert (space.name, found.shape, found.dtype) == ("fashion", (300, 64), torch.float32)
    torch.testing.assert_close(found, extract(load_fashion_features(), images))
    assert torch.equal(space(data.to_float(images).double()), found)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pixels_are_flattened_and_clipped():
    images = random_bytes(7, 3, 4, 5)
    space = feature_space("pixels", (3, 4, 5))
    expected = torch.tensor(images.flatten(1).tolist(), dtype=torch.float64) / 127.5 - 1
    torch.testing.assert_close(space(images).double(), expected, rtol=0, atol=1e-7)
    x = 2 * normal(7, 3, 4, 5, seed=1)
    assert torch.equal(space(x), x.float().flatten(1).clamp(-1, 1))


def test_any_callable_gets_floats_in_batches():
    seen = []

    def brightness(x: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), x.dtype, float(x.min()) >= -1, float(x.max()) <= 1, torch.is_grad_enabled()))
        return x.double().mean((2, 3))

    images = random_bytes(601, 3, 2, 2)
    space = feature_space(brightness, (3, 2, 2))
    found = space(images)
    assert space.name == "brightness"
    assert seen == [(n, torch.float32, True, True, False) for n in (250, 250, 101)]
    torch.testing.assert_close(found, (images.double().mean((2, 3)) / 127.5 - 1).float(), rtol=0, atol=1e-6)
    assert feature_space(space, [3, 2, 2]) is space


def test_a_module_is_a_callable_that_evaluates():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.BatchNorm1d(2))
    assert "training mode" in one_line(MetricError, feature_space, net, (1, 2, 2))
    space = feature_space(net.eval(), (1, 2, 2))
    x = normal(5, 1, 2, 2, seed=2).clamp(-1, 1).float()
    assert space.name == "Sequential"
    assert torch.equal(space(x), net(x).detach())
    assert not space(x).requires_grad


@pytest.mark.parametrize(
    ("what", "shape", "message"),
    [
        ("fashon", GREY, "unknown features 'fashon'; did you mean 'fashion'? choose one of fashion, pixels, inception"),
        ("fashion", (3, 32, 32), "features='fashion' are of images (1, 28, 28), not (3, 32, 32)"),
        ("inception", (4, 8, 8), "features='inception' are of images (1 or 3, H, W), not (4, 8, 8)"),
        (feature_space("pixels", (1, 2, 2)), GREY, "features='pixels' are of images (1, 2, 2), not (1, 28, 28)"),
        (3, GREY, "features=3 is neither a name nor callable"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(what, shape, message):
    assert message in one_line(MetricError, feature_space, what, shape)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 2, 3), "images have shape (2, 1, 2, 3), expected (N, 1, 2, 2), N >= 1"),
        (torch.zeros(0, 1, 2, 2), "images have shape (0, 1, 2, 2)"),
        (torch.tensor(0.0), "images have shape ()"),
        (torch.zeros(2, 1, 2, 2).long(), "images are torch.int64"),
        (torch.full((2, 1, 2, 2), torch.inf), "a batch of images holds values that are not finite"),
    ],
)
def test_what_are_no_images_of_the_shape_is_refused(images, message):
    assert message in one_line(MetricError, feature_space("pixels", (1, 2, 2)), images)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: x, "gave torch.float32 (3, 1, 2, 2) for 3 images, expected floats (3, D)"),
        (lambda x: x.flatten(1)[:2], "gave torch.float32 (2, 4)"),
        (lambda x: x.flatten(1).long(), "gave torch.int64 (3, 4)"),
        (lambda x: [0.0], "gave list"),
        (lambda x: x.flatten(1) / 0, "features='<lambda>' holds values that are not finite"),
    ],
)
def test_what_a_callable_gives_must_be_features(net, message):
    assert message in one_line(MetricError, feature_space(net, (1, 2, 2)), torch.ones(3, 1, 2, 2))


# --- Inception


class StandIn(nn.Module):
    """The signature and the behaviour of torch-fidelity's extractor, with 2048 sums of channels for a network."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        assert isinstance(name, str)
        assert features_list == ["2048"]
        assert isinstance(feature_extractor_weights_path, str), "it would download"
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2048))
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, x):
        assert not self.training
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        return (x.float().sum((1, 2, 3))[:, None] * self.scale,)


@pytest.fixture
def fidelity(monkeypatch) -> None:
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Where torch's hub keeps the weights: an empty folder of this test."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / "weights-inception-2015-12-05-6726825d.pth"


def weights() -> dict[str, torch.Tensor]:
    return {"scale": torch.arange(2048.0)}


@pytest.mark.usefixtures("fidelity")
def test_inception_sees_bytes_in_colour(hub):
    torch.save(weights(), hub)
    for channels in (1, 3):
        images = random_bytes(5, channels, 9, 9)
        space = feature_space("inception", (channels, 9, 9))
        found = space(images)
        expected = images.expand(-1, 3, -1, -1).double().sum((1, 2, 3))[:, None] * torch.arange(2048.0)
        assert space.name == "inception"
        assert torch.equal(found, expected.float())
        assert torch.equal(space(data.to_float(images)), found)


@pytest.mark.usefixtures("fidelity")
def test_the_weights_may_be_any_file(hub, tmp_path):
    torch.save(weights(), tmp_path / "mine.pth")
    assert feature_space("inception", (3, 9, 9), tmp_path / "mine.pth")(random_bytes(2, 3, 9, 9)).shape == (2, 2048)
    message = one_line(MetricError, feature_space, "pixels", (3, 9, 9), weights="mine.pth")
    assert message == "weights='mine.pth' are for features='inception'; leave them out"


@pytest.mark.usefixtures("fidelity")
def test_weights_that_are_not_there_are_named_and_never_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    for file, arguments in ((hub, ()), (tmp_path / "no.pth", (tmp_path / "no.pth",))):
        message = one_line(MetricError, feature_space, "inception", (3, 9, 9), *arguments)
        assert f"no weights at {file}; download https://github.com/toshas/torch-fidelity/" in message
        assert not file.exists()


@pytest.mark.usefixtures("fidelity")
def test_weights_of_something_else_are_refused(hub, tmp_path):
    for content in ({"bias": torch.zeros(2)}, [1, 2]):
        torch.save(content, hub)
        assert f"{hub} holds no weights of Inception V3" in one_line(MetricError, feature_space, "inception", (3, 9, 9))
    hub.write_bytes(b"<html>not found</html>")
    assert "is damaged" in one_line(CheckpointError, feature_space, "inception", (3, 9, 9))
    torch.save(RunsCode(tmp_path / "ran"), hub)
    assert "would run code" in one_line(CheckpointError, feature_space, "inception", (3, 9, 9))
    assert not (tmp_path / "ran").exists()


def test_without_torch_fidelity_the_extra_is_named(hub, monkeypatch):
    torch.save(weights(), hub)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    message = one_line(MetricError, feature_space, "inception", (3, 9, 9))
    assert re.search(r"need torch-fidelity \(.*\); pip install 'ddim_ode\[eval\]'", message)


def test_the_table_lists_every_space(hub):
    assert {feature_space(name, GREY).name for name in SPACES if name != "inception"} == {"fashion", "pixels"}
    assert f"no weights at {hub}" in one_line(MetricError, feature_space, "inception", GREY)
