"""PSNR and SSIM against loops over pixels, and consistency against its definition."""

import math

import numpy as np
import pytest
import torch

from ddim_ode.data import to_float
from ddim_ode.metrics import MetricError, consistency, psnr, ssim
from tests.helpers.assertions import one_line
from tests.helpers.tensors import f64, normal


def images(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def naive_ssim(x: np.ndarray, y: np.ndarray, size: int) -> float:
    """Of one channel in [0, 1]: every window by itself, with two-dimensional weights and central moments."""
    r = size // 2
    window = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-r, r + 1)] for i in range(-r, r + 1)])
    window /= window.sum()
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            p, q = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            c = (window * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


def test_psnr_is_its_formula_one_sample_at_a_time():
    x = images(3, 2, 5, 4, seed=0) * 1.3
    y = (x + 0.3 * normal(3, 2, 5, 4, seed=1)).float()
    expected = []
    for p, q in zip(x.tolist(), y.tolist(), strict=True):
        pairs = zip(np.ravel(p), np.ravel(q), strict=True)
        errors = [((min(max(a, -1), 1) - min(max(b, -1), 1)) / 2) ** 2 for a, b in pairs]
        expected.append(10 * math.log10(1 / (sum(errors) / len(errors))))
    found = psnr(x, y)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_of_known_differences():
    x = torch.zeros(4, 1, 3, 3)
    y = torch.zeros(4, 1, 3, 3)
    y[1], y[2], y[3, 0, 0, 0] = 0.2, -0.02, 0.6
    assert psnr(x, y).tolist() == pytest.approx([math.inf, 20, 40, 10 * math.log10(100)], rel=1e-7)
    assert psnr(torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 3, 13, 15), 11),
        ((1, 1, 28, 28), 11),
        ((2, 1, 11, 12), 11),
        ((2, 1, 10, 30), 9),
        ((1, 1, 8, 8), 7),
        ((1, 2, 1, 1), 1),
    ],
)
def test_ssim_is_its_definition_window_by_window(shape, size):
    x = images(*shape, seed=2)
    y = (x + 0.4 * normal(*shape, seed=3)).clamp(-1, 1)
    p, q = ((z.numpy() + 1) / 2 for z in (x, y))
    expected = [
        np.mean([naive_ssim(a, b, size) for a, b in zip(*pair, strict=True)]) for pair in zip(p, q, strict=True)
    ]
    assert ssim(x, y).dtype == torch.float64
    assert ssim(x, y).tolist() == pytest.approx(expected, rel=1e-11)


def test_ssim_at_its_ends():
    x = images(3, 1, 16, 16, seed=4)
    assert ssim(x, x).tolist() == [1.0] * 3
    assert (ssim(x, -x) < -0.5).all()
    black, white = -torch.ones(1, 1, 12, 12), torch.ones(1, 1, 12, 12)
    assert ssim(black, white).item() == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-9)  # only the means differ


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_are_clipped_and_judged_alone_in_either_order(metric):
    x, y = images(4, 2, 14, 12, seed=5) * 2, images(4, 2, 14, 12, seed=6) * 2
    kept = x.clone(), y.clone()
    whole = metric(x, y)
    torch.testing.assert_close(metric(y, x), whole, rtol=1e-12, atol=0)
    assert torch.equal(metric(x.clamp(-1, 1), y.clamp(-1, 1)), whole)
    torch.testing.assert_close(
        torch.cat([metric(x[i : i + 1], y[i : i + 1]) for i in range(4)]), whole, rtol=1e-12, atol=0
    )
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5), "x has shape (2, 1, 4, 4) and y has (2, 1, 4, 5)"),
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), "shape (2, 4, 4), expected images (B, C, H, W)"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), "shape (0, 1, 4, 4), expected"),
        (
            torch.zeros(1, 1, 2, 2),
            torch.zeros(1, 1, 2, 2, dtype=torch.uint8),
            "y is torch.uint8, expected floats in [-1, 1]; use data.to_float",
        ),
        (torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1, 1, 2, 2), "x holds values that are not finite"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(metric, x, y, message):
    assert message in one_line(MetricError, metric, x, y)


# --- consistency


def test_consistency_is_its_definition():
    x, y = images(5, 1, 3, 3, seed=7), images(5, 1, 3, 3, seed=8)
    p, q = x.float().flatten(1).tolist(), y.float().flatten(1).tolist()
    unit = sum(math.dist(q[j], q[k]) for j in range(5) for k in range(5) if j != k) / 20
    expected = [math.dist(a, b) / unit for a, b in zip(p, q, strict=True)]
    assert consistency(x, y, "pixels").tolist() == pytest.approx(expected, rel=1e-9)


def test_the_same_is_at_0_and_another_sample_at_1_on_average():
    y = images(6, 1, 4, 4, seed=9)
    assert consistency(y, y, "pixels").tolist() == [0.0] * 6
    others = torch.stack([consistency(y.roll(k, 0), y, "pixels") for k in range(1, 6)])
    assert others.mean().item() == pytest.approx(1, rel=1e-9)


def test_consistency_does_not_see_a_turn_a_shift_or_the_scale_of_the_features():
    x, y = images(6, 1, 3, 2, seed=10), images(6, 1, 3, 2, seed=11)
    turn = torch.linalg.qr(normal(6, 6, seed=12)).Q.float()
    found = consistency(x, y, "pixels")
    moved = consistency(x, y, lambda z: 1000 * (z.flatten(1) @ turn) + 50)
    torch.testing.assert_close(moved, found, rtol=1e-4, atol=0)  # features are float32
    assert torch.equal(
        consistency(x[[3, 1, 0, 2, 5, 4]], y[[3, 1, 0, 2, 5, 4]], "pixels").sort().values, found.sort().values
    )


def test_consistency_takes_bytes_and_clips_floats():
    x = torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(13))
    y = to_float(x.flip(0))
    beyond = torch.where(y == 1, 7.0, y)
    assert torch.equal(consistency(x, beyond, "pixels"), consistency(to_float(x), y, "pixels"))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (f64([[[[0.0]]]] * 2), f64([[[[0.0]]]] * 3), "pairs need one shape"),
        (f64([[[[0.0]]]]), f64([[[[0.0]]]]), "at least 2 images"),
        (f64([[[[0.0]]], [[[1.0]]]]), f64([[[[0.5]]]] * 2), "all y have the same 'pixels' features"),
        (f64([[[[math.inf]]], [[[1.0]]]]), f64([[[[0.5]]], [[[0.0]]]]), "not finite"),
    ],
)
def test_consistency_needs_samples_that_differ(x, y, message):
    assert message in one_line(MetricError, consistency, x, y, "pixels")
