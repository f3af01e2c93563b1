"""How far samples are from real images, by every metric there is, in one feature space."""

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from ddim_ode.data import to_uint8
from ddim_ode.metrics import checks, frechet, kernel, sliced
from ddim_ode.metrics.manifolds import PrecisionRecall, precision_recall
from ddim_ode.metrics.moments import Gaussian
from ddim_ode.metrics.spaces import Features, feature_space

SAMPLES, REAL = "the set of samples", "the set of real images"  # what the errors call them


@dataclass(frozen=True)
class Distribution:
    """Samples against real images; None where there are too few of either, and then `missing` says why.

    `frechet`: squared Frechet distance. `kid`, `kid_error`: squared kernel distance and its standard error.
    `precision`, `recall`: shares in 0..1, of equally many of both. `sliced_wasserstein`: of pixels in [-1, 1].
    `missing`: name of a field to the reason, one line.
    """

    frechet: float | None
    kid: float | None
    kid_error: float | None
    precision: float | None
    recall: float | None
    sliced_wasserstein: float | None
    missing: dict[str, str] = field(default_factory=dict)


def distribution(samples: Tensor, real: Tensor, features: Features, seed: int = 0) -> Distribution:
    """Measure samples (N, C, H, W), floats in [-1, 1], against real images (M, C, H, W), bytes or floats.

    Both are rounded to the bytes that image files would hold. `features` as in `feature_space`. `seed`: of the groups,
    the directions and the choice for precision and recall, which are those of min(N, M) of each set, the rest of the
    larger one left out at random. To measure several sets of samples against the same images, use `RealImages`.

    Raises MetricError for shapes that differ, no images, or values that are not finite. Too few images are no error.
    """
    return RealImages(real, features, seed).distribution(samples)


class RealImages:
    """Real images to measure sets of samples against: what does not depend on the samples is worked out once.

    Args:
        images: (M, C, H, W), bytes or floats in [-1, 1].
        features: as in `feature_space`.
        seed: as in `distribution`.
    """

    def __init__(self, images: Tensor, features: Features, seed: int = 0) -> None:
        checks.generator(seed, "")  # a seed that cannot be is seen before the features are worked out
        self.space, self.seed = feature_space(features, checks.tensor(REAL, images).shape[1:]), seed
        self.images = _bytes(REAL, images)
        self.features = self.space(self.images)

    @cached_property
    def _gaussian(self) -> Gaussian:
        return frechet.fitted(REAL, self.features)

    @cached_property
    def _groups(self) -> kernel.Grouped:
        return kernel.grouped(REAL, self.features, self.seed)

    @cached_property
    def _projections(self) -> Tensor:
        return sliced.projected(REAL, self.images, seed=self.seed)

    def distribution(self, samples: Tensor) -> Distribution:
        """Measure samples (N, C, H, W), floats in [-1, 1]; see the function of that name."""
        pictures = _bytes(SAMPLES, samples)
        found = self.space(pictures)
        missing = checks.Missing()
        distance = missing.unless_too_few(
            ("frechet",), lambda: frechet.between(frechet.fitted(SAMPLES, found), self._gaussian)
        )
        kid = missing.unless_too_few(
            ("kid", "kid_error"),
            lambda: kernel.between(kernel.grouped(SAMPLES, found, self.seed), self._groups),
        )
        shares = missing.unless_too_few(("precision", "recall"), lambda: self._precision_recall(found))
        return Distribution(
            frechet=distance,
            kid=kid.value if kid else None,
            kid_error=kid.error if kid else None,
            precision=shares.precision if shares else None,
            recall=shares.recall if shares else None,
            sliced_wasserstein=sliced.between(sliced.projected(SAMPLES, pictures, seed=self.seed), self._projections),
            missing=missing,
        )

    def _precision_recall(self, found: Tensor) -> PrecisionRecall:
        count = min(len(found), len(self.features))
        return precision_recall(checks.choose(found, count, self.seed), checks.choose(self.features, count, self.seed))


def _bytes(name: str, images: Tensor) -> Tensor:
    if checks.tensor(name, images).is_floating_point():
        return to_uint8(checks.finite_values(name, images.detach()).cpu())
    return images.cpu()
