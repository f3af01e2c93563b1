"""The Inception score where it is known, and added up from parts."""

import math
from functools import reduce

import numpy as np
import pytest
import torch

from ddim_ode.metrics import MetricError, inception_score, scores
from tests.helpers.assertions import one_line
from tests.helpers.tensors import normal


def test_a_classifier_that_is_sure_of_all_classes_alike_gives_their_number():
    logits = 200.0 * torch.eye(4).repeat(100, 1)
    found = scores.score(scores.sums(logits, torch.arange(400).div(40, rounding_mode="floor")))
    assert found.value == pytest.approx(4, rel=1e-12)
    assert found.error == pytest.approx(0, abs=1e-12)


def test_a_classifier_that_knows_nothing_gives_one():
    assert inception_score(normal(1, 7, seed=0).expand(50, 7)).value == pytest.approx(1, rel=1e-12)


def test_two_kinds_of_images_in_closed_form():
    """Half of each part is of p = (0.9, 0.1), half of (0.2, 0.8)."""
    kinds = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    mean = [0.55, 0.45]
    kl = [sum(p * math.log(p / m) for p, m in zip(kind, mean, strict=True)) for kind in kinds.tolist()]
    found = scores.score(scores.sums(kinds.log().repeat(100, 1), torch.arange(200).div(20, rounding_mode="floor")))
    assert found.value == pytest.approx(math.exp(sum(kl) / 2), rel=1e-12)


def test_value_and_error_are_the_mean_and_the_spread_over_ten_parts():
    logits = 3 * normal(203, 5, seed=1)
    parts = scores.parts(203, 4)
    each = []
    for number in range(10):
        p = np.exp(logits[parts == number].log_softmax(1).numpy())
        assert len(p) in (20, 21)
        each.append(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()))
    found = inception_score(logits, seed=4)
    assert found == pytest.approx((np.mean(each), np.std(each)), rel=1e-12)
    assert inception_score(logits, seed=5) != found


def test_sums_of_parts_add_up():
    logits, parts = normal(90, 6, seed=2), scores.parts(90, 0)
    pieces = [scores.sums(x, part) for x, part in zip(logits.split(13), parts.split(13), strict=True)]
    for found, expected in zip(reduce(scores.added, pieces), scores.sums(logits, parts), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_probabilities_of_zero_do_no_harm():
    logits = torch.tensor([[0.0, -torch.finfo(torch.float64).max / 4], [0.0, 0.0]], dtype=torch.float64).repeat(10, 1)
    assert math.isfinite(inception_score(logits).value)


def test_too_few_are_refused():
    assert "expected features (N, D) with N >= 10" in one_line(MetricError, inception_score, torch.zeros(9, 3))
    assert "9 samples are too few for an Inception score; it needs 10" in one_line(MetricError, scores.parts, 9, 0)
