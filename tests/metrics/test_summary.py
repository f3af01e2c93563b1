"""All metrics at once: the same numbers as one by one, and a reason for each that is not there."""

import json
from dataclasses import asdict, fields

import pytest
import torch

from ddim_ode import data
from ddim_ode.metrics import (
    Distribution,
    MetricError,
    RealImages,
    distribution,
    frechet_distance,
    kid,
    precision_recall,
    sliced_wasserstein,
)
from tests.helpers.assertions import one_line
from tests.helpers.tensors import normal

SHAPE = (1, 4, 4)


def pictures(count: int, seed: int) -> torch.Tensor:
    """Floats as bytes hold them."""
    return data.to_float(data.to_uint8(0.4 * normal(count, *SHAPE, seed=seed)))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 50), (50, 30)])
def test_it_is_every_metric_by_itself(n, m):
    x, y = pictures(n, 0), pictures(m, 1)
    a, b = x.flatten(1), y.flatten(1)
    found = distribution(x, y, "pixels", seed=3)
    distance = kid(a, b, seed=3)
    assert found.frechet == frechet_distance(a, b)
    assert (found.kid, found.kid_error) == (distance.value, distance.error)
    assert found.sliced_wasserstein == sliced_wasserstein(x, y, seed=3)
    if n == m:
        assert (found.precision, found.recall) == precision_recall(a, b)
    assert found.missing == {}


def test_precision_and_recall_are_of_equally_many():
    x, y = pictures(20, 2), pictures(401, 3) + 0.2
    found, swapped = distribution(x, y, "pixels"), distribution(y, x, "pixels")
    assert (found.precision, found.recall) == (swapped.recall, swapped.precision)
    assert [round(20 * share, 9).is_integer() for share in (found.precision, found.recall)] == [True, True]
    assert not round(20 * precision_recall(x.flatten(1), y.flatten(1)).recall, 9).is_integer()


def test_real_images_once_and_samples_often():
    real = RealImages(data.to_uint8(pictures(30, 4)), "pixels", seed=1)
    for seed in (5, 6, 5):
        x = pictures(25, seed)
        assert real.distribution(x) == distribution(x, pictures(30, 4), "pixels", seed=1)


def test_samples_are_judged_as_the_files_they_would_be():
    x, y = pictures(20, 7), pictures(20, 8)
    beyond = torch.where(x == 1, 3.0, x) + 0.3 / 127.5
    assert distribution(beyond.double(), y, "pixels") == distribution(x, data.to_uint8(y), "pixels")


def test_the_seed_moves_only_what_is_drawn():
    x, y = pictures(20, 9), pictures(20, 10)
    first, second = distribution(x, y, "pixels", seed=0), distribution(x, y, "pixels", seed=1)
    assert first == distribution(x, y, "pixels")
    assert first.frechet == second.frechet
    assert (first.precision, first.recall) == (second.precision, second.recall)
    assert first.kid == pytest.approx(second.kid, rel=1e-9)
    assert first.kid_error != second.kid_error
    assert first.sliced_wasserstein != second.sliced_wasserstein


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("count", "lacking"),
    [
        (1, ["frechet", "kid", "kid_error", "precision", "recall"]),
        (2, ["kid", "kid_error", "precision", "recall"]),
        (3, ["kid", "kid_error", "precision", "recall"]),
        (4, ["kid", "kid_error"]),
        (9, ["kid", "kid_error"]),
        (10, []),
    ],
)
def test_too_few_images_leave_fields_empty_and_say_why(count, lacking, swapped):
    few, many = pictures(count, 11), pictures(30, 12)
    found = distribution(many, few, "pixels") if swapped else distribution(few, many, "pixels")
    stored = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert Distribution(**stored) == found
    assert sorted(found.missing) == lacking
    assert [name for name, value in stored.items() if value is None] == [
        f.name for f in fields(Distribution) if f.name in lacking
    ]
    for reason in found.missing.values():
        assert f"shape ({count}, 16), expected features (N, D) with N >=" in reason
        assert "\n" not in reason


def test_better_samples_are_better_by_every_metric():
    images, _ = data.bundled_images()
    real = RealImages(images[::2], "fashion")
    good = real.distribution(data.to_float(images[1::2]))
    noisy = real.distribution(data.to_float(images[1::2]) + 0.6 * normal(150, 1, 28, 28, seed=13))
    assert noisy.frechet > 5 * good.frechet
    assert abs(good.kid) < 3 * good.kid_error < noisy.kid
    assert noisy.precision < 0.6 < good.precision
    assert noisy.recall < 0.6 < good.recall
    assert noisy.sliced_wasserstein > 1.5 * good.sliced_wasserstein


@pytest.mark.parametrize(
    ("samples", "real", "message"),
    [
        (torch.zeros(0, *SHAPE), torch.zeros(9, *SHAPE), "images have shape (0, 1, 4, 4)"),
        (torch.zeros(9, *SHAPE), torch.zeros(0, *SHAPE), "images have shape (0, 1, 4, 4)"),
        (torch.zeros(9, 1, 4, 5), torch.zeros(9, *SHAPE), "images have shape (9, 1, 4, 5), expected (N, 1, 4, 4)"),
        (
            torch.full((9, *SHAPE), torch.nan),
            torch.zeros(9, *SHAPE),
            "the set of samples holds values that are not finite",
        ),
        (
            torch.zeros(9, *SHAPE),
            torch.full((9, *SHAPE), torch.nan),
            "the set of real images holds values that are not finite",
        ),
        (torch.zeros(9, *SHAPE).int(), torch.zeros(9, *SHAPE), "images are torch.int32"),
    ],
)
def test_what_cannot_be_measured_is_an_error(samples, real, message):
    assert message in one_line(MetricError, distribution, samples, real, "pixels")
