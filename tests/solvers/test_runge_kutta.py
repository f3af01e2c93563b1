"""Tableaus: their conditions, and torchdiffeq's steps, which they repeat without its waiting for the device."""

import pytest
import torch
from torchdiffeq import odeint

from ddim_ode.errors import DDIMError
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import DiscreteVP, Flow
from ddim_ode.solvers.runge_kutta import TABLEAUS, RungeKutta
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}


@pytest.mark.parametrize("name", TABLEAUS)
def test_its_conditions_of_order(name):
    """Hairer, Norsett & Wanner 1993, "Solving Ordinary Differential Equations I", Table II.2.1: all eight trees of up
    to order four.
    """
    tableau = TABLEAUS[name]
    b, c = f64(tableau.b), f64((0.0, *tableau.c))
    a = torch.zeros(len(b), len(b), dtype=torch.float64)
    for row, weights in enumerate(tableau.a, 1):
        a[row, : len(weights)] = f64(weights)
    assert torch.allclose(a.sum(1), c, atol=1e-15)
    trees = [
        (1, b.sum(), 1),
        (2, b @ c, 1 / 2),
        (3, b @ c**2, 1 / 3),
        (3, b @ a @ c, 1 / 6),
        (4, b @ c**3, 1 / 4),
        (4, (b * c) @ a @ c, 1 / 8),
        (4, b @ a @ c**2, 1 / 12),
        (4, b @ a @ a @ c, 1 / 24),
    ]
    missed = [order for order, found, expected in trees if abs(float(found) - expected) > 1e-15]
    assert min(missed, default=5) == ORDERS[name] + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TABLEAUS)
def test_it_is_the_step_of_torchdiffeq(name, dtype):
    model, path, y = labelled().denoiser(DiscreteVP.linear()), Flow(), normal(3, 2, 3, seed=1).to(dtype)
    ode = ProbabilityFlow(model, path, (0.01, 100.0), torch.tensor([0, 1, 2]))
    u0, u1 = path.u(f64([3.0, 1.0]))
    found = RungeKutta(name).step(ode, u0, u1, y, None).y
    theirs = odeint(
        lambda s, y: (u1 - u0) * ode(u0 + float(s) * (u1 - u0), y), y.double(), f64([0.0, 1.0]), method=name
    )[-1]
    assert torch.allclose(found.double(), theirs, atol={torch.float32: 1e-6, torch.float64: 1e-14}[dtype])


def test_an_unknown_tableau():
    assert one_line(DDIMError, RungeKutta, "rk5").startswith("unknown tableau 'rk5'; did you mean 'rk4'?")
