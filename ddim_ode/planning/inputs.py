"""What a run begins with, checked: a model, seeds and their noise, states, data, labels."""

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ddim_ode.data import is_picture
from ddim_ode.errors import DDIMError
from ddim_ode.models.conditions import Conditions, Told
from ddim_ode.models.denoiser import Model
from ddim_ode.models.provenance import innermost
from ddim_ode.paths import Path
from ddim_ode.support.checks import ArgumentError, described, of_kind, shown
from ddim_ode.support.dtypes import FLOATS
from ddim_ode.support.resources import check_memory, room
from ddim_ode.support.scalars import index
from ddim_ode.support.tables import in_order, is_readable

LARGEST = (
    10.0  # that a value of a picture can be and still be meant to lie in [-1, 1]; of bytes as floats some are larger
)
DEVIATIONS = (
    50.0  # that noise of a picture can be and still be meant as standard normal; of bytes as floats some are more
)
SEEDS = 2**32
UNCOUNTED = 10**6  # seeds of an iterator, which does not say how many it has
OF_SEED = 40  # bytes of an int and of its place in a tuple
Labels = Tensor | Sequence[int] | int | None
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)
ASKED = ("path", "shape", "num_classes", "device", "sigma_min", "sigma_max", "evaluations")  # of a `Model`
FEWER = "ask for fewer at a time"


class SampleError(DDIMError):
    """Arguments that no sample can be drawn with; the message gives the value, the rule and the remedy."""


def check_model(model: Model) -> None:
    """Raise ArgumentError for what is no `Model`, the name of one for instance."""
    if isinstance(model, type) or not callable(model) or not all(hasattr(model, name) for name in ASKED):
        name = shown(model if isinstance(model, str) and model else "fashion")
        raise ArgumentError(f"model is {described(model)}; give a Denoiser, such as load({name})")
    of_kind("model.path", model.path, Path, "a path, such as DiscreteVP.linear()")


def check_callback(callback: object) -> None:
    """Raise ArgumentError for a callback that cannot be called."""
    if callback is not None and (not callable(callback) or isinstance(callback, type)):
        raise ArgumentError(f"callback is {described(callback)}; give a function, or None")


def check_size(model: Model, count: int, dtype: torch.dtype, batch_size: int | None, what: str = "samples") -> None:
    """Raise SampleError where there is no memory for x (count, *shape) of a run on the CPU."""
    if model.device.type == "cpu":
        twice = 1 if batch_size is not None and batch_size >= count else 2  # the batches, and what they are joined to
        need = twice * count * math.prod(model.shape) * dtype.itemsize
        check_memory(need, f"x of {count:,} {what} of shape {tuple(model.shape)}", FEWER, SampleError)


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as ints. torch's CPU generator ignores the higher bits of one."""
    strange = getattr(seeds, "ndim", 1) != 1 or (isinstance(seeds, Tensor) and not is_readable(seeds))
    if strange or not in_order(seeds):
        raise SampleError(f"seeds is {described(seeds)}; give one int a sample in their order, such as range(64)")
    if isinstance(seeds, range):  # before its length, which may be more than `len` can say
        _check_ends(*seeds[:1], *seeds[-1:])
    sized = isinstance(seeds, Sized)
    try:
        if isinstance(seeds, Sized):
            check_memory(len(seeds) * OF_SEED, f"a list of {len(seeds):,} seeds", FEWER, SampleError)
        if isinstance(seeds, Tensor) or (isinstance(seeds, np.ndarray) and seeds.dtype.kind in "iu"):
            seeds = seeds.tolist()  # which is faster than one by one
        given = tuple(islice(seeds, None if sized else UNCOUNTED + 1))
    except TypeError:
        text = shown(seeds)
        raise SampleError(
            f"seeds={text} is not a sequence; give one int a sample, such as range(64) or [{text}]"
        ) from None
    if not given:
        raise SampleError("seeds is empty; give at least one")
    if len(given) > UNCOUNTED and not sized:
        raise SampleError(f"seeds goes on after {UNCOUNTED:,} numbers, and has no length; give a list or a range")
    if set(map(type, given)) != {int}:
        found = [index(seed) for seed in given]
        if None in found:
            raise SampleError(f"seed {shown(given[found.index(None)])} is not a whole number in 0..2^32-1")
        given = tuple(seed for seed in found if seed is not None)
    _check_ends(min(given), max(given))
    return given


def _check_ends(*seeds: int) -> None:
    for seed in seeds:
        if not 0 <= seed < SEEDS:
            raise SampleError(f"seed {shown(seed)} is not a whole number in 0..2^32-1")


