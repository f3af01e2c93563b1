"""Distances between sets: what all of them refuse, and that none touches the global generator."""

import pytest
import torch

from ddim_ode.metrics import (
    MetricError,
    TooFewError,
    frechet_distance,
    kid,
    precision_recall,
    sliced_wasserstein,
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
