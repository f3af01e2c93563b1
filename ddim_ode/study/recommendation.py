"""Which method should I take? A small study of the methods that have won elsewhere, and its winner.

Each is tried on its own grid and on the one that is made for it on this model. That is often the better one, and has a
price of its own, which `row.grid_cost` tells: a profile of the model, and trials.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.budget import priced
from ddim_ode.planning.guided import with_guidance
from ddim_ode.planning.inputs import Labels, check_callback, check_model
from ddim_ode.planning.options import AUTO, SolveOptions
from ddim_ode.planning.origins import check_origin
from ddim_ode.planning.tuned_files import beside, load_tuned
from ddim_ode.solvers import TUNED
from ddim_ode.study.cells import Cell, StudyError, cells_of, named
from ddim_ode.study.comparison import EACH, Study, StudyProgress, bench_for, study_of
from ddim_ode.study.rows import Row
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number

CANDIDATES = ("ddim", "dpmpp_2m", "unipc_2", "deis_tab3", "adams2", "adams3", "adams4", "heun_angle", "rk4", "adaptive")
LADDER = (4, 6, 8, 10, 12, 15, 20, 25, 32, 40, 50)  # budgets that a tolerance is looked for on
CLIMBERS = ("adaptive", "dpmpp_2m", "unipc_2", "adams2", "adams3", "adams4")
GRIDS = ("own", AUTO)


class Recommendation(NamedTuple):
    """The winning row, the keys of rows that cannot be told from it, and whether it meets the tolerance."""

    row: Row
    tied: list[str]
    reached: bool
    study: Study


def recommend(
    model: Model,
    nfe: int | None = None,
    tol: float | None = None,
    *,
    seeds: Iterable[int] = range(16),
    labels: Labels | Literal["each"] = EACH,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callable[[StudyProgress], None] | None = None,
) -> Recommendation:
    """The method and grid of the smallest median error at a budget, or the cheapest whose median error is within `tol`.

    The grid is the method's own, or "auto", which is made for the method on this model. Where a tuned.json lies beside
    the model, and was made for this guidance, the method in it is tried too, as "tuned".

    Args:
        nfe: the most evaluations a sample may cost.
        tol: the error to accept, RMS over a sample in data units, instead. Cells that would cost more than one that is
            within it are not tried.
        seeds, labels, guidance, guidance_range, dtype, batch_size, callback: as in `compare`. More seeds make a surer
            choice.

    Raises:
        StudyError: both of nfe and tol, or neither, or a budget that is too small for all. As `compare` for the rest.
        TunedError: the tuned.json beside the model is damaged.
    """
    if (nfe is None) == (tol is None):
        raise StudyError("give nfe, a budget, or tol, an error to accept, and not both")
    if tol is not None and not 0 < number(tol) < 1:
        raise StudyError(f"tol={shown(tol)} must be a number between 0 and 1, such as 0.01")
    check_model(model)
    check_callback(callback)
    options = SolveOptions(guidance=guidance, guidance_range=guidance_range, dtype=dtype, batch_size=batch_size)
    if tol is None:
        cells = cells_of(named(CANDIDATES, model), [nfe] if nfe is not None else [], [], GRIDS, [])
        cells = [*_tuned(model, options, nfe), *cells]
        study = study_of(bench_for(model, options, seeds, labels, 3e-3), cells, GRIDS, callback=callback)
        _rows_with_errors(study)
        first = study.best[0]
        return Recommendation(study.row(first["key"]), first["tied"], True, study)
    tol = number(tol)
    cells = [*_tuned(model, options), *cells_of(named(CLIMBERS, model), LADDER, [tol], GRIDS, [])]
    cells = sorted(cells, key=lambda cell: cell.nfe or 0)
    bench = bench_for(model, options, seeds, labels, min(3e-3, tol / 10))
    study = study_of(bench, cells, GRIDS, callback=callback, worth=partial(_may_win, tol))
    rows = _rows_with_errors(study)
    within = _within(tol, rows)
    row = min(within, key=_cost) if within else min(rows, key=_error)
    return Recommendation(row, [], bool(within), study)


def _tuned(model: Model, options: SolveOptions, nfe: int | None = None) -> list[Cell]:
    """The cells of the tuned method beside a model, one for each of its budgets or one for that of the study.

    None where there is no such method, or it was not tuned to this model and guidance, or costs more.
    """
    file = beside(model)
    if file is None or not os.path.lexists(file):
        return []
    method = load_tuned(file)
    try:
        guided = with_guidance(model, options)
        check_origin(guided, method)
    except DDIMError:
        return []
    costs = [cost for cost, _ in priced(guided, replace(options, method=method))]
    budgets = costs if nfe is None else [nfe] if costs[0] <= nfe else []
    return cells_of({TUNED: method}, budgets, [], ["own"], []) if budgets else []


def _rows_with_errors(study: Study) -> list[Row]:
    rows = [row for row in study.rows if row.error]
    if not rows:
        raise StudyError(f"no method could be run: {study.rows[0].reason}")
    return rows


def _may_win(tol: float, cell: Cell, rows: Sequence[Row]) -> bool:
    """Whether a cell may be cheaper than those that are within the tolerance already, or as cheap."""
    return cell.nfe is None or cell.nfe <= min((_cost(row)[0] for row in _within(tol, rows)), default=math.inf)


def _within(tol: float, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.error and row.error.median <= tol]


def _error(row: Row) -> float:
    assert row.error
    return row.error.median


def _cost(row: Row) -> tuple[float, float]:
    """By which the cheapest row is chosen: its evaluations, and among equally many its error."""
    assert row.measured_nfe
    return row.measured_nfe.mean, _error(row)
