"""The Frechet distance against its closed form."""

import pytest
import torch

from ddim_ode.metrics import frechet_distance
from tests.helpers.tensors import f64, normal, whitened


@pytest.mark.parametrize("width", [1, 2, 16])
def test_diagonal_covariances_match_the_closed_form(width):
    generator = torch.Generator().manual_seed(width)
    mean_a, mean_b, std_a, std_b = torch.rand(4, width, generator=generator, dtype=torch.float64) * 3
    a, b = whitened(50, width, 1) * std_a + mean_a, whitened(70, width, 2) * std_b + mean_b
    expected = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_covariances_that_do_not_commute_match_the_two_by_two_formula():
    root_a = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    root_b = torch.tensor([[1.0, 0.0], [-2.0, 3.0]], dtype=torch.float64)
    a, b = whitened(40, 2, 3) @ root_a.mT, whitened(40, 2, 4) @ root_b.mT
    cov_a, cov_b = root_a @ root_a.mT, root_b @ root_b.mT
    assert not torch.allclose(cov_a @ cov_b, cov_b @ cov_a)
    # Tr sqrt(M) = sqrt(Tr M + 2 sqrt(det M)) for a 2 x 2 matrix M = cov_a cov_b
    product = cov_a @ cov_b
    overlap = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = cov_a.trace() + cov_b.trace() - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_it_does_not_move_with_a_rotation_and_is_symmetric():
    a, b = whitened(60, 5, 5) * torch.arange(1.0, 6.0) + 1, whitened(60, 5, 6)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(frechet_distance(a, b), rel=1e-10)


def test_the_frechet_distance_of_fewer_samples_than_features_is_that_in_the_plane_they_span():
    a, b = normal(6, 3, seed=0), 2 * normal(9, 3, seed=1) + 1
    wide = torch.linalg.qr(normal(50, 3, seed=2)).Q.mT
    assert frechet_distance(a @ wide, b @ wide) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    # Two points each, in orthogonal planes: no overlap is left of |m1 - m2|^2 + Tr S1 + Tr S2
    a, b = f64([[1, 0, 0], [-1, 0, 0]]), f64([[0, 2, 1], [0, -2, 1]])
    assert frechet_distance(a, b) == pytest.approx(1 + 2 + 8, rel=1e-12)


@pytest.mark.parametrize("count", [2, 40])
def test_identical_sets_are_at_distance_zero(count):
    a = torch.randn(count, 8, generator=torch.Generator().manual_seed(8))
    assert 0 <= frechet_distance(a, a) < 1e-6


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 4), torch.zeros(5, 4), r"a has shape \(1, 4\), expected .* N >= 2"),
        (torch.zeros(5, 4), torch.zeros(1, 4), r"b has shape \(1, 4\)"),
        (torch.zeros(5), torch.zeros(5, 4), r"a has shape \(5,\)"),
        (torch.zeros(5, 4), torch.zeros(5, 3), "a has 4 features and b has 3"),
        (torch.zeros(5, 4), torch.full((5, 4), torch.nan), "b holds values that are not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)
