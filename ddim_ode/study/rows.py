"""The rows of a study: its findings on each cell, with 95% intervals by the bootstrap over samples.

`Row` is the one description of a row, in results.json, results.csv, the page and the terminal alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from ddim_ode.metrics import Distribution
from ddim_ode.paths import f64
from ddim_ode.study.cells import EtaValue
from ddim_ode.study.schema import leaves_of, read

FAR = 0.1  # an error above it is another image
RESAMPLES = 1000
TAILS = (0.025, 0.975)
CLEAR = 3.0  # times the reference's own error, below which an error is not told apart from it


@dataclass(frozen=True)
class Evaluations:
    """How many evaluations of the network a sample took, over the samples."""

    min: int
    median: float
    mean: float
    max: int


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Trajectory errors, RMS over an image in [-1, 1], with 95% intervals; `share`: of samples above 0.1."""

    median: float
    median_low: float
    median_high: float
    rms: float
    rms_low: float
    rms_high: float
    share: float


@dataclass(frozen=True)
class RoundTrip:
    """How well images survive being encoded and decoded: the RMS lost, and the share that came back bit for bit.

    nfe_up, nfe_down: mean evaluations of an image on the way to the latent and on the way back.
    """

    rms: float
    bit_exact: float
    nfe_up: float
    nfe_down: float


@dataclass(frozen=True)
class GridCost:
    """Evaluations, of all samples together, that a grid took which was made for the model.

    profile: of the model's profile, which all such grids of a study share. trials: of likely grids, on the network.
    """

    profile: int
    trials: int


@dataclass(frozen=True)
class Timing:
    """Wall time of all samples of a cell, and the most memory in use then, where the system tells."""

    seconds: float
    images_per_second: float
    peak_memory_mb: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell of a study and its outcome.

    status: "skipped" (it cannot be done as asked) or "failed" have a `reason`, and the rest is None.
    steps: mean over the samples. found_tol: the tolerance found for a budget. grid_cost: of the grid "auto".
    error: None with noise on the way, where there is no trajectory to compare with.
    resolved: whether the error is well above the reference's own.
    psnr (dB), ssim, consistency: means against the reference's images, see `ddim_ode.metrics`.
    distribution: where there are real images. reconstruction: of the reference's first images, by a method that can be
    undone.
    """

    key: str
    method: str
    grid: str | None
    eta: EtaValue
    nfe: int | None
    tol: float | None
    kind: str
    status: Literal["done", "skipped", "failed"]
    reason: str | None = None
    measured_nfe: Evaluations | None = None
    steps: float | None = None
    found_tol: float | None = None
    grid_cost: GridCost | None = None
    not_converged: int | None = None
    error: Errors | None = None
    resolved: bool | None = None
    psnr: float | None = None
    ssim: float | None = None
    consistency: float | None = None
    distribution: Distribution | None = None
    reconstruction: RoundTrip | None = None
    timing: Timing | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row in values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Row":
        """The row that `to_dict` wrote. Raises SchemaError for fields that are unknown, missing or of another kind."""
        return read(cls, record, "row")


LEAVES = leaves_of(Row)


def leaf(name: str) -> str:
    """A leaf of a row, such as "error.median", once it is sure that a row has it; else a LookupError."""
    if name not in LEAVES:
        raise LookupError(f"a row has no {name!r}")
    return name


class Best(TypedDict):
    """The best row at a budget, and the keys of those that cannot be told from it."""

    nfe: int
    key: str
    tied: list[str]


def errors_of(each: Tensor) -> Errors:
    """Statistics of the errors (B,) of the samples."""
    (low, high), (rms_low, rms_high) = (found.quantile(f64(TAILS)).tolist() for found in _resampled(each))
    return Errors(
        median=float(each.quantile(0.5)),
        median_low=low,
        median_high=high,
        rms=float(each.square().mean().sqrt()),
        rms_low=rms_low,
        rms_high=rms_high,
        share=float((each > FAR).double().mean()),
    )


def best(rows: Sequence[Row], each: Mapping[str, Tensor], budgets: Sequence[int]) -> list[Best]:
    """At each budget the row of the smallest median error that costs no more on average, and those that tie with it.

    each: key -> errors (B,) of the same samples. A tie: the difference of the medians is 0 or less in more than one in
    forty resamplings of the samples, the same for both.
    """
    found = []
    for budget in sorted(budgets):
        rivals = [row for row in rows if row.error and row.measured_nfe and row.measured_nfe.mean <= budget]
        if not rivals:
            continue
        first, *others = sorted(rivals, key=lambda row: row.error.median if row.error else 0.0)
        ours = _resampled(each[first.key])[0]
        tied = [row.key for row in others if float((_resampled(each[row.key])[0] - ours).quantile(TAILS[0])) <= 0]
        found.append(Best(nfe=budget, key=first.key, tied=tied))
    return found


def _resampled(each: Tensor) -> tuple[Tensor, Tensor]:
    """(R,) medians and (R,) RMS of resampled samples."""
    chosen = each[_resamples(len(each))]
    return chosen.quantile(0.5, dim=1), chosen.square().mean(1).sqrt()


@lru_cache(maxsize=4)
def _resamples(count: int) -> Tensor:
    return torch.randint(count, (RESAMPLES, count), generator=torch.Generator().manual_seed(0))
