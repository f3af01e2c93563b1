"""A tuning, step by step: what is compared with, a search, Gauss-Newton, and a judgement on samples held out."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.models.provenance import innermost
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
from ddim_ode.tuning.problem import Asked, Samples, Trajectories, missed, size_of, solved
from ddim_ode.tuning.refine import Movable, refine

PILOTS = 8  # samples that tell the size of the data
FEW, EQUATIONS = 16, 40  # samples that suffice for the search, if they have so many numbers for each prediction
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


@dataclass(frozen=True, eq=False)
class Data:
    """Samples to tune on, the few that the search is content with and their trajectories, those to judge on, and the
    standard deviation of them all.
    """

    samples: Samples
    few: Samples
    way: Trajectories | None
    judges: Samples
    size: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """One tuning, checked. only: the method of which the grid is tuned. labels: to tune on, and to judge on."""

    asked: Asked
    options: SolveOptions
    only: Method | None
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
            data = self._data(max(missing))
            self.told(TuneProgress(0, "done", self.asked.passes, None))
            for nfe in missing:
                found.append(self._one(nfe, data))
                if out is not None:
                    save_tuned(self._method(found), out)
        return self._method([one for one in found if one[1].predictions in budgets])

    def _data(self, most: int) -> Data:
        """What all budgets are tuned and judged on; most: the largest of them."""
        asked, options, (own, others) = self.asked, self.options, self.labels
        pilot = self.origin.seeds[:PILOTS]
        size = size_of(asked, pilot, None if own is None else own[: len(pilot)], options)
        samples = solved(asked, self.origin.seeds, own, options, size)
        numbers = math.prod(samples.z.shape[1:])
        few = samples.part(slice(0, max(FEW, math.ceil(EQUATIONS * most / numbers))))
        judges = solved(asked, self.origin.held_out, others, options, size)
        return Data(samples, few, None if self.only else Trajectories(asked, few), judges, size)

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
        if self.only:
            return replace(self.only, grids=pieces, origin=origin)
        return replace(tabulated(pieces), origin=origin)

    def _one(self, nfe: int, data: Data) -> Found:
        """The refined or the greedy one, whichever does better on the held-out seeds, and what it and others miss."""
        asked, spent = self.asked, self.asked.passes

        def told(doing: str, error: float | None = None) -> None:
            self.told(TuneProgress(nfe, doing, asked.passes - spent, error))

        steps, predictions = steps_for(asked, self.only, nfe)
        begin = self._searched(steps, data, spent + self.budget, partial(told, "search"))
        at = self._refined(begin, data, spent + self.budget, partial(told, "refine")) if self.origin.tried else begin
        evaluations = asked.passes - spent
        told("judge")
        judged = {id(one): _errors(one.images(asked, data.judges), data.judges.x) for one in (begin, at)}
        first, last = judged[id(begin)], judged[id(at)]
        better = at is not begin and last.median <= first.median and last.rms <= first.rms
        kept = at if better else begin
        result = Result(
            predictions=predictions,
            errors=judged[id(kept)],
            others=tuple(self._others(nfe, data.judges)),
            evaluations=evaluations,
            refined=better,
        )
        self.told(TuneProgress(nfe, "done", evaluations, result.errors.median))
        return kept.result(), result

    def _searched(self, steps: int, data: Data, limit: int, told: Callable[[float], None]) -> Movable:
        if self.only:
            return best_named(self.asked, self.only, steps, data.few, told)
        assert data.way
        memory = steps if steps <= LONG else MEMORY
        return search(self.asked, steps, data.few, data.way, memory=memory, size=data.size, limit=limit, told=told)

    def _refined(self, begin: Movable, data: Data, limit: int, told: Callable[[float], None]) -> Movable:
        """By Gauss-Newton, on as many samples as the budget allows for some iterations."""
        enough = max(LEAST, self.budget // (ITERATIONS * begin.price * self.asked.worst))
        samples = data.samples.part(slice(0, enough))
        return refine(self.asked, begin, samples, limit, lambda errors: told(float(errors.median())))

    def _others(self, nfe: int, judges: Samples) -> Iterator[tuple[str, Errors]]:
        """What methods miss that were not tuned; without those that the budget does not allow."""
        for name in OTHERS:
            options = replace(self.options, method=name, nfe=nfe, dtype=torch.float64)
            with suppress(SampleError, DivergedError, NonFiniteError):
                x = sample_with(self.asked.model, options, seeds=self.origin.held_out, labels=self.labels[1]).x
                yield name, _errors(x, judges.x)


def steps_for(asked: Asked, only: Method | None, nfe: int) -> tuple[int, int]:
    """The steps that a budget allows wherever they are, and the predictions that they ask for.

    Raises SampleError for a budget that allows none.
    """
    method, model = only or METHODS["ddim"], innermost(asked.model)
    sigmas = grid_for(model, SolveOptions(method=method, nfe=max(1, nfe // asked.worst)))
    return len(sigmas) - 1, len(DryRun(model, method.path, method.solver, sigmas).asked)


def _errors(x: Tensor, true: Tensor) -> Errors:
    errors = missed(x, true)
    return Errors(float(errors.median()), float(errors.square().mean().sqrt()))
