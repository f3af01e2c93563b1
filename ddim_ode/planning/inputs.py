"""What a run begins with, checked: seeds and their noise, data, labels, whole numbers."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Model
from ddim_ode.support.scalars import index

LARGEST = 10.0  # that a value can be and still be meant to lie in [-1, 1]; of bytes as floats some are larger


class SampleError(DDIMError):
    """Arguments that no sample can be drawn with; the message gives the value, the rule and the remedy."""


def whole(name: str, value: int) -> int:
    found = index(value)
    if found is None or found < 1:
        raise SampleError(f"{name}={value!r} must be a whole number >= 1")
    return found


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as ints. torch's CPU generator ignores the higher bits of one."""
    try:
        given = tuple(seeds)
    except TypeError:
        raise SampleError(
            f"seeds={seeds!r} is not a sequence; give one int a sample, such as range(64) or [{seeds}]"
        ) from None
    found = []
    for seed in given:
        value = index(seed)
        if value is None or not 0 <= value < 2**32:
            raise SampleError(f"seed {seed!r} is not a whole number in 0..2^32-1")
        found.append(value)
    if not found:
        raise SampleError("seeds is empty; give at least one")
    return tuple(found)


def check_data(model: Model, x: Tensor) -> Tensor:
    """x, if it can be data: (B, *shape), bytes as uint8 or finite floats that may well lie in [-1, 1]."""
    if not isinstance(x, Tensor) or tuple(x.shape[1:]) != model.shape or not len(x):
        found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise SampleError(f"x has {found}; this model needs a tensor (B, {str(model.shape)[1:]}")
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise SampleError(f"x is {x.dtype}; give floats in [-1, 1], or bytes as torch.uint8")
    wrong = ~torch.isfinite(x.flatten(1)).all(1)
    if wrong.any():
        raise SampleError(f"x[{int(wrong.nonzero()[0])}] holds NaN or infinity")
    if (largest := float(x.abs().max())) > LARGEST:
        raise SampleError(f"x reaches {largest:g}, and data lie in [-1, 1]; give bytes as torch.uint8")
    return x


def check_labels(model: Model, labels: Tensor | Sequence[int] | int | None, total: int) -> Tensor | None:
    """Labels as (total,) int64, of one for all if that is what there is."""
    if labels is None:
        return None
    if not model.num_classes:
        raise SampleError("this model has no classes; leave labels out")
    try:
        values = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise SampleError(f"labels are not whole numbers in 0..{model.num_classes - 1}") from None
    if values.is_floating_point() or values.dtype == torch.bool:
        raise SampleError(f"labels are {values.dtype}; they must be whole numbers in 0..{model.num_classes - 1}")
    values = values.long().expand(total) if values.ndim == 0 else values.long()
    if values.shape != (total,):
        raise SampleError(f"labels have shape {tuple(values.shape)}; give one label, or one a sample ({total})")
    wrong = values[(values < 0) | (values >= model.num_classes)]
    if len(wrong):
        raise SampleError(f"label {int(wrong[0])} does not exist; this model has labels 0..{model.num_classes - 1}")
    return values


def seeded_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) float32 standard normals, each row a function of its own seed only."""
    generators = [torch.Generator().manual_seed(seed) for seed in check_seeds(seeds)]
    return torch.stack([torch.randn(shape, generator=g, dtype=torch.float32, device="cpu") for g in generators])
