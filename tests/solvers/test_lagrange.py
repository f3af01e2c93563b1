"""Polynomials through the last nodes of each sample: they reproduce powers, at every order."""

import numpy as np
import pytest
import torch

from ddim_ode.solvers.lagrange import combine, integrals, lagrange
from tests.helpers.tensors import normal


def test_the_polynomials_are_those_of_lagrange():
    nodes = np.array([[0.9, 1.0, 1.3, 1.7], [0.2, 0.1, 0.0, 0.0]])  # of the second, two are known
    at = np.array([[0.5, 0.8], [0.3, 0.4]])
    values = lagrange(nodes, at)
    for row, known in ((0, 4), (1, 2)):
        for q in range(1, known + 1):
            for k in range(q):
                power = nodes[row, :q] ** k
                np.testing.assert_allclose(values[row, :, q, :q] @ power, at[row] ** k, rtol=1e-12, atol=1e-12)
    for q in range(5):
        assert (values[:, :, q, q:] == 0).all()
    assert (values[:, :, 1, 0] == 1).all()


def test_the_integrals_are_exact_up_to_order_7():
    nodes = np.array([[0.9, 1.0, 1.1, 1.3, 1.4, 1.6, 1.7]])
    weights = integrals(nodes, np.array([[0.9, 1.2]]), np.array([[0.7, 0.95]]))
    for i, (u0, u1) in enumerate([(0.9, 0.7), (1.2, 0.95)]):
        for q in range(1, 8):
            for k in range(q):
                power = (nodes[0] ** k) @ weights[0, i, q]
                assert power == pytest.approx((u1 ** (k + 1) - u0 ** (k + 1)) / (k + 1), rel=1e-9)


def test_each_sample_has_polynomials_of_its_own():
    nodes = np.array([[0.9, 1.0, 1.3], [0.2, 0.1, 0.0]])
    u0, u1 = np.array([[0.9, 0.8], [0.2, 0.0]]), np.array([[0.5, 0.9], [0.0, 0.3]])
    together = integrals(nodes, u0, u1)
    for row in (slice(0, 1), slice(1, 2)):
        assert np.array_equal(integrals(nodes[row], u0[row], u1[row]), together[row])


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_slopes_are_summed_by_their_weights(shape):
    weights, slopes = normal(2, 4, 3, seed=0), normal(2, 3, *shape, seed=1)
    summed = sum(weights[:, :, k].reshape(2, 4, *[1] * len(shape)) * slopes[:, None, k] for k in range(3))
    torch.testing.assert_close(combine(weights, slopes), summed)
