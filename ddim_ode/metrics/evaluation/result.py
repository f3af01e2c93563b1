"""A row of a table: how far samples are from real images, of how many images that is, and how it was measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ddim_ode.metrics.checks import MetricError, whole_or_none
from ddim_ode.support.records import read_record, write_folded

KIND = "ddim_ode evaluation 1"


@dataclass(frozen=True)
class Counted:
    """Images: how many were asked for, how many there are, how many of them differ. None: nothing says it."""

    name: str
    asked: int | None
    found: int | None
    distinct: int | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Samples against real images; a number that could not be measured is None, and `missing` says why.

    `frechet`: squared Frechet distance, the FID of Inception's features. `spatial_frechet`: sFID, of its spatial ones.
    `kid`, `kid_error`: squared kernel distance and its standard error. `precision`, `recall`: shares in 0..1.
    `inception_score`, `inception_score_error`: from 1 to the number of classes, and the spread over 10 parts.
    `copies`: how many different images are in both sets. `settings`: all that the numbers depend on. `unsaid`: what
    statistics of real images do not say of themselves, one line.
    """

    samples: Counted
    real: Counted
    copies: int | None
    frechet: float | None = None
    spatial_frechet: float | None = None
    kid: float | None = None
    kid_error: float | None = None
    precision: float | None = None
    recall: float | None = None
    inception_score: float | None = None
    inception_score_error: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    unsaid: str | None = None
    seconds: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Evaluation":
        """The evaluation that a record tells of. Raises MetricError for what is none."""
        try:
            counted = {name: _counted(**record[name]) for name in ("samples", "real")}
            return cls(**{**record, **counted})
        except (TypeError, KeyError) as fault:
            raise MetricError(f"this is no record of an evaluation ({fault}); give what one has written") from None

    def save(self, file: Path) -> None:
        """Write a sealed JSON file. Raises OutputError."""
        write_folded(file, KIND, self.record)

    @classmethod
    def load(cls, file: Path) -> "Evaluation":
        """Read what `save` has written. Raises MetricError: it is damaged, or no such file."""
        return cls.of(read_record(Path(file), KIND, MetricError))


def _counted(name: str, **counts: Any) -> Counted:
    """Raises TypeError for counts that are none."""
    for count in counts.values():
        whole_or_none(count)
    return Counted(name, **counts)
