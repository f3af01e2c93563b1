"""Paths whose time is what networks of diffusers are told, against the formulas that define it."""

import math

import pytest
import torch

from ddim_ode.continuous import Preconditioned, TimedFlow
from tests.helpers.tensors import f64

SIGMAS = f64([1e-3, 0.02, 0.5, 1.0, 3.0, 80.0, 900.0])
SHARES = SIGMAS / (1 + SIGMAS)
TOLD = {
    TimedFlow(timesteps=1000.0): 1000 * SHARES,
    TimedFlow(inverted=True): 1000 * (1 - SHARES),
    TimedFlow(timesteps=40.0, shift=3.0): 40 * SHARES / (3 - 2 * SHARES),  # s = 3 t / (1 + 2 t)
    Preconditioned(sigma_data=0.5): SIGMAS.log() / 4,
    Preconditioned(told="angle"): 2 / math.pi * torch.atan(SIGMAS),
}


@pytest.mark.parametrize("path", TOLD, ids=str)
def test_the_time_is_what_the_network_is_told(path):
    torch.testing.assert_close(path.u(SIGMAS), TOLD[path], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(path.sigma(path.u(SIGMAS)), SIGMAS, rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", TOLD, ids=str)
def test_slopes_are_derivatives(path):
    u = path.u(SIGMAS)
    step = 1e-6 * (1 + u.abs())
    for slope, low, high in zip(path.slopes(u), path.coefficients(u - step), path.coefficients(u + step), strict=True):
        torch.testing.assert_close(slope, (high - low) / (2 * step), rtol=1e-4, atol=1e-9)


def test_the_state_is_what_the_network_sees():
    torch.testing.assert_close(TimedFlow().scale(SIGMAS), 1 - SHARES, rtol=1e-12, atol=0)
    scale = Preconditioned(sigma_data=0.5).scale(SIGMAS)
    torch.testing.assert_close(scale, 1 / torch.sqrt(SIGMAS**2 + 0.25), rtol=1e-12, atol=0)
