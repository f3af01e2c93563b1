"""All that sets of images are compared by, from bytes: features and, where the network has them, class logits and
spatial features.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ddim_ode.data import is_picture, to_float
from ddim_ode.metrics.checks import MetricError, finite_values, generator
from ddim_ode.metrics.fashion import SHAPE, FashionFeatures, load_fashion_features
from ddim_ode.metrics.inception import InceptionOutputs, file_of
from ddim_ode.metrics.resizing import RESIZES
from ddim_ode.metrics.spaces import Features, default_features, feature_space
from ddim_ode.support.checks import choice, shown, whole
from ddim_ode.support.reading import open_regular

FEATURES, LOGITS, SPATIAL = "features", "logits", "spatial"
BLOCK = 2**20
MOST_PIXELS = 3072  # values of an image, 32 x 32 in colour, that are compared as they are without being asked to
RTOL, ATOL = 1e-3, 1e-4  # of answers on another machine; the latter of the largest


@dataclass(frozen=True)
class Extractor:
    """Call it with images uint8 (N, *shape) for float32 (N, D) by name: FEATURES, and LOGITS and SPATIAL or not.

    `resize` and `weights`, a sha256, are None where there are none. `own`: whether the network is the caller's, so that
    its name says nothing. Batches are cut in the same way whatever N.
    """

    name: str
    shape: tuple[int, ...]
    outputs: Callable[[Tensor], Mapping[str, Tensor]]
    batch_size: int
    resize: str | None = None
    weights: str | None = None
    own: bool = False

    @cached_property
    def probe(self) -> Tensor:
        """The features of two images of noise, always the same, (2, D)."""
        noise = torch.randint(256, (2, *self.shape), dtype=torch.uint8, generator=generator(0, "two images"))
        return self(noise)[FEATURES]

    @property
    def answers(self) -> tuple[float, ...]:
        """What tells a network of the caller's from others: all of `probe`; else nothing."""
        return tuple(self.probe.flatten().tolist()) if self.own else ()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Raises MetricError for values that are not finite."""
        parts = [self.outputs(batch) for batch in images.split(min(self.batch_size, len(images)))]
        found = {name: torch.cat([part[name].to("cpu", torch.float32) for part in parts]) for name in parts[0]}
        return {name: finite_values(f"{name} of {self.name!r}", values) for name, values in found.items()}


def extractor(
    shape: Sequence[int],
    features: Features | None = None,
    weights: str | PathLike[str] | None = None,
    resize: str | None = None,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
) -> Extractor:
    """The extractor of features for images of a shape (C, H, W).

    Args:
        features: as in `feature_space`; by default what `default_features` names, but pixels only of images of at most
            MOST_PIXELS values.
        weights: of "inception" only, as there.
        resize: of "inception" only, a name in RESIZES; by default "legacy".
        batch_size: images at once; by default 250, of Inception 50.
        device: where the network is to be; one of your own stays where it is.

    Raises MetricError and CheckpointError as `feature_space` does, and for a resize that is not known or has no use.
    """
    features = _default(shape) if features is None else features
    if resize is not None:
        choice("resize", resize, RESIZES, MetricError)
        if features != "inception":
            name = features if isinstance(features, str) else "those of your own"
            raise MetricError(f"resize={resize!r} is for features='inception', and {name!r} take images as they are")
    _check_device(device)
    most = None if batch_size is None else whole("batch_size", batch_size, MetricError)
    if features == "inception" and is_picture(tuple(shape)):
        resize = resize or "legacy"
        net = InceptionOutputs(weights, resize).to(device)
        return Extractor("inception", tuple(shape), net, most or 50, resize, _sha256(file_of(weights)))
    if features == "fashion" and tuple(shape) == SHAPE and weights is None:
        fashion = _FashionOutputs(load_fashion_features().to(device), device)
        return Extractor("fashion", SHAPE, fashion, most or 250)
    space = feature_space(features, shape, weights)
    own, outputs = not isinstance(features, str), lambda images: {FEATURES: space(images)}
    return Extractor(space.name, space.shape, outputs, most or space.batch_size, own=own)


def answers_alike(was: Sequence[float], now: Sequence[float]) -> bool:
    """Whether answers are those of one network, but for rounding."""
    if len(was) != len(now):
        return False
    atol = ATOL * max(map(abs, now), default=0.0)
    return all(abs(a - b) <= atol + RTOL * abs(b) for a, b in zip(was, now, strict=True))


def _default(shape: Sequence[int]) -> str:
    name, pixels = default_features(shape), math.prod(shape)
    if name == "pixels" and pixels > MOST_PIXELS:
        raise MetricError(
            f"images {tuple(shape)} have {pixels:,} values each, which are compared as they are up to {MOST_PIXELS:,}"
            "; say where with --features, as in --features inception"
        )
    return name


@dataclass(frozen=True)
class _FashionOutputs:
    net: FashionFeatures
    device: str

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        found = self.net.features(to_float(images).to(self.device))
        return {FEATURES: found, LOGITS: self.net.classes(found.relu())}


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as fault:
        reason = (str(fault).splitlines() or [""])[0]
        raise MetricError(f"device={shown(device)} is not there ({reason:.100}); use 'cpu' or 'cuda'") from None


def _sha256(file: Any) -> str:
    found = sha256()
    with open_regular(file, MetricError) as opened:
        while block := opened.read(BLOCK):
            found.update(block)
    return found.hexdigest()
