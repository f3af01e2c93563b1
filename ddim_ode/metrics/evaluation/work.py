"""What an evaluation compares, and by what: from two sets to the shards of their features, and from these to a row."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ddim_ode.image_sets import ImageSet
from ddim_ode.metrics.checks import MetricError
from ddim_ode.metrics.evaluation.counts import copies, count_of
from ddim_ode.metrics.evaluation.features import Extractor
from ddim_ode.metrics.evaluation.job import Job
from ddim_ode.metrics.evaluation.numbers import measured
from ddim_ode.metrics.evaluation.result import Counted, Evaluation
from ddim_ode.metrics.evaluation.shards import FeatureShards
from ddim_ode.metrics.evaluation.statistics import About, Statistics, check_alike, save_statistics
from ddim_ode.metrics.evaluation.totals import Gathered
from ddim_ode.support.resources import check_memory

STATISTICS, OF_SAMPLES = "statistics.npz", "samples-statistics.npz"
OF_PART = 50  # bytes a feature of an image in KID, precision and recall
OF_ROOT = 48  # bytes a number of the triangles that are merged, R x D


@dataclass(frozen=True)
class Work:
    """ours: the samples. options: others that features depend on, by their names."""

    ours: ImageSet
    theirs: ImageSet | Statistics
    extract: Extractor
    options: Mapping[str, Any]

    @property
    def statistics(self) -> Statistics | None:
        """Those that stand for real images."""
        return self.theirs if isinstance(self.theirs, Statistics) else None

    @property
    def real(self) -> ImageSet | None:
        """The real images, or those that there are beside statistics."""
        return self.theirs.examples if isinstance(self.theirs, Statistics) else self.theirs

    @property
    def depends(self) -> dict[str, Any]:
        """All that features depend on, besides the images."""
        about = asdict(self._about)
        named = {name: about[name] for name in ("features", "resize", "weights")}
        return {**named, "batch_size": self.extract.batch_size, **self.options}

    @cached_property
    def job(self) -> Job:
        """What a folder of features belongs to."""
        return Job({"samples": _facts(self.ours), "real": _facts(self.theirs)}, self.depends, self.extract.answers)

    def check(self) -> None:
        """Raise MetricError for sets that cannot be compared."""
        if self.statistics is not None:
            check_alike(self.statistics, self._about, self._width)
        if self.real is not None and self.real.shape != self.ours.shape:
            raise MetricError(
                f"images of {self.ours.name} are {self.ours.shape}, and of {self.real.name} {self.real.shape}"
                "; give equal shapes"
            )

    def check_memory(self, most: int, kept: bool) -> None:
        """Raise MetricError where not all would fit. kept: features are on disk, and statistics, which are D x D."""
        width, counts = self._width, [len(images) for images in self._sets.values()]
        count = max(counts)
        need = width * (
            OF_PART * min(count, most) + OF_ROOT * min(count, width) + (8 * width if kept else 4 * sum(counts))
        )
        what = f"to compare {count:,} images in {width:,} features ({self.extract.name})"
        check_memory(need, what, "choose --features of fewer numbers, or a smaller --most", MetricError)

    def shelves(self, folder: Path | None, job: str) -> list[FeatureShards]:
        """The features of the samples and, if there are images, of the real ones. job: a digest of the job's record."""
        size = self.options["shard_size"]
        return [
            FeatureShards(images, self.extract, size, job, folder and folder / side)
            for side, images in self._sets.items()
        ]

    def row(self, counts: Counted, totals: Sequence[Gathered], seed: int, most: int) -> Evaluation:
        """The evaluation, from what the sets of `shelves` come to."""
        ours, real = totals[0], totals[1] if len(totals) > 1 else None
        found = measured(ours, real, self.statistics, self.extract.name, seed)
        return Evaluation(
            samples=counts,
            real=count_of(self.theirs.name, self.statistics or totals[1]),
            copies=copies(ours, real),
            **found.numbers,
            missing=found.missing,
            settings={**self.depends, "seed": seed, "most": most, "of": found.parts},
            unsaid=None if self.statistics is None else self.statistics.unsaid,
        )

    def save_statistics(self, folder: Path, totals: Sequence[Gathered], of_samples: bool) -> None:
        """Write those of real images that have none yet and, if asked for, of the samples. Raises OutputError."""
        if self.statistics is None:
            self._save(folder / STATISTICS, totals[1])
        if of_samples:
            self._save(folder / OF_SAMPLES, totals[0])

    def _save(self, file: Path, found: Gathered) -> None:
        """Of one image there are no statistics."""
        if found.count > 1:
            told = replace(self._about, count=found.count, images=found.images)
            spatial = found.spatial and found.spatial.gaussian
            save_statistics(file, Statistics(str(file), found.features.gaussian, spatial, told))

    @property
    def _sets(self) -> dict[str, ImageSet]:
        return {"samples": self.ours} | ({} if self.real is None else {"real": self.real})

    @property
    def _about(self) -> About:
        return About(self.extract.name, self.extract.resize, self.extract.weights, answers=self.extract.answers)

    @property
    def _width(self) -> int:
        return self.extract.probe.shape[1]


def _facts(images: ImageSet | Statistics) -> dict[str, Any]:
    count = images.about.count if isinstance(images, Statistics) else len(images)
    return {"name": images.name, "count": count, "images": images.identity()}
