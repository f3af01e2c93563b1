"""Where a tuned method comes from: the model that it was tuned to, on which samples, and how well it did on others."""

from dataclasses import dataclass
from typing import NamedTuple


class Errors(NamedTuple):
    """Of held-out samples: median and root mean square of what each misses, RMS over a sample in data units."""

    median: float
    rms: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """How well a table does, or a grid.

    predictions: of the model, that a sample costs. errors: on the held-out seeds. others: those of methods that were
    not tuned, by their names, at that budget. evaluations: network passes that tuning cost. refined: whether by
    Gauss-Newton; otherwise it is the greedy one.
    """

    predictions: int
    errors: Errors
    others: tuple[tuple[str, Errors], ...]
    evaluations: int
    refined: bool


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a method was tuned to.

    digest: `fingerprint` of the model without its guidance. seeds, held_out: those it was tuned on, and judged on.
    labels: what they had: "each" for all classes in turn, "none", or the classes, as in "3" or "0,2". tried: whether
    Gauss-Newton was. results: one for each budget, in their order.
    """

    digest: str
    shape: tuple[int, ...]
    num_classes: int
    sigma_range: tuple[float, float]
    guidance: float
    guidance_range: tuple[float, float] | None
    labels: str
    tried: bool
    seeds: tuple[int, ...]
    held_out: tuple[int, ...]
    results: tuple[Result, ...]
    forced: bool = False  # whether it may be used on another model
