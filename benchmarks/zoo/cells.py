"""What is run on each problem of the zoo, and how it is kept: a JSON file a problem, rewritten after every method."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import ddim_ode
from benchmarks.zoo.problems import Problem
from benchmarks.zoo.rivals import rivals
from ddim_ode.errors import DDIMError
from ddim_ode.grids import GRIDS, GridWarning
from ddim_ode.solvers import METHODS, Method
from ddim_ode.support.files import replacing

BUDGETS = (10, 20)
MEANS = (8, 10, 15, 20)  # evaluations that `adaptive` may spend, in the mean
TOLS = (0.1, 0.055, 0.03, 0.017, 0.01, 0.0055, 0.003)
DEFAULT = "default"  # the grid that a method has on the path
TUNED = (6, 10)  # predictions
AUTO = ("adams3", "adams4", "dpmpp_2m", "unipc_2")


@dataclass(frozen=True)
class Cell:
    """One run: errors of the samples (RMS) and the evaluations they cost in the mean. at: a budget or a tolerance."""

    section: str
    method: str
    grid: str
    at: float
    nfe: float
    errors: list[float]
    note: str = ""

    @property
    def error(self) -> float:
        """Median over the samples, infinite of a run that failed."""
        return float(torch.tensor(self.errors).median()) if self.errors else float("inf")


def on_grids() -> dict[str, Method]:
    """Every method that follows a grid to the ODE's images, once where two rows say the same."""
    found: dict[str, Method] = {}
    for name, method in METHODS.items():
        same = any((m.solver, m.path, m.grid) == (method.solver, method.path, method.grid) for m in found.values())
        if not method.adaptive and method.deterministic and not same:
            found[name] = method
    return found


def grids(on: Problem) -> Iterator[list[Cell]]:
    """Each method on its default grid and on every named one that the path can have."""
    for name in on_grids():
        for budget in BUDGETS:
            yield [run(on, "grids", name, budget, nfe=budget, grid=grid) for grid in (None, *GRIDS)]


def auto(on: Problem) -> Iterator[list[Cell]]:
    for name in AUTO:
        yield [run(on, "auto", name, budget, nfe=budget, grid="auto") for budget in BUDGETS]


def adaptive(on: Problem) -> Iterator[list[Cell]]:
    """At equal mean evaluations, and for tolerances."""
    for budget in MEANS:
        yield [run(on, "budgets", "adaptive", budget, nfe=budget)]
    for tol in TOLS:
        yield [run(on, "tolerances", "adaptive", tol, tol=tol)]


def diffusers(on: Problem, budgets: Sequence[int] = BUDGETS) -> Iterator[list[Cell]]:
    """The schedulers that a pipeline would have on such a path."""
    for name, rival in rivals(on).items():
        found = []
        for budget in budgets:
            try:
                x, spent = rival(budget)
            except (IndexError, AssertionError) as error:  # timesteps that Karras's rounding made equal, as on cosine
                found.append(Cell("diffusers", name, "", budget, 0.0, [], repr(error)))
                continue
            found.append(Cell("diffusers", name, "", budget, spent, on.errors(x).tolist()))
        yield found


def tuned(on: Problem) -> Iterator[list[Cell]]:
    """A method tuned to the model on other seeds, the methods that are not, and the schedulers of diffusers."""
    each = on.model.evaluations(1.0)
    budgets = [count * each for count in TUNED]
    method = ddim_ode.tune(on.model, budgets, labels=None if on.labels is None else "each")
    yield [run(on, "tuned", method, at, nfe=at) for at in budgets]
    for name in (*on_grids(), "adaptive"):
        yield [run(on, "untuned", name, at, nfe=at) for at in budgets]
    for found in diffusers(on, budgets):
        yield [replace(cell, section="rivals") for cell in found]


SECTIONS: dict[str, Callable[[Problem], Iterator[list[Cell]]]] = {
    "grids": grids,
    "auto": auto,
    "adaptive": adaptive,
    "diffusers": diffusers,
    "tuned": tuned,
}


def run(on: Problem, section: str, chosen: str | Method, at: float, **choices: Any) -> Cell:
    method, told = chosen if isinstance(chosen, str) else "tuned", choices.get("grid") or DEFAULT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GridWarning)  # of the hopeless ones, which are run like the others
            found = on.sample(chosen, **choices)
    except DDIMError as error:
        return Cell(section, method, told, at, 0.0, [], str(error))
    return Cell(section, method, told, at, float(found.nfe.double().mean()), on.errors(found.x).tolist())


@dataclass
class Record:
    """What is known of a problem, and its file."""

    name: str
    file: Path
    count: int
    doubt: float
    cells: list[Cell]
    done: list[str]  # sections

    @staticmethod
    def opened(name: str, folder: Path, count: int) -> "Record":
        file = folder / f"{name.replace('/', '_')}.json"
        if not file.exists():
            return Record(name, file, count, float("nan"), [], [])
        told = json.loads(file.read_text())
        if told["count"] != count:
            raise SystemExit(f"{file} is of {told['count']} samples a problem; give --count {told['count']}")
        return Record(name, file, count, told["doubt"], [Cell(**cell) for cell in told["cells"]], told["done"])

    def complete(self, section: str, on: Problem, said: Callable[[str], None]) -> None:
        """Run a section that has not been run to its end, and keep it."""
        self.cells = [cell for cell in self.cells if cell.section not in PARTS[section]]
        self.doubt = on.doubt
        for found in SECTIONS[section](on):
            self.cells.extend(found)
            said(f"{self.name} {section} {found[0].method} {found[0].at:g}")
        self.done.append(section)
        told = {"count": self.count, "doubt": self.doubt, "done": self.done, "cells": [asdict(c) for c in self.cells]}
        with replacing(self.file) as new:
            new.write(json.dumps(told).encode())


PARTS = {name: (name,) for name in SECTIONS} | {
    "adaptive": ("budgets", "tolerances"),
    "tuned": ("tuned", "untuned", "rivals"),
}
