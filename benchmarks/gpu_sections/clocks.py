"""Seconds, on a device that works on while Python goes ahead: what is timed is finished before the clock is read."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_sections.base import Setting
from benchmarks.unet_speed import timed

Works = Mapping[str, Callable[[], object]]
TURNS, FEWEST = 15, 3


class Turns:
    """Seconds of several works that took turns; `first` is what the first call of each took, which warmed it up."""

    def __init__(self, first: dict[str, float], seconds: dict[str, list[float]]):
        self.first, self.seconds = first, seconds

    def __getitem__(self, name: str) -> float:
        """The median of a work."""
        return statistics.median(self.seconds[name])

    def ratio(self, of: str, to: str) -> float:
        """The median of the ratios, turn by turn."""
        return statistics.median(a / b for a, b in zip(self.seconds[of], self.seconds[to], strict=True))


def in_turns(setting: Setting, works: Works, most: float = 4.0, processor: bool = False) -> Turns:
    """Time works A, B, B, A, ... after two calls of each that do not count, one alone if small; by the clock on the
    wall or, on a CPU, by the processor's.

    There are `TURNS` turns, or as many as fit into `most` seconds, but three at least (small: one).
    """
    device = setting.device.type
    first = {name: timed(work, device)[0] for name, work in works.items()}
    turns = 1
    if not setting.small:
        estimate = sum(timed(work, device)[processor] for work in works.values())
        turns = max(FEWEST, min(TURNS, int(most / max(estimate, 1e-9))))
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            seconds[name].append(timed(works[name], device)[processor])
    return Turns(first, seconds)


def once(setting: Setting, work: Callable[[], object]) -> float:
    """Seconds of one call."""
    return timed(work, setting.device.type)[0]


class Clocked(nn.Module):
    """A network that notes the size of every batch that it is given, and when, on the device's own time."""

    def __init__(self, net: nn.Module, setting: Setting):
        super().__init__()
        self.net, self._cuda = net, setting.cuda
        self._marks: list[tuple[Any, Any]] = []
        self.batches: list[int] = []

    def forward(self, x: Tensor, *rest: Tensor, **told: Tensor) -> Tensor:
        begin = self._mark()
        out: Tensor = self.net(x, *rest, **told)
        self._marks.append((begin, self._mark()))
        self.batches.append(len(x))
        return out

    def clear(self) -> None:
        self._marks.clear()
        self.batches.clear()

    def seconds(self) -> float:
        """Spent in the network since `clear`, the time that it waited for Python between two of its kernels included.
        Call it when the device is done.
        """
        if self._cuda:
            return float(sum(begin.elapsed_time(end) for begin, end in self._marks)) / 1e3
        return float(sum(end - begin for begin, end in self._marks))

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
