"""How good samples are: image against image, set against set, and the features in which sets are compared.

    pairs       psnr, ssim and consistency: one number a sample
    frechet, kernel, manifolds, sliced      distances between sets
    spaces      images to features: the shipped Fashion-MNIST classifier, pixels, Inception, or any callable
    summary     all distances of samples to real images at once
    fashion     the shipped classifier, and the share of samples that it recognises

Everything is computed on the CPU in float64 and is a function of its arguments and seed alone. Bad input is a
`MetricError`, of which `TooFewError` says that a set is too small.
"""

from ddim_ode.metrics.checks import MetricError, TooFewError
from ddim_ode.metrics.fashion import FashionFeatures, Quality, extract, load_fashion_features, quality
from ddim_ode.metrics.frechet import frechet_distance
from ddim_ode.metrics.kernel import Kid, kid
from ddim_ode.metrics.manifolds import PrecisionRecall, precision_recall
from ddim_ode.metrics.pairs import consistency, psnr, ssim
from ddim_ode.metrics.sliced import sliced_wasserstein
from ddim_ode.metrics.spaces import SPACES, Features, FeatureSpace, default_features, feature_space
from ddim_ode.metrics.summary import Distribution, RealImages, distribution

__all__ = [
    "SPACES",
    "Distribution",
    "FashionFeatures",
    "FeatureSpace",
    "Features",
    "Kid",
    "MetricError",
    "PrecisionRecall",
    "Quality",
    "RealImages",
    "TooFewError",
    "consistency",
    "default_features",
    "distribution",
    "extract",
    "feature_space",
    "frechet_distance",
    "kid",
    "load_fashion_features",
    "precision_recall",
    "psnr",
    "quality",
    "sliced_wasserstein",
    "ssim",
]
