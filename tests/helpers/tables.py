"""Schedules: those of the library on short and long tables, and DDPM's and the cosine table without it."""

import math

from ddim_ode import paths

PATHS = {
    "noise": paths.noise,
    "data": paths.data,
    "angle": paths.angle,
    "flow": paths.flow,
    "linear": paths.DiscreteVP.linear(),
    "cosine": paths.DiscreteVP.cosine(),
    "seven": paths.DiscreteVP([0.99, 0.9, 0.7, 0.5, 0.2, 0.1, 0.004]),
}


def linear_table(timesteps: int = 1000) -> list[float]:
    """DDPM's alphas_cumprod by a plain loop over its betas."""
    table, product = [], 1.0
    for t in range(timesteps):
        beta = 1e-4 + (0.02 - 1e-4) * t / (timesteps - 1)
        product *= 1 - beta
        table.append(product)
    return table


def cosine_table(timesteps: int = 1000) -> list[float]:
    """Nichol & Dhariwal's alphas_cumprod by a plain loop."""

    def f(t: int) -> float:
        return math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2

    table, product = [], 1.0
    for t in range(timesteps):
        product *= 1 - min(1 - f(t + 1) / f(t), 0.999)
        table.append(product)
    return table
