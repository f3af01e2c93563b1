"""From images to latents and back by several methods: what each costs and loses."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.inversion import Reconstruction
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards.roundtrips import RoundTrips, round_trips
from ddim_ode.solvers import get_method


@dataclass(frozen=True)
class Attempt:
    """A method, what it came to in numbers, and the reconstruction itself, or the reason why there is none."""

    trips: RoundTrips
    result: Reconstruction | DDIMError
    seconds: float


def parse_methods(text: str, nfe: int | None, tol: float | None, max_nfe: int | None) -> list[str]:
    """Names between commas, for which the options given make sense. Raises MethodError, SampleError."""
    names = [name.strip() for name in text.split(",") if name.strip()] or [text]
    adaptive = [get_method(name).adaptive for name in names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SampleError(f"method={text!r} names {twice[0]} twice; leave one of them out")
    if nfe is not None and all(adaptive):
        raise SampleError(f"nfe={nfe} is for methods on a grid; {text} takes tol")
    for name, value in [("tol", tol), ("max_nfe", max_nfe)]:
        if value is not None and not any(adaptive):
            raise SampleError(f"{name}={value!r} is for adaptive methods; {text} takes nfe")
    return names


def attempt(model: Model, x: Tensor, method: str, guidance: float = 1.0, **options: Any) -> Attempt:
    """Reconstruct x, as `round_trips` does."""
    started = time.perf_counter()
    trips, result = round_trips(model, x, method, guidance, **options)
    return Attempt(trips, result, time.perf_counter() - started)


def check_any(attempts: Sequence[Attempt]) -> None:
    """Raises the first method's error where all of them failed."""
    errors = [attempt.result for attempt in attempts if isinstance(attempt.result, DDIMError)]
    if len(errors) == len(attempts):
        raise errors[0]


def summary(attempt: Attempt) -> dict[str, Any]:
    return {**attempt.trips.summary(), "seconds": attempt.seconds}


def details(attempt: Attempt) -> dict[str, Any]:
    return {**attempt.trips.details(), "seconds": attempt.seconds}


def draw_pictures(attempts: Sequence[Attempt], folder: Path) -> list[Path]:
    """A picture of every method that arrived: folder/<name>.png."""
    from ddim_ode.commands.shared.pictures import save_reconstruction

    files = []
    for attempt in attempts:
        if isinstance(attempt.result, Reconstruction):
            files.append(folder / f"{attempt.trips.name}.png")
            save_reconstruction(attempt.result, _title(attempt), files[-1])
    return files


def _title(attempt: Attempt) -> str:
    facts = attempt.trips.summary()
    name = facts["method"] if facts["guidance"] == 1 else f"{facts['method']}, guidance {facts['guidance']:g}"
    exact, count = facts["bit_exact"], facts["count"]
    quality = "all bit exact" if exact == count else f"{exact} of {count} bit exact, RMS error {facts['rms']:.2g}"
    return f"{name}: NFE {facts['nfe_up']:.4g} up, {facts['nfe_down']:.4g} down; {quality}"
