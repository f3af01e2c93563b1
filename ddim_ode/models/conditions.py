"""What a network is told of each sample besides (x, t): its label, and tensors handed over as keywords.

A Model's third argument is `Told`: labels alone, a `Conditions`, or None for no condition at all. All of them are cut
with the batch and moved by the same words, `told[rows]` and `told.to(device)`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Union

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError, described, shown
from ddim_ode.support.tables import is_readable

NONE: Mapping[str, Tensor] = MappingProxyType({})


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
    tensors: Mapping[str, Tensor] = field(default_factory=lambda: NONE)
    null: Mapping[str, Tensor] = field(default_factory=lambda: NONE)

    def __post_init__(self) -> None:
        for what, given in (("conditions", self.tensors), ("null", self.null)):
            _check_names(what, given)
            object.__setattr__(self, what if what == "null" else "tensors", MappingProxyType(dict(given)))
        counts = [len(x) for x in (self.labels, *self.tensors.values()) if x is not None]
        if not counts:
            raise ConditionError("conditions are empty; leave them out")
        for name, x in self.tensors.items():
            if len(x) != counts[0]:
                raise ConditionError(f"conditions[{name!r}] are {len(x)}, for {counts[0]} samples; give one a sample")
        if stray := self.null.keys() - self.tensors.keys():
            name = min(stray)
            raise ConditionError(f"null has {name!r}, which is no condition here; give conditions[{name!r}] too")
        for name, x in self.null.items():
            shape = self.tensors[name].shape
            if x.shape not in (shape, shape[1:]):
                raise ConditionError(
                    f"null[{name!r}] has shape {tuple(x.shape)}; give {tuple(shape[1:])}, or one a sample"
                )

    def __len__(self) -> int:
        return next(len(x) for x in (self.labels, *self.tensors.values()) if x is not None)

    def __getitem__(self, rows: Any) -> "Conditions":
        """Those of some of the samples: a slice, or indices."""
        shared = {name: x for name, x in self.null.items() if x.ndim < self.tensors[name].ndim}
        return replace(
            self._each(lambda x: x[rows.to(x.device)] if isinstance(rows, Tensor) else x[rows]),
            null={**{name: self.null[name][rows] for name in self.null.keys() - shared.keys()}, **shared},
        )

    @property
    def device(self) -> torch.device:
        return next(x.device for x in (self.labels, *self.tensors.values()) if x is not None)

    def to(self, device: torch.device) -> "Conditions":
        """The same on another device."""
        moved = self._each(lambda x: x.to(device))
        return replace(moved, null={name: x.to(device) for name, x in self.null.items()})

    def clone(self) -> "Conditions":
        """A copy of the tensors, which are outside of inference mode then."""
        copied = self._each(Tensor.clone)
        return replace(copied, null={name: x.clone() for name, x in self.null.items()})

    def without_labels(self) -> "Conditions":
        """The tensors alone."""
        return replace(self, labels=None)

    def unconditional(self, num_classes: int) -> "Conditions":
        """No condition: the null class, and the null value of each tensor that has one."""
        labels = None if self.labels is None else torch.full_like(self.labels, num_classes)
        nothing = {name: x.expand_as(self.tensors[name]) for name, x in self.null.items()}
        return replace(self, labels=labels, tensors={**self.tensors, **nothing})

    @property
    def guides(self) -> bool:
        """Whether no condition would be another one, so that there is something to guide to."""
        return self.labels is not None or bool(self.null)

    def digests(self) -> dict[str, str]:
        """A digest of each tensor and null value, by its name, whatever the device."""
        named = {**self.tensors, **{f"null {name}": x for name, x in self.null.items()}}
        return {name: digest(x) for name, x in sorted(named.items())}

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        labels = None if self.labels is None else change(self.labels)
        return replace(self, labels=labels, tensors={name: change(x) for name, x in self.tensors.items()})


Told = Union[Tensor, Conditions, None]  # noqa: UP007  # at run time too, in Python 3.10


def labels_of(told: Told) -> Tensor | None:
    """The labels among what is told."""
    return told.labels if isinstance(told, Conditions) else told


def tensors_of(told: Told) -> Mapping[str, Tensor]:
    """What is told as keywords."""
    return told.tensors if isinstance(told, Conditions) else NONE


def with_labels(told: Told, labels: Tensor | None) -> Told:
    """What is told, with other labels."""
    return replace(told, labels=labels) if isinstance(told, Conditions) else labels


def unconditional(told: Told, num_classes: int) -> Told:
    """No condition, for as many samples."""
    if isinstance(told, Conditions):
        return told.unconditional(num_classes)
    return None if told is None else torch.full_like(told, num_classes)


def joined(parts: Iterable[Told]) -> Told:
    """What several batches, told alike, are told as one."""
    told = list(parts)
    labels = [found for found in map(labels_of, told) if found is not None]
    both = torch.cat(labels) if labels else None
    if not isinstance(told[0], Conditions):
        return both
    names = told[0].tensors
    return Conditions(both, {name: torch.cat([tensors_of(one)[name] for one in told]) for name in names})


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
