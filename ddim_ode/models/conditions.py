"""What a network is told of each sample besides (x, t): its label, and tensors handed over as keywords.

A Model's third argument is `Told`: labels alone, a `Conditions`, or None for no condition at all. All of them are cut
with the batch and moved by the same words, `told[rows]` and `told.to(device)`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Union

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError, described, shown
from ddim_ode.support.tables import is_readable
from ddim_ode.support.waiting import sent

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class ConditionError(DDIMError):
    """Conditions that no sample can be drawn under; the message gives the name, the rule and the remedy."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of B samples.

    Args:
        labels: (B,) int64, or None for the null class.
        tensors: each (B, ...), by the keyword under which the network takes it.
        null: the same names or some of them, each (...) for all samples or (B, ...): what stands for no condition under
            guidance. A name without one is told to both passes alike.

    Raises:
        ConditionError: a tensor that is not dense and finite, or has another first dimension; a null value of another
            shape, or of a condition that is not there.
        ArgumentError: what is no mapping from names to tensors.
    """

    labels: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=lambda: NOTHING)
    null: Mapping[str, Tensor] = field(default_factory=lambda: NOTHING)

    def __post_init__(self) -> None:
        if self.labels is not None and not isinstance(self.labels, Tensor):
            raise ArgumentError(f"labels are {described(self.labels)}; give a tensor (B,) of whole numbers, or None")
        _check_names("conditions", self.tensors)
        _check_names("null", self.null)
        counts = [len(x) for x in (self.labels, *self.tensors.values()) if x is not None]
        if not counts:
            if self.null:
                raise ConditionError("null values are of conditions, and there are none; give conditions too")
            raise ConditionError("conditions are empty; leave them out")
        for name, x in self.tensors.items():
            if len(x) != counts[0]:
                raise ConditionError(f"conditions[{name!r}] are {len(x)}, for {counts[0]} samples; give one a sample")
        null = {name: _null(name, x, self.tensors) for name, x in self.null.items()}
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "null", MappingProxyType(null))

    def __len__(self) -> int:
        return len(self._first)

    @property
    def _first(self) -> Tensor:
        return next(x for x in (self.labels, *self.tensors.values()) if x is not None)

    @property
    def device(self) -> torch.device:
        return self._first.device

    def __getitem__(self, rows: Any) -> "Conditions":
        """Those of some of the samples: a slice, or indices."""
        return self.each(lambda x: x[sent(rows, x.device) if isinstance(rows, Tensor) else rows])

    def to(self, device: torch.device) -> "Conditions":
        """The same on another device."""
        return self.each(lambda x: x.to(device))

    def clone(self) -> "Conditions":
        """A copy of the tensors, which are outside of inference mode then."""
        return self.each(Tensor.clone)

    def with_labels(self, labels: Tensor | None) -> "Conditions":
        """The same tensors with other labels, or none."""
        return self._derived(labels, self.tensors, self.null)

    def without(self, name: str) -> "Conditions":
        """All but one of the tensors."""
        tensors, null = ({key: x for key, x in part.items() if key != name} for part in (self.tensors, self.null))
        return self._derived(self.labels, tensors, null)

    def unconditional(self, num_classes: int) -> "Conditions":
        """No condition: the null class, and the null value of each tensor that has one."""
        labels = None if self.labels is None else torch.full_like(self.labels, num_classes)
        return self._derived(labels, {**self.tensors, **self.null}, self.null)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same change made to labels, tensors and null values, all of which are (B, ...)."""
        labels = None if self.labels is None else change(self.labels)
        tensors, null = ({name: change(x) for name, x in part.items()} for part in (self.tensors, self.null))
        return self._derived(labels, tensors, null)

    @classmethod
    def _derived(cls, labels: Tensor | None, tensors: Mapping[str, Tensor], null: Mapping[str, Tensor]) -> "Conditions":
        """Made of ones that were checked: to look for NaN again, at every step, would make a GPU wait."""
        found = object.__new__(cls)
        for name, value in (("labels", labels), ("tensors", tensors), ("null", null)):
            object.__setattr__(found, name, value)
        return found

    @classmethod
    def joined(cls, parts: Sequence["Conditions"]) -> "Conditions":
        """Several batches, told alike, as one."""
        first = parts[0]
        labels = [part.labels for part in parts if part.labels is not None]
        tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
        null = {name: torch.cat([part.null[name] for part in parts]) for name in first.null}
        return cls._derived(torch.cat(labels) if labels else None, tensors, null)

    @property
    def guides(self) -> bool:
        """Whether no condition would be another one, so that there is something to guide to."""
        return self.labels is not None or bool(self.null)

    def digests(self) -> dict[str, str]:
        """A digest of each tensor and null value, by its name, whatever the device."""
        named = {**self.tensors, **{f"null {name}": x for name, x in self.null.items()}}
        return {name: digest(x) for name, x in sorted(named.items())}