def check_tensor(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise SampleError unless an argument is a tensor (B, *shape) whose numbers can be read, B >= 1."""
    wanted = ", ".join(("B", *map(str, shape)))
    if not isinstance(x, Tensor):
        raise SampleError(f"{name} has type {type(x).__name__}; this model needs a tensor ({wanted})")
    if not is_readable(x):
        kind = "on the meta device" if x.is_meta else "quantized" if x.is_quantized else f"of {x.layout}"
        raise SampleError(f"{name} is {kind}; give a dense tensor ({wanted}) that holds its numbers")
    if tuple(x.shape[1:]) != tuple(shape) or x.ndim == 0 or not len(x):
        raise SampleError(f"{name} has shape {tuple(x.shape)}; this model needs a tensor ({wanted})")


def check_start(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise SampleError unless noise or a start is finite floats (B, *shape)."""
    check_tensor(name, x, shape)
    if x.dtype not in FLOATS:
        what = "standard normals" if name == "noise" else "states x0 + sigma eps, images as data.to_float makes them"
        raise SampleError(f"{name} is {x.dtype}; give floats, {what}")
    _check_finite(name, x)


def of_pictures(model: Model) -> bool:
    """Whether a model's samples are meant to lie in [-1, 1]; latents, points and molecules may be of any size."""
    return is_picture(model.shape) and not getattr(innermost(model), "latent", False)


def check_reach(model: Model, name: str, x: Tensor, sigma: float) -> None:
    """Raise SampleError for noise of pictures, or such a state at sigma, of values that none is meant to have."""
    if not of_pictures(model):
        return
    largest = float(x.detach().abs().max())
    most = DEVIATIONS if name == "noise" else LARGEST + DEVIATIONS * sigma
    if largest > most:
        rule = "standard normals" if name == "noise" else f"images plus noise at sigma={sigma:.6g}"
        raise SampleError(f"{name} reaches {largest:g}, and {rule} stay below {most:g}; give floats in that range")


def _check_finite(name: str, x: Tensor) -> None:
    if x.device.type == "cpu":  # an expanded tensor may be more than there is of it
        check_memory(2 * x.numel(), f"{name} of shape {tuple(x.shape)}", FEWER, SampleError)
    wrong = ~torch.isfinite(x.detach().reshape(len(x), -1)).all(1)
    if wrong.any():
        raise SampleError(f"{name}[{int(wrong.nonzero()[0])}] holds NaN or infinity")


def check_data(model: Model, x: Tensor) -> Tensor:
    """x, if it can be data: (B, *shape), bytes as uint8 or finite floats, which of pictures may well lie in [-1, 1]."""
    check_model(model)
    check_tensor("x", x, model.shape)
    if x.dtype == torch.uint8:
        return x
    if x.dtype not in FLOATS:
        raise SampleError(f"x is {x.dtype}; give floats in [-1, 1], or bytes as torch.uint8")
    _check_finite("x", x)
    if of_pictures(model) and (largest := float(x.detach().abs().max())) > LARGEST:
        raise SampleError(f"x reaches {largest:g}, and data lie in [-1, 1]; give bytes as torch.uint8")
    return x


def check_labels(model: Model, labels: Labels, total: int) -> Tensor | None:
    """Labels as (total,) int64, of one for all if that is what there is."""
    if labels is None:
        return None
    if not model.num_classes:
        raise SampleError("this model has no classes; leave labels out")
    rule = f"whole numbers in 0..{model.num_classes - 1}"
    if isinstance(labels, Tensor) and not is_readable(labels):
        raise SampleError(f"labels are {described(labels)} that cannot be read; give {rule} in a dense tensor")
    if isinstance(labels, range) and labels[total:]:  # before a long one becomes a tensor
        raise SampleError(f"labels={shown(labels)} are too many; give one label, or one a sample ({total})")
    try:
        if isinstance(labels, str | bytes | bytearray):
            raise TypeError
        values = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise SampleError(f"labels are not {rule}") from None
    if values.dtype not in WHOLE:
        raise SampleError(f"labels are {values.dtype}; they must be {rule}")
    values = values.long().expand(total) if values.ndim == 0 else values.long()
    if values.shape != (total,):
        raise SampleError(f"labels have shape {tuple(values.shape)}; give one label, or one a sample ({total})")
    wrong = values[(values < 0) | (values >= model.num_classes)]
    if len(wrong):
        raise SampleError(f"label {int(wrong[0])} does not exist; this model has labels 0..{model.num_classes - 1}")
    return values


def asked(
    model: Model, labels: Labels, conditions: Mapping[str, Tensor] | None, null: Mapping[str, Tensor] | None
) -> Labels | Conditions:
    """Labels and conditions in one value: the labels as they are, unchecked, where there is nothing else.

    Raises as `conditions_of` and `check_labels`.
    """
    check_model(model)
    told = conditions_of(conditions, null)
    return labels if told is None else told.with_labels(check_labels(model, labels, len(told)))


def conditions_of(conditions: Mapping[str, Tensor] | None, null: Mapping[str, Tensor] | None) -> Conditions | None:
    """Conditions and their null values, or None where there are neither. Raises ConditionError as `Conditions`."""
    if conditions is None and null is None:
        return None
    return Conditions(None, {} if conditions is None else conditions, {} if null is None else null)


def check_told(model: Model, told: Labels | Conditions, total: int) -> Told:
    """What as many samples are told, the labels checked. Raises SampleError for conditions of another number."""
    if not isinstance(told, Conditions):
        return check_labels(model, told, total)
    if len(told) != total:
        raise SampleError(
            f"conditions[{next(iter(told.tensors))!r}] are {len(told)}, for {total} samples; give one a sample"
        )
    return told.with_labels(check_labels(model, told.labels, total))


def seeded_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) float32 standard normals, each row a function of its own seed only."""
    numbers = check_seeds(seeds)
    need = 2 * 4 * len(numbers) * math.prod(shape)  # the rows, and what they are joined to
    with room(need, f"the noise of {len(numbers):,} samples of shape {tuple(shape)}", FEWER, SampleError):
        generators = (torch.Generator().manual_seed(seed) for seed in numbers)
        return torch.stack([torch.randn(shape, generator=g, dtype=torch.float32, device="cpu") for g in generators])
