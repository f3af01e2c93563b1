"""The cost of a study: seconds and samples in the network alone, and the most memory."""

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import update_wrapper
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.guidance import Guided

PROCESS = Path("/proc/self")


@dataclass
class Meter:
    """Seconds spent inside networks, and samples that went through them."""

    seconds: float = 0.0
    evaluations: int = 0

    def watch(self, model: Model) -> Model:
        """The same model, its network timed; one that is neither a Denoiser nor Guided is timed as a whole."""
        if isinstance(model, Guided):
            return replace(model, model=self.watch(model.model))
        if isinstance(model, Denoiser):
            return replace(model, net=self._timed(model.net, model.device))
        return cast(Model, _Watched(model, self._timed(model, model.device)))

    def _timed(self, net: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        def forward(x: Tensor, *rest: Any, **told: Any) -> Any:
            synchronise(device)
            begin = time.perf_counter()
            out = net(x, *rest, **told)
            synchronise(device)
            self.seconds += time.perf_counter() - begin
            self.evaluations += len(x)
            return out

        return update_wrapper(forward, net, assigned=(), updated=())  # whose weights can be found then


class _Watched:
    """A model that is called through something else."""

    def __init__(self, model: Model, call: Callable[..., Any]):
        self._model, self._call = model, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The time and evaluations of the last run of a study, in which cells that were kept cost nothing.

    ratio: of the seconds of all processes to those in the network alone, None where nothing was left to measure.
    threads: of each process.
    devices: those that cells were measured on, each by a process of its own.
    """

    seconds: float
    network_seconds: float
    ratio: float | None
    evaluations: int
    date: str
    machine: str
    threads: int
    processes: int = 1
    devices: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, meter: Meter, seconds: float, device: torch.device, processes: int = 1, devices: Sequence[str] = ()
    ) -> "Cost":
        """The cost of a run that ends now, on the threads of now. meter: of all processes."""
        return cls(
            seconds=seconds,
            network_seconds=meter.seconds,
            ratio=processes * seconds / meter.seconds if meter.seconds else None,
            evaluations=meter.evaluations,
            date=date.today().isoformat(),
            machine=_machine(device),
            threads=torch.get_num_threads(),
            processes=processes,
            devices=list(devices),
        )


def synchronise(device: torch.device) -> None:
    """Wait for a GPU, so that the clock tells what it did."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Count the most memory from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with suppress(OSError):  # some containers forbid it; then the peak is the process's so far
            (PROCESS / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float | None:
    """The most memory used, in MB: by tensors on a GPU, by the whole process on a CPU, where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores, {platform.machine()}"
