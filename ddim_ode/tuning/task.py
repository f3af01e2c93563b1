"""A tuning, step by step: what is compared with, a search, Gauss-Newton, and a judgement on samples held out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Model, NonFiniteError
from ddim_ode.planning.budget import DryRun, grid_for
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.tuned_files import load_tuned, save_tuned
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import METHODS, DivergedError, Method
from ddim_ode.solvers.origin import Errors, Origin, Result
from ddim_ode.solvers.tuned import Table, tabulated
from ddim_ode.tuning.greedy import search
from ddim_ode.tuning.grid import best_named
from ddim_ode.tuning.problem import Asked, Samples, Trajectories, missed, solved
from ddim_ode.tuning.refine import Movable
from ddim_ode.tuning.refine import refine as refined

FEW = 16  # samples that suffice for the search in the family
LEAST = 16  # samples that Gauss-Newton takes, whatever an iteration costs
ITERATIONS = 4  # that a budget should allow
LONG, MEMORY = 12, 4  # a table of more predictions has only the latest c_nj of a step moved
OTHERS = ("unipc_2", "adaptive")


class TuneError(DDIMError):
    """A tuning that cannot be; the message gives the value, the rule and the remedy."""


class TuneProgress(NamedTuple):
    """What a callback is told: at which budget, or 0 for what all share, what is done, what it has cost, the error.

    doing: "reference", "search", "refine", "judge" or "done". evaluations: network passes spent on it so far. error:
    the median over the samples so far, RMS over a sample, or None.
    """

    nfe: int
    doing: str
    evaluations: int
    error: float | None


Told = Callable[[TuneProgress], None]
Found = tuple[Table | tuple[float, ...], Result]  # a table, or a grid that ends at 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One tuning, checked. only: the method of which the grid is tuned. labels: to tune on, and to judge on."""

    asked: Asked
    options: SolveOptions
    only: Method | None
    refine: bool
    budget: int
    told: Told
    labels: tuple[Tensor | None, Tensor | None]
    origin: Origin

    def run(self, budgets: Mapping[int, int], out: Path | None) -> Method:
        """The method with all budgets, predictions -> nfe, written to `out` as each is done."""
        found = self._known(out)
        missing = [nfe for count, nfe in budgets.items() if count not in {result.predictions for _, result in found}]
        if missing:
            self.told(TuneProgress(0, "reference", 0, None))
            samples, judges = (
                solved(self.asked, seeds, labels, self.options)
                for seeds, labels in zip((self.origin.seeds, self.origin.held_out), self.labels, strict=True)
            )
            few = samples.part(slice(0, FEW))
            way = None if self.only else Trajectories(self.asked, few)
            self.told(TuneProgress(0, "done", self.asked.passes, None))
            for nfe in missing:
                found.append(self._one(nfe, samples, few, way, judges))
                if out is not None:
                    save_tuned(self._method(found), out)
        return self._method([one for one in found if one[1].predictions in budgets])

    def _known(self, out: Path | None) -> list[Found]:
        """What a file of an earlier run holds. Raises TuneError for one of another."""
        if out is None or not out.exists():
            return []
        method = load_tuned(out)
        assert method.origin
        same = replace(method.origin, results=()) == self.origin
        if not same or (None if method.own_grids else replace(method, grids=(), origin=None)) != self.only:
            raise TuneError(f"{out} holds what was tuned to another model, or otherwise; choose another file")
        pieces = method.solver.tables if method.own_grids else method.grids
        return list(zip(pieces, method.origin.results, strict=True))

    def _method(self, found: Sequence[Found]) -> Method:
        ordered = sorted(found, key=lambda one: one[1].predictions)
        pieces, results = zip(*ordered, strict=True)
        origin = replace(self.origin, results=results)
        return (
            replace(self.only, grids=pieces, origin=origin) if self.only else replace(tabulated(pieces), origin=origin)
        )

    def _one(self, nfe: int, samples: Samples, few: Samples, way: Trajectories | None, judges: Samples) -> Found:
        """The refined or the greedy one, whichever does better on the held-out seeds, and what it and others miss."""
        asked, spent = self.asked, self.asked.passes

        def told(doing: str, error: float | None = None) -> None:
            self.told(TuneProgress(nfe, doing, asked.passes - spent, error))

        intervals, predictions = steps_for(asked.model, self.only, nfe)
        begin: Movable
        if self.only:
            begin = best_named(asked, self.only, intervals, few, partial(told, "search"))
        else:
            assert way
            memory = intervals if intervals <= LONG else MEMORY
            begin = search(asked, intervals, few, way, memory, partial(told, "search"))
        at = begin
        if self.refine:
            iteration = begin.price * asked.model.evaluations(1.0)
            part = samples.part(slice(0, max(LEAST, self.budget // (ITERATIONS * iteration))))
            at = refined(asked, begin, part, spent + self.budget, lambda e: told("refine", float(e.median())))
        evaluations = asked.passes - spent
        told("judge")
        first, last = (_errors(one.images(asked, judges), judges.x) for one in (begin, at))
        better = last.median <= first.median and last.rms <= first.rms
        result = Result(
            predictions=predictions,
            errors=last if better else first,
            others=tuple(self._others(nfe, judges)),
            evaluations=evaluations,
            refined=self.refine and better,
        )
        told("done", result.errors.median)
        return (at if better else begin).result(), result

    def _others(self, nfe: int, judges: Samples) -> Iterator[tuple[str, Errors]]:
        """What methods miss that were not tuned; without those that the budget does not allow."""
        for name in OTHERS:
            options = replace(self.options, method=name, nfe=nfe, dtype=torch.float64)
            with suppress(SampleError, DivergedError, NonFiniteError):
                x = sample_with(self.asked.model, options, seeds=self.origin.held_out, labels=self.labels[1]).x
                yield name, _errors(x, judges.x)


def steps_for(model: Model, only: Method | None, nfe: int) -> tuple[int, int]:
    """The steps that a budget allows, and the predictions that they ask for. Raises SampleError for one of none."""
    method = only or METHODS["ddim"]
    sigmas = grid_for(model, SolveOptions(method=method, nfe=nfe))
    return len(sigmas) - 1, len(DryRun(model, method.path, method.solver, sigmas).asked)


def _errors(x: Tensor, true: Tensor) -> Errors:
    errors = missed(x, true)
    return Errors(float(errors.median()), float(errors.square().mean().sqrt()))
