"""What is asked of a whole set of images: how many, of which classes, with which options, as a record holds them."""

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor

from ddim_ode.errors import unknown
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import Labels, SampleError, check_labels
from ddim_ode.planning.options import DEFAULT_BATCH
from ddim_ode.support.checks import ArgumentError, described, whole

LEAST_IMAGES = 32  # images of a shard, where there are as many: smaller batches share one
HERE = ("model", "x", "labels", "batch_size", "callback")  # of a function over images, which one over a set says itself
UNTOLD = ("conditions", "null", "prior")  # of which no record can tell one from another


class Images(Protocol):
    """A tensor of images, or a set of them on disk: `image_sets.ImageSet`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


def total_of(images: Images, count: int | None) -> int:
    """How many images there are to measure: the first `count`, or all. Raises ArgumentError, SampleError."""
    if not hasattr(images, "__getitem__") or not hasattr(images, "__len__") or isinstance(images, str | list | tuple):
        raise ArgumentError(f"images are {described(images)}; give a tensor (N, C, H, W), or what open_images returns")
    if not (found := len(images)):
        raise SampleError("there are no images; give at least one")
    if count is not None and whole("n", count, SampleError) > found:
        raise SampleError(f"n={count} is too many: there are {found} images; use -n {found} or fewer")
    return found if count is None else count


def labels_of(model: Model, labels: Labels, images: Images, total: int) -> Tensor | None:
    """The classes of the first `total` images, given as one for all, or of them or all images. Raises SampleError."""
    given = len(labels) if isinstance(labels, Sequence) or (isinstance(labels, Tensor) and labels.ndim) else total
    told = check_labels(model, labels, len(images) if given == len(images) else total)
    return None if told is None else told[:total].clone()


def shard_size(batch_size: int | None) -> int:
    """Images of a shard: whole batches."""
    batch = DEFAULT_BATCH if batch_size is None else whole("batch_size", batch_size, SampleError)
    return batch * -(-LEAST_IMAGES // batch)


def defaults_of(function: Callable[..., Any], *others: str) -> dict[str, Any]:
    """The options of a function over images, with their defaults, without `others`."""
    parameters = signature(function).parameters.items()
    return {name: told.default for name, told in parameters if name not in (*HERE, *UNTOLD, *others)}


def filled(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options, with the defaults of the others. Raises SampleError for one of another name."""
    if strange := [name for name in options if name not in defaults]:
        raise SampleError(unknown("option", strange[0], tuple(defaults)))
    return {**defaults, **options}


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them. Raises ArgumentError for one that a record cannot tell from another."""
    return {name: _plain(name, value) for name, value in options.items()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(name, item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):  # which JSON does not know
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ArgumentError(f"{name} is {described(value)}, which a record cannot tell from another; give its name")
