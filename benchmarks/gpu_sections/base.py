"""What a section is: cases that are measured one after another, the most important first."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

Names = Mapping[str, str | int | float]  # what a case is, by column
Values = Mapping[str, float]  # what was measured, by column; a column's name has its unit

Given = TypeVar("Given")


@dataclass(frozen=True)
class Setting:
    """Where it is measured, and whether small, so that one core does all of it in a minute."""

    device: torch.device
    small: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, whole: Given, small: Given) -> Given:
        return small if self.small else whole


class Case(NamedTuple):
    """A row of a table: what it is, and what measures it."""

    names: Names
    measure: Callable[[], Values]


@dataclass(frozen=True)
class Section:
    """A table. It is given its share, by `seconds`, of the time that is left when it has its turn."""

    name: str
    title: str  # what is measured, and how to read it
    seconds: float
    cases: Callable[[Setting], Iterator[Case]]


class SkippedError(Exception):
    """A case that cannot be here, by no fault; the message says why."""


def need_cuda(setting: Setting, what: str) -> None:
    """Raise SkippedError unless there is CUDA."""
    if not setting.cuda:
        raise SkippedError(f"{what} need CUDA")
