"""Feature spaces: images to the vectors in which sets of images are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor, nn

from ddim_ode.data import to_float
from ddim_ode.metrics.checks import MetricError, finite_values, tensor
from ddim_ode.metrics.fashion import SHAPE, load_fashion_features
from ddim_ode.metrics.inception import Inception
from ddim_ode.support.checks import choice, described, of_kind, shown, whole
from ddim_ode.support.scalars import index

MOST_AXES = 10  # of a shape, more than any image has

SPACES: dict[str, str] = {
    "fashion": "64 features of the shipped Fashion-MNIST classifier, for (1, 28, 28)",
    "pixels": "the pixels themselves, flattened, without a network",
    "inception": "2048 features of Inception V3, as in published FIDs; needs the extra 'eval' and a file of weights",
}

Features = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureSpace:
    """Features of images: call it with images (N, *shape), bytes or floats in [-1, 1], for float32 (N, D) on the CPU.

    `net` is given batches of floats, float32 in [-1, 1], on its own device; it must not change from call to call.
    """

    name: str
    shape: tuple[int, ...]
    net: Callable[[Tensor], Tensor]
    batch_size: int = 250

    def __post_init__(self) -> None:
        of_kind("name", self.name, str, "a text")
        object.__setattr__(self, "shape", _checked("shape", self.shape))
        if not callable(self.net):
            raise MetricError(f"net is {described(self.net)}; give a function of images (N, *shape)")
        whole("batch_size", self.batch_size, MetricError)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Floats are clipped to [-1, 1], as a picture would be.

        Raises MetricError for no images, of another shape, or neither bytes nor floats, for values that are not
        finite, and when `net` gives anything but finite floats (N, D).
        """
        tensor("images", images)
        if images.numel() == 0 or images.shape[1:] != self.shape:
            expected = ", ".join(("N", *map(str, self.shape)))
            raise MetricError(f"images have shape {tuple(images.shape)}, expected ({expected}), N >= 1")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise MetricError(f"images are {images.dtype}, expected torch.uint8 or floats in [-1, 1]")
        return torch.cat([self._batch(batch) for batch in images.split(self.batch_size)])

    def _batch(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            x = to_float(images)
        else:
            x = finite_values("a batch of images", images).float().clamp(-1, 1)
        found = self.net(x.to(_device(self.net)))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x) or not found.is_floating_point():
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise MetricError(f"features={self.name!r} gave {what} for {len(x)} images, expected floats ({len(x)}, D)")
        return finite_values(f"features={self.name!r}", found.to("cpu", torch.float32))


def default_features(shape: Sequence[int]) -> str:
    """The name of the space for images (C, H, W) that needs nothing else installed."""
    return "fashion" if _checked("shape", shape) == SHAPE else "pixels"


def feature_space(
    what: Features, model_shape: Sequence[int], weights: str | PathLike[str] | None = None
) -> FeatureSpace:
    """A feature space for images of a model's shape, (C, H, W).

    Args:
        what: a name in SPACES; or any callable, float32 images (N, C, H, W) in [-1, 1] to floats (N, D); or a space.
        weights: of "inception" only, the file that torch-fidelity names; by default where torch's hub would keep it.

    "pixels" takes 4 C H W bytes of memory an image. Nothing is ever downloaded.

    Raises:
        MetricError: a name that is not known, a shape the space is not for, weights or a package that are not there, or
            a network in training mode, whose features would depend on the batch.
        CheckpointError: weights that are damaged, or that would run code.
    """
    shape = _checked("model_shape", model_shape)
    if weights is not None and not (isinstance(what, str) and what == "inception"):
        raise MetricError(f"weights={shown(weights)} are for features='inception'; leave them out")
    if isinstance(what, FeatureSpace):
        if what.shape != shape:
            raise MetricError(
                f"features={what.name!r} are of images {what.shape}, not {shape}; make them for this shape"
            )
        return what
    if not isinstance(what, str):
        return _own(what, shape)
    choice("features", what, SPACES, MetricError)
    if what == "pixels":
        return FeatureSpace(what, shape, lambda x: x.flatten(1))
    if what == "fashion":
        if shape != SHAPE:
            raise MetricError(f"features='fashion' are of images {SHAPE}, not {shape}; use 'pixels' or 'inception'")
        return FeatureSpace(what, shape, load_fashion_features().features)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise MetricError(f"features='inception' are of images (1 or 3, H, W), not {shape}; use 'pixels'")
    if weights is not None:
        of_kind("weights", weights, (str, PathLike), "a file")
    return FeatureSpace(what, shape, Inception(weights), batch_size=50)


def _checked(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an image as ints. Raises MetricError for what is none."""
    try:
        found = [index(size) for size in shape] if len(shape) < MOST_AXES else [None]
    except TypeError:
        found = [None]
    whole = tuple(size for size in found if size is not None)
    if len(whole) < len(found) or isinstance(shape, bytes) or min(whole, default=1) < 1:
        raise MetricError(f"{name}={shown(shape)} is no shape of an image; give whole numbers, as in (3, 32, 32)")
    return whole


def _own(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> FeatureSpace:
    if not callable(function) or isinstance(function, type):
        raise MetricError(f"features={shown(function)} is neither a name nor callable; use one of {', '.join(SPACES)}")
    name = getattr(function, "__name__", type(function).__name__)
    if isinstance(function, nn.Module) and function.training:
        raise MetricError(f"features={name!r} is in training mode, so they depend on the batch; call .eval() first")
    return FeatureSpace(name, shape, function)


def _device(net: object) -> torch.device:
    tensors = [*net.parameters(), *net.buffers()] if isinstance(net, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")
