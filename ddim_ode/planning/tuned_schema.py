"""What a file of a tuned method holds, checked, and the method that it stands for."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ddim_ode.errors import DDIMError
from ddim_ode.planning.inputs import SEEDS
from ddim_ode.solvers import METHODS, Method, name_of
from ddim_ode.solvers.origin import Errors, Origin, Result
from ddim_ode.solvers.tuned import Table, tabulated
from ddim_ode.support.checks import of_kind
from ddim_ode.support.records import finite
from ddim_ode.support.validation import Record, parse

MOST_SEEDS = 10**6
RANGES = "^[0-9]{1,10}(-[0-9]{1,10})?(,[0-9]{1,10}(-[0-9]{1,10})?)*$"

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Size = Annotated[Number, Field(ge=0)]
Count = Annotated[int, Field(strict=True, ge=1, lt=2**53)]
Flag = Annotated[bool, Field(strict=True)]
Ranges = Annotated[str, Field(strict=True, pattern=RANGES)]

#: what a file says of the model and the tuning, under the names of `Origin`
FACTS = ("digest", "shape", "num_classes", "sigma_range", "guidance", "guidance_range", "labels", "tried")


class TunedError(DDIMError):
    """A file of a tuned method that is missing, damaged, or holds something else; a method that has no such file."""


class StoredErrors(Record):
    """`Errors`; None is one that is infinite, of a method that diverges."""

    median: Size | None = None
    rms: Size | None = None


class StoredTable(Record):
    """A `Table`, or a grid that ends at 0 with the others left out, and the `Result` that it had."""

    predictions: Count
    sigmas: tuple[Size, ...]
    scale: Positive | None = None
    noise: tuple[Number, ...] | None = None
    data: tuple[tuple[Number, ...], ...] | None = None
    errors: StoredErrors
    others: dict[str, StoredErrors]
    evaluations: Count
    refined: Flag

    @model_validator(mode="after")
    def _fits(self) -> "StoredTable":
        if any(a <= b for a, b in pairwise(self.sigmas)):
            raise fault("its sigmas do not decrease strictly")
        if self.scale is None or self.noise is None or self.data is None:
            if (self.scale, self.noise, self.data) != (None, None, None):
                raise fault("scale, noise and data belong together")
            if len(self.sigmas) < 2:
                raise fault("a grid has at least 2 sigmas")
            return self
        count = len(self.sigmas)
        lengths = [len(self.noise), len(self.data), *(len(row) - n for n, row in enumerate(self.data))]
        if count < 2 or self.predictions != count or self.sigmas[-1] == 0:
            raise fault("a table has as many sigmas above 0 as predictions, at least 2")
        if lengths != [count] * 2 + [1] * count:
            raise fault(f"for {count} sigmas noise has {count} numbers, and data {count} rows of 1, 2, ... numbers")
        return self


class StoredMethod(Record):
    """All that such a file holds beside its kind and its seal."""

    digest: Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]
    shape: tuple[Count, ...]
    num_classes: Annotated[int, Field(strict=True, ge=0, lt=2**53)]
    sigma_range: tuple[Size, Positive]
    guidance: Number
    guidance_range: tuple[Size, Positive | None] | None = None
    labels: Annotated[str, Field(strict=True, pattern="^(each|none|[0-9]{1,10}(,[0-9]{1,10})*)$")]
    tried: Flag
    seeds: Ranges
    held_out: Ranges
    method: Annotated[str, Field(strict=True)] | None = None  # whose grids alone were tuned
    tables: tuple[StoredTable, ...]

    @model_validator(mode="after")
    def _fits(self) -> "StoredMethod":
        if not self.tables:
            raise fault("tables is empty")
        costs = [table.predictions for table in self.tables]
        if any(a >= b for a, b in pairwise(costs)):
            raise fault(f"tables for {', '.join(map(str, costs))} predictions are not in order")
        if any((table.scale is None) != (self.method is not None) for table in self.tables):
            raise fault("tables have scale, noise and data where method is left out, and sigmas alone where it is not")
        if self.method is not None and (self.method not in METHODS or METHODS[self.method].adaptive):
            raise fault("method is none that steps on a grid")
        for text in (self.seeds, self.held_out):
            if sum(len(part) for part in ranges_in(text)) > MOST_SEEDS or max(p.stop for p in ranges_in(text)) > SEEDS:
                raise fault(f"seeds are more than {MOST_SEEDS:,}, or above 2^32-1")
            if not all(ranges_in(text)):
                raise fault("a range of seeds is empty")
        return self

    @classmethod
    def of(cls, method: Method) -> "StoredMethod":
        """What a file of the method holds. Raises TunedError for one that was not tuned, or has no name."""
        of_kind("method", method, Method, "a Method that was tuned, or that load_tuned returned")
        origin, name = method.origin, name_of(method)
        tables: Sequence[Table] = getattr(method.solver, "tables", ()) if method.own_grids else ()
        if origin is None or len(origin.results) != len(method.grids) or not (tables or (name and method.grids)):
            raise TunedError("this method was not tuned to a model, so there is nothing to save; give one that was")
        numbers: list[dict[str, Any]] = (
            [{key: getattr(table, key) for key in ("sigmas", "scale", "noise", "data")} for table in tables]
            if tables
            else [{"sigmas": grid} for grid in method.grids]
        )
        told = {
            **{key: getattr(origin, key) for key in FACTS},
            "seeds": in_ranges(origin.seeds),
            "held_out": in_ranges(origin.held_out),
            "method": None if tables else name,
            "tables": [{**one, **_stored(result)} for one, result in zip(numbers, origin.results, strict=True)],
        }
        return parse(cls, finite(told), "this method")

    def to_method(self, force: bool = False) -> Method:
        """The method, which may be used on other models too if forced."""
        origin = Origin(
            **{key: getattr(self, key) for key in FACTS if key != "guidance_range"},
            guidance_range=self.guidance_range and (self.guidance_range[0], _number(self.guidance_range[1])),
            seeds=tuple(seed for part in ranges_in(self.seeds) for seed in part),
            held_out=tuple(seed for part in ranges_in(self.held_out) for seed in part),
            results=tuple(_result(table) for table in self.tables),
            forced=force,
        )
        if self.method is not None:
            grids = tuple(table.sigmas for table in self.tables)
            return replace(METHODS[self.method], grids=grids, origin=origin)
        tables = [
            Table(table.sigmas, table.scale, table.noise, table.data)
            for table in self.tables
            if table.scale is not None and table.noise is not None and table.data is not None  # which all have here
        ]
        return replace(tabulated(tables), origin=origin)


def in_ranges(seeds: Sequence[int]) -> str:
    """Seeds in their order, those that follow one another as a range: "0-31,40"."""
    ends: list[list[int]] = []
    for seed in seeds:
        if ends and seed == ends[-1][1] + 1:
            ends[-1][1] = seed
        else:
            ends.append([seed, seed])
    return ",".join(f"{low}-{high}" if low < high else f"{low}" for low, high in ends)


def ranges_in(text: str) -> Iterator[range]:
    """The ranges of such a text."""
    for low, high in re.findall(r"(\d+)(?:-(\d+))?", text):
        yield range(int(low), int(high or low) + 1)


def fault(words: str) -> PydanticCustomError:
    """What is wrong with a file, without words of pydantic's before it."""
    return PydanticCustomError("tuned", "{words}", {"words": words})


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _stored(result: Result) -> dict[str, Any]:
    return {
        "predictions": result.predictions,
        "errors": result.errors._asdict(),
        "others": {name: errors._asdict() for name, errors in result.others},
        "evaluations": result.evaluations,
        "refined": result.refined,
    }


def _result(table: StoredTable) -> Result:
    def errors(stored: StoredErrors) -> Errors:
        return Errors(_number(stored.median), _number(stored.rms))

    return Result(
        predictions=table.predictions,
        errors=errors(table.errors),
        others=tuple((name, errors(stored)) for name, stored in table.others.items()),
        evaluations=table.evaluations,
        refined=table.refined,
    )
