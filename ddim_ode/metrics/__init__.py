"""How good samples are: image against image, set against set, and the features in which sets are compared.

    pairs       psnr, ssim and consistency: one number a sample
    frechet, kernel, manifolds, sliced      distances between sets
    spaces      images to features: the shipped Fashion-MNIST classifier, pixels, Inception, or any callable
    summary     all distances of samples to real images at once
    fashion     the shipped classifier, and the share of samples that it recognises
    scores      the Inception score
    evaluation  any number of images on disk against others, over processes, counted; and statistics, the mean and
                covariance of features, as the field exchanges them

Everything is computed on the CPU in float64 and is a function of its arguments and seed alone. Bad input is a
`MetricError`, of which `TooFewError` says that a set is too small.
"""

from ddim_ode.metrics.checks import MetricError, TooFewError
from ddim_ode.metrics.evaluation import (
    Counted,
    CountError,
    Evaluation,
    Statistics,
    evaluate,
    load_statistics,
    open_real,
    save_statistics,
)
from ddim_ode.metrics.fashion import FashionFeatures, Quality, extract, load_fashion_features, quality
from ddim_ode.metrics.frechet import frechet_distance
from ddim_ode.metrics.kernel import Kid, kid
from ddim_ode.metrics.manifolds import PrecisionRecall, precision_recall
from ddim_ode.metrics.pairs import consistency, psnr, ssim
from ddim_ode.metrics.resizing import RESIZES
from ddim_ode.metrics.scores import InceptionScore, inception_score
from ddim_ode.metrics.sliced import sliced_wasserstein
from ddim_ode.metrics.spaces import SPACES, Features, FeatureSpace, default_features, feature_space
from ddim_ode.metrics.summary import Distribution, RealImages, distribution

__all__ = [
    "RESIZES",
    "SPACES",
    "CountError",
    "Counted",
    "Distribution",
    "Evaluation",
    "FashionFeatures",
    "FeatureSpace",
    "Features",
    "InceptionScore",
    "Kid",
    "MetricError",
    "PrecisionRecall",
    "Quality",
    "RealImages",
    "Statistics",
    "TooFewError",
    "consistency",
    "default_features",
    "distribution",
    "evaluate",
    "extract",
    "feature_space",
    "frechet_distance",
    "inception_score",
    "kid",
    "load_fashion_features",
    "load_statistics",
    "open_real",
    "precision_recall",
    "psnr",
    "quality",
    "save_statistics",
    "sliced_wasserstein",
    "ssim",
]
