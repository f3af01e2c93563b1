"""Which method should I take? A small study of the methods that have won elsewhere, and its winner."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from ddim_ode.models.denoiser import Model
from ddim_ode.planning.plan import Labels
from ddim_ode.study.cells import StudyError
from ddim_ode.study.comparison import Study, StudyProgress, compare
from ddim_ode.study.rows import Row
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number

CANDIDATES = ("ddim", "dpmpp_2m", "unipc_2", "deis_tab3", "adams2", "adams3", "adams4", "heun_angle", "rk4", "adaptive")
LADDER = (4, 6, 8, 10, 12, 15, 20, 25, 32, 40, 50)  # budgets that a tolerance is looked for on
CLIMBERS = ("dpmpp_2m", "unipc_2", "adams2", "adams3", "adams4", "adaptive")


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
    labels: Labels = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callable[[StudyProgress], None] | None = None,
) -> Recommendation:
    """The method of the smallest median error at a budget, or the cheapest one whose median error is within `tol`.

    Args:
        nfe: the most evaluations a sample may cost.
        tol: the error to accept, RMS over a sample in data units, instead.
        seeds, labels, guidance, guidance_range, dtype, batch_size, callback: as in `compare`. More seeds make a surer
            choice.

    Raises:
        StudyError: both of nfe and tol, or neither, or a budget that is too small for all. As `compare` for the rest.
    """
    if (nfe is None) == (tol is None):
        raise StudyError("give nfe, a budget, or tol, an error to accept, and not both")
    if tol is not None and not 0 < number(tol) < 1:
        raise StudyError(f"tol={shown(tol)} must be a number between 0 and 1, such as 0.01")
    tol = None if tol is None else number(tol)
    study = compare(
        model,
        CANDIDATES if tol is None else CLIMBERS,
        LADDER if nfe is None else [nfe],
        seeds,
        labels=labels,
        guidance=guidance,
        guidance_range=guidance_range,
        tols=[] if tol is None else [tol],
        dtype=dtype,
        batch_size=batch_size,
        reference_tol=3e-3 if tol is None else min(3e-3, tol / 10),
        callback=callback,
    )
    rows = [row for row in study.rows if row.error]
    if not rows:
        raise StudyError(f"no method could be run: {study.rows[0].reason}")
    if tol is None:
        first = study.best[0]
        return Recommendation(study.row(first["key"]), first["tied"], True, study)
    within = [row for row in rows if row.error and row.error.median <= tol]
    if within:
        return Recommendation(min(within, key=_cost), [], True, study)
    return Recommendation(min(rows, key=lambda row: row.error.median if row.error else 0.0), [], False, study)


def _cost(row: Row) -> tuple[float, float]:
    """By which the cheapest row is chosen: its evaluations, and among equally many its error."""
    assert row.measured_nfe
    assert row.error
    return row.measured_nfe.mean, row.error.median
