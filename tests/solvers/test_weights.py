"""The weights of exponential integrators against scipy's quadrature and the constants of textbooks and papers."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from ddim_ode import paths
from ddim_ode.solvers.weights import BASES, bh1, equal_steps, exact, half, half_quadratic, weights
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64

NODES = [3.0, 5.0, 9.0, 11.0]  # sigmas, newest first, of a run downwards


def by_quadrature(path, model_path, basis, sigma0, sigma1, nodes):
    """int l_j(w) du with the Lagrange polynomials written out, adaptively, between the kinks of a table."""
    w = [float(BASES[basis].w(model_path, f64(s))) for s in nodes]

    def lagrange(j, log_sigma):
        at = float(BASES[basis].w(model_path, f64(math.exp(log_sigma))))
        return math.prod((at - v) / (w[j] - v) for k, v in enumerate(w) if k != j)

    def measure(log_sigma):
        sigma = math.exp(log_sigma)
        return {"noise": sigma, "data": -1 / sigma, "angle": sigma / (1 + sigma**2), "flow": sigma / (1 + sigma) ** 2}[
            path
        ]

    low, high = sorted([sigma0, sigma1])
    kinks = model_path.kinks[(model_path.kinks > low) & (model_path.kinks < high)].log().tolist()
    edges = sorted([math.log(low), math.log(high), *kinks], reverse=sigma1 < sigma0)
    return [
        sum(
            quad(lambda x, j=j: lagrange(j, x) * measure(x), a, b, epsabs=1e-13, epsrel=1e-12)[0]
            for a, b in pairwise(edges)
        )
        for j in range(len(nodes))
    ]


@pytest.mark.parametrize("sigma1", [1.5, 3.7])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("path", ["noise", "data", "angle", "flow"])
def test_weights_integrate_the_interpolating_polynomial(path, basis, count, sigma1):
    model = PATHS["seven"]
    found = weights(PATHS[path], model, basis, exact, 3.0, sigma1, NODES[:count])
    expected = by_quadrature(path, model, basis, 3.0, sigma1, NODES[:count])
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12 * max(map(abs, expected)))


@pytest.mark.parametrize("basis", ["sigma", "angle"])
@pytest.mark.parametrize("path", ["noise", "angle", "flow"])
def test_an_interval_may_end_at_zero(path, basis):
    at_zero = weights(PATHS[path], paths.noise, basis, exact, 3.0, 0.0, NODES[:3])
    near = weights(PATHS[path], paths.noise, basis, exact, 3.0, 1e-10, NODES[:3])
    assert at_zero == pytest.approx(near, rel=1e-8)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("path", PATHS)
def test_a_constant_slope_is_integrated_to_the_last_digit(path, basis):
    model = PATHS["cosine"]
    u = PATHS[path].u(f64([3.0, 0.3]))
    found = weights(PATHS[path], model, basis, exact, 3.0, 0.3, NODES[:3])
    assert sum(found) == pytest.approx(float(u[1] - u[0]), rel=1e-12)


@pytest.mark.parametrize(
    ("count", "constants"),
    [(1, [1]), (2, [3 / 2, -1 / 2]), (3, [23 / 12, -16 / 12, 5 / 12]), (4, [55 / 24, -59 / 24, 37 / 24, -9 / 24])],
)
@pytest.mark.parametrize("rule", [exact, equal_steps])
def test_equal_steps_give_adams_bashforth(rule, count, constants):
    nodes = [3.0, 3.5, 4.0, 4.5][:count]
    assert weights(paths.noise, paths.noise, "sigma", rule, 3.0, 2.5, nodes) == pytest.approx(
        -0.5 * np.array(constants)
    )


def test_a_node_at_the_end_gives_adams_moulton():
    for rule in (exact, equal_steps):
        found = weights(paths.noise, paths.noise, "sigma", rule, 3.0, 2.5, [3.0, 2.5, 3.5])
        assert found == pytest.approx(-0.5 * np.array([8, 5, -1]) / 12)


def test_constant_weights_do_not_see_the_nodes():
    found = weights(paths.noise, paths.noise, "sigma", equal_steps, 3.0, 2.0, [3.0, 5.0, 5.1])
    assert found == pytest.approx(-np.array([23, -16, 5]) / 12)


def phi(h):
    """phi_1, phi_2, phi_3 of -h: the integrals of (1, s, s^2/2) e^-(1-s)h over [0, 1]."""
    one = -math.expm1(-h) / h
    two = (1 - one) / h
    return one, two, (1 / 2 - two) / h


@pytest.mark.parametrize("rule", [half, bh1, half_quadratic])
def test_simplified_moments_are_the_published_ones(rule):
    """With y = xbar / sigma the update of the papers, in alpha_t units, is multiplied by 1 / sigma1."""
    sigma0, sigma1, older, oldest = 3.0, 1.5, 5.0, 11.0
    h, h1, h2 = math.log(sigma0 / sigma1), math.log(older / sigma0), math.log(oldest / older)
    found = weights(paths.data, paths.noise, "log_snr", rule, sigma0, sigma1, [sigma0, older])
    r = h1 / h
    slope = {half: -math.expm1(-h), bh1: h, half_quadratic: -math.expm1(-h)}[rule] / 2  # B(h) / 2 of UniPC
    expected = np.array([-math.expm1(-h) + slope / r, -slope / r]) / sigma1
    assert found == pytest.approx(expected)

    found = weights(paths.data, paths.noise, "log_snr", rule, sigma0, sigma1, [sigma0, older, oldest])
    f = np.random.default_rng(0).normal(size=3)
    first, second = (f[0] - f[1]) / h1, (f[1] - f[2]) / h2
    curvature = (first - second) / (h1 + h2)
    p1, p2, p3 = phi(h)
    lost = 0.5 if rule is half_quadratic else 1.0
    terms = p1 * f[0] + p2 * h * (first + h1 * curvature) + 2 * lost * p3 * h**2 * curvature
    assert np.dot(found, f) * sigma1 == pytest.approx(h * terms)
