"""The shipped Fashion-MNIST classifier: its features, and whether it sees the class asked for.

Its features are not those of Inception, which never saw a 28 x 28 grey image; the numbers compare with each other and
not with published FIDs.
"""

from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ddim_ode.data import ASSETS, fashion_mnist, to_float, to_uint8
from ddim_ode.metrics.checks import MetricError, TooFewError, tensor
from ddim_ode.metrics.frechet import frechet_distance
from ddim_ode.support.checks import of_kind, whole

SHAPE = (1, 28, 28)


class FashionFeatures(nn.Module):
    """A classifier of (N, 1, 28, 28) images in [-1, 1]; `features` is its last hidden layer, (N, 64)."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

        self.body = nn.Sequential(*block(1, 32), *block(32, 64), *block(64, 96), nn.Flatten())
        self.hidden = nn.Linear(96 * 3 * 3, 64)
        self.classes = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [-1, 1] to features (N, 64), before the last non-linearity."""
        return self.hidden(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [-1, 1] to class logits (N, 10), in the order of `FASHION_LABELS`."""
        return self.classes(self.features(x).relu())


def load_fashion_features() -> FashionFeatures:
    """The shipped classifier, float32, in evaluation mode, without gradients (trained by benchmarks/feature_cnn.py)."""
    with torch.device("meta"):  # no random start: it would move the global generator
        net = FashionFeatures()
    stored = load_file(ASSETS / "fashion-features.safetensors")
    weights = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
    net.load_state_dict(weights, assign=True)
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Quality:
    """`recognised`: the share of samples classified as the class asked for, None without classes.

    `frechet`: squared Frechet distance from the samples to the 10,000 Fashion-MNIST test images.
    """

    recognised: float | None
    frechet: float


def quality(samples: Tensor, labels: Tensor | None = None, data: Path | None = None) -> Quality:
    """Score Fashion-MNIST samples (N, 1, 28, 28), floats in [-1, 1], as the image files they would be saved to.

    They are clipped and rounded to bytes first. `labels`: the classes asked for, int64 (N,). `data`: the folder of
    the test set, as in `fashion_mnist`. For scale: the classifier recognises 0.929 of the test images, and about
    0.98 of the training images, which it has seen. Raises MetricError for samples of another shape, fewer than 2 or
    not finite, and DataError without the test set.
    """
    tensor("samples", samples)
    if samples.ndim != 4 or samples.shape[1:] != SHAPE:
        raise MetricError(f"samples have shape {tuple(samples.shape)}, expected (N, 1, 28, 28)")
    if len(samples) < 2:  # before the test set is asked for, which may not be there
        raise TooFewError(f"samples have shape {tuple(samples.shape)}, expected (N, 1, 28, 28) with N >= 2")
    if not samples.isfinite().all():
        raise MetricError(
            "samples hold values that are not finite; look at how they were drawn"
        )  # a byte would hide it
    if not samples.is_floating_point():
        raise MetricError(f"samples are {samples.dtype}, expected floats in [-1, 1]; use data.to_float for bytes")
    if labels is not None:
        tensor("labels", labels)
    if data is not None:
        of_kind("data", data, (str, PathLike), "a folder")
        data = Path(data)
    if labels is not None and labels.shape != samples.shape[:1]:
        raise MetricError(f"labels have shape {tuple(labels.shape)}, expected {tuple(samples.shape[:1])}, one a sample")
    net = load_fashion_features()
    features = extract(net, to_uint8(samples.cpu()))
    recognised = None
    if labels is not None:
        recognised = float((net.classes(features.relu()).argmax(1) == labels.cpu()).double().mean())
    return Quality(recognised, frechet_distance(features, _test_features(data)))


@torch.no_grad()
def extract(net: FashionFeatures, images: Tensor, batch_size: int = 500) -> Tensor:
    """Features (N, 64), float32, of images uint8 (N, 1, 28, 28)."""
    of_kind("net", net, FashionFeatures, "what load_fashion_features returns")
    if tensor("images", images).dtype != torch.uint8 or images.shape[1:] != SHAPE or not len(images):
        raise MetricError(f"images are {images.dtype} of shape {tuple(images.shape)}, expected uint8 (N, 1, 28, 28)")
    batch_size = whole("batch_size", batch_size, MetricError)
    return torch.cat([net.features(to_float(batch)) for batch in images.split(batch_size)])


@cache
def _test_features(data: Path | None) -> Tensor:
    return extract(load_fashion_features(), fashion_mnist("test", data)[0])
