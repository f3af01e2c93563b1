"""Distances between sets: what all of them refuse, and that none touches the global generator."""

import pytest
import torch

from ddim_ode.errors import DDIMError
from ddim_ode.metrics import (
    FeatureSpace,
    MetricError,
    TooFewError,
    consistency,
    default_features,
    distribution,
    feature_space,
    frechet_distance,
    kid,
    precision_recall,
    psnr,
    quality,
    sliced_wasserstein,
    ssim,
)
from tests.helpers.assertions import one_line
from tests.helpers.tensors import normal

NAN = torch.full((12, 4), torch.nan)


def test_no_global_generator_is_used():
    before = torch.random.get_rng_state()
    a, b = normal(12, 3, seed=30), normal(15, 3, seed=31)
    for metric in (kid, precision_recall, sliced_wasserstein, frechet_distance):
        assert metric(a, b) == metric(a, b)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("metric", "least"),
    [(frechet_distance, 2), (kid, 10), (precision_recall, 4)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_features_that_cannot_be_compared_are_refused(metric, least):
    a = normal(12, 4, seed=32)
    metric(a[:least], a[:least])
    message = one_line(TooFewError, metric, a, a[: least - 1])
    assert message == f"b has shape ({least - 1}, 4), expected features (N, D) with N >= {least}"
    for x, message in (
        (a[0], "a has shape (4,)"),
        (a[:, :0], "a has shape (12, 0)"),
        (a[:, :3], "a has 3 features and b has 4"),
        (NAN, "a holds values that are not finite"),
    ):
        assert message in one_line(MetricError, metric, x, a)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: precision_recall(a, a, k=0), "k=0 must be a whole number >= 1"),
        (lambda a: precision_recall(a, a, k=12), "N >= 13"),
        (lambda a: precision_recall(a, a, k=2.5), "k=2.5 must be a whole number"),
        (lambda a: kid(a, a, seed=0.5), "seed=0.5 must be a whole number"),
        (lambda a: sliced_wasserstein(a, a, projections=0), "projections=0 must be a whole number >= 1"),
        (lambda a: sliced_wasserstein(a, a, seed="x"), "seed='x' must be a whole number"),
        (lambda a: sliced_wasserstein(a, a[:0]), "y has shape (0, 4), expected at least one image"),
        (lambda a: sliced_wasserstein(a[0], a), "x has shape (4,)"),
        (lambda a: sliced_wasserstein(a, a[:, :3]), "x has shape (12, 4) and y has (12, 3)"),
        (lambda a: sliced_wasserstein(a, NAN), "y holds values that are not finite"),
        (lambda a: sliced_wasserstein(a.long(), a), "x is torch.int64, expected"),
    ],
)
def test_other_arguments_that_make_no_sense_are_refused(call, message):
    assert message in one_line(MetricError, call, normal(12, 4, seed=33))


A, PICTURES = normal(12, 4, seed=33), normal(12, 1, 8, 8, seed=34)


@pytest.mark.parametrize("value", ["x", None, 3, [1.0], A.numpy(), object()], ids=lambda value: type(value).__name__)
def test_what_is_no_tensor_is_named(value):
    for metric in (frechet_distance, kid, precision_recall, sliced_wasserstein):
        for pair in ((value, A), (A, value)):
            assert "; give a tensor" in one_line(DDIMError, metric, *pair)
    for metric in (psnr, ssim, lambda x, y: consistency(x, y, "pixels"), lambda x, y: distribution(x, y, "pixels")):
        for pair in ((value, PICTURES), (PICTURES, value)):
            assert "; give a tensor" in one_line(DDIMError, metric, *pair)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kid(A + 0j, A),
        lambda: kid(A.to_sparse(), A),
        lambda: kid(A.to("meta"), A),
        lambda: psnr(PICTURES.to("meta"), PICTURES),
        lambda: sliced_wasserstein(A, A, projections=10**12),
        lambda: frechet_distance(A[:1].expand(10**12, 4), A),
        lambda: distribution(PICTURES, PICTURES, 3),
        lambda: distribution(PICTURES, PICTURES, "pixels", seed="x"),
        lambda: default_features(3),
        lambda: feature_space("pixels", "abc"),
        lambda: feature_space("pixels", (1, -4, 4)),
        lambda: FeatureSpace("mine", (1, 8, 8), 3),
        lambda: FeatureSpace("mine", (1, 8, 8), torch.flatten, batch_size=0),
        lambda: quality("x"),
        lambda: quality(torch.zeros(2, 1, 28, 28), labels=[1, 2]),
        lambda: quality(torch.zeros(2, 1, 28, 28), data=3),
    ],
)
def test_odd_arguments_are_refused_at_once(call):
    one_line(DDIMError, call)