Told = Union[Tensor, Conditions, None]  # noqa: UP007  # at run time too, in Python 3.10


def labels_of(told: Told) -> Tensor | None:
    """The labels among what is told."""
    return told.labels if isinstance(told, Conditions) else told


def tensors_of(told: Told) -> Mapping[str, Tensor]:
    """What is told as keywords."""
    return told.tensors if isinstance(told, Conditions) else NOTHING


def with_labels(told: Told, labels: Tensor | None) -> Told:
    """What is told, with other labels."""
    return told.with_labels(labels) if isinstance(told, Conditions) else labels


def unconditional(told: Told, num_classes: int) -> Told:
    """No condition, for as many samples."""
    if isinstance(told, Conditions):
        return told.unconditional(num_classes)
    return None if told is None else torch.full_like(told, num_classes)


def joined(parts: Sequence[Told]) -> Told:
    """What several batches, told alike, are told as one."""
    if conditions := [part for part in parts if isinstance(part, Conditions)]:
        return Conditions.joined(conditions)
    labels = [part for part in parts if isinstance(part, Tensor)]
    return torch.cat(labels) if labels else None


def keywords(told: Told, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors among what x (B, ...) is told, floats in the network's precision, which is dtype.

    Raises ConditionError where they are of another number of samples.
    """
    found = tensors_of(told)
    for name, value in found.items():
        if len(value) != len(x):
            raise ConditionError(f"conditions[{name!r}] are {len(value)}, for {len(x)} samples; give one a sample")
    return {name: value.to(x.device, dtype if value.is_floating_point() else None) for name, value in found.items()}


def digest(x: Tensor) -> str:
    """Of a tensor's kind, shape and bytes; a hex string."""
    found = hashlib.sha256(f"{x.dtype} {tuple(x.shape)}".encode())
    found.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _check_names(what: str, given: object) -> None:
    """Raise unless it maps names to dense tensors of finite numbers, each of a sample or more."""
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{what} are {described(given)}; give a dict of tensors, such as {{'image': x}}")
    for name, x in given.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ConditionError(f"{what}[{shown(name)}]: a condition is handed over as a keyword; give it such a name")
        if not isinstance(x, Tensor):
            raise ArgumentError(f"{what}[{name!r}] is {described(x)}; give a tensor")
        if not is_readable(x) or (what == "conditions" and (not x.ndim or not len(x))):
            raise ConditionError(f"{what}[{name!r}] is {described(x)}; give a dense tensor (B, ...), one row a sample")
        if not torch.isfinite(x.detach()).all():
            where = "" if what == "null" else f"[{int((~torch.isfinite(x.reshape(len(x), -1)).all(1)).nonzero()[0])}]"
            raise ConditionError(f"{what}[{name!r}]{where} holds NaN or infinity; give finite numbers")


def _null(name: str, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The null value of a condition, one a sample. Raises ConditionError where it is of none, or does not fit it."""
    if name not in tensors:
        raise ConditionError(f"null has {name!r}, which is no condition here; give conditions[{name!r}] too")
    like = tensors[name]
    if x.shape not in (like.shape, like.shape[1:]):
        raise ConditionError(
            f"null[{name!r}] has shape {tuple(x.shape)}; give {tuple(like.shape[1:])}, or one a sample"
        )
    if x.is_floating_point() != like.is_floating_point():
        raise ConditionError(
            f"null[{name!r}] is {x.dtype}, and the condition {like.dtype}; give the same kind of numbers"
        )
    return x.to(like).expand_as(like)
