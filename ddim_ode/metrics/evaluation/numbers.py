"""The numbers of an evaluation, from what two sets of images come to."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddim_ode.metrics import frechet, kernel, manifolds, scores
from ddim_ode.metrics.checks import Missing, TooFewError, choose
from ddim_ode.metrics.evaluation.statistics import Statistics
from ddim_ode.metrics.evaluation.totals import Gathered
from ddim_ode.metrics.moments import Gaussian, Moments

FRECHET, SPATIAL = ("frechet",), ("spatial_frechet",)
KID, SHARES = ("kid", "kid_error"), ("precision", "recall")
SCORE = ("inception_score", "inception_score_error")
NEIGHBOURS = 3  # of precision and recall
SAMPLES, REAL = "the set of samples", "the set of real images"


@dataclass(frozen=True)
class Measured:
    """`numbers` by the names of an `Evaluation`; why others are missing; `parts`: of how many images a number is."""

    numbers: dict[str, float] = field(default_factory=dict)
    missing: Missing = field(default_factory=Missing)
    parts: dict[str, Any] = field(default_factory=dict)


def measured(
    found: Gathered, real: Gathered | None, statistics: Statistics | None, features: str, seed: int
) -> Measured:
    """All that can be measured of samples against real images, in features of that name.

    real, statistics: one of them at least; Gaussians are those of the statistics, where there are any.
    """
    whole = statistics or real
    assert whole is not None
    told = Measured()
    _put(told, FRECHET, lambda: (_distance(found.features, whole.features),))
    _add_spatial(told, found, whole, features)
    if real is not None:
        _add_pairs(told, found.part, real.part, seed)
    elif statistics is not None:
        reason = f"{statistics.name} stands for real images by a mean and a covariance; give the images"
        told.missing.because(KID + SHARES, reason)
    if found.score is not None:
        told.numbers.update(zip(SCORE, scores.score(found.score), strict=True))
    elif found.count < scores.SPLITS:
        few = f"{found.count} samples are too few for an Inception score; it needs {scores.SPLITS}"
        told.missing.because(SCORE, few)
    else:
        told.missing.because(SCORE, f"features={features!r} tell no probabilities of classes")
    return told


def _add_spatial(told: Measured, found: Gathered, real: Gathered | Statistics, features: str) -> None:
    ours, theirs = found.spatial, real.spatial
    if ours is None:
        told.missing.because(SPATIAL, f"features={features!r} have no spatial ones; sFID is of features='inception'")
    elif theirs is None:
        name = real.name if isinstance(real, Statistics) else REAL
        told.missing.because(SPATIAL, f"{name} has no spatial statistics, mu_s and sigma_s")
    else:
        _put(told, SPATIAL, lambda: (_distance(ours, theirs),))


def _add_pairs(told: Measured, a: Tensor, b: Tensor, seed: int) -> None:
    """What images are compared for with each other, by features of samples and of real images."""
    count = min(len(a), len(b))
    _put(told, KID, lambda: _kid(a, b, seed))
    _put(told, SHARES, lambda: _shares(choose(a, count, seed), choose(b, count, seed)))
    told.parts.update(kid=[len(a), len(b)], precision_recall=[count, count])


def _put(told: Measured, names: tuple[str, ...], measure: Any) -> None:
    values = told.missing.unless_too_few(names, measure)
    if values is not None:
        told.numbers.update(zip(names, values, strict=True))


def _distance(samples: Moments, real: Moments | Gaussian) -> float:
    return frechet.between(_gaussian(SAMPLES, samples), _gaussian(REAL, real))


def _gaussian(name: str, found: Moments | Gaussian) -> Gaussian:
    if isinstance(found, Gaussian):
        return found
    if found.n < 2:
        raise TooFewError(f"{name} has {found.n} image, and a Frechet distance needs 2 at least")
    return found.gaussian


def _shares(a: Tensor, b: Tensor) -> manifolds.PrecisionRecall:
    for name, x in ((SAMPLES, a), (REAL, b)):
        if len(x) <= NEIGHBOURS:
            least = NEIGHBOURS + 1
            raise TooFewError(f"{name} gives {len(x)} images, and precision and recall need {least} at least")
    return manifolds.precision_recall(a, b, NEIGHBOURS)


def _kid(a: Tensor, b: Tensor, seed: int) -> kernel.Kid:
    return kernel.between(kernel.grouped(SAMPLES, a, seed), kernel.grouped(REAL, b, seed))
