"""Adaptive solvers where a whole batch is at one sigma, as it is in other people's programs."""

from dataclasses import fields, is_dataclass, replace
from typing import Any


def sharing(solver: Any) -> Any:
    """An adaptive solver whose batch shares its steps, by its worst member; None of one that gives each its own.

    What it solves as one sample is a batch then, where `per_sample` was not False before.
    """
    if is_dataclass(solver) and any(field.name == "shared" for field in fields(solver)):
        return replace(solver, shared=True)  # type: ignore[type-var]  # an instance, as solvers are
    return None if getattr(solver, "per_sample", True) else solver
