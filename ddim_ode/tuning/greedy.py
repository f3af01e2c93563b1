"""Coefficients by least squares, one step after the other, and places from a family of three numbers.

Where the model is asked is given by log sigma = top + (bottom - top) r, r = q + bend q (1 - q) at equal q from 0 to 1.
Given the places, each step takes the states that the table itself has reached to where the flow's own are at the next
place, as nearly as z and the images seen so far allow: a linear least squares over all samples.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddim_ode.tuning.numbers import Numbers
from ddim_ode.tuning.problem import Asked, Samples, Trajectories, missed

ROBUST = 4  # rounds in which samples that end in another mode lose their weight
RIDGE = 1e-9  # of columns scaled to 1
BEGIN, END = 20.0, 1.0  # of the family: the first sigma, and N times the last, in standard deviations of the data
LEAST = 0.25  # of the range that a model knows, which the family begins with at least
MOST_BEND = 0.95  # at 1 two places would meet
EDGES: tuple[float, ...] = (0.5, 0.4, 0.25)  # first steps of the search, in log sigma and in the bend
SWEEPS = 3
TRIES = 40  # tables at most


def least_squares(columns: list[Tensor], target: Tensor, weights: Tensor) -> Tensor:
    """(K,) coefficients of the columns (B, *shape) by which they come closest to the target, samples weighed (B,)."""
    rows = torch.stack([column.reshape(len(target), -1) for column in columns])
    weighed = rows * weights[:, None]
    products = weighed.flatten(1) @ torch.cat([rows.flatten(1), target.reshape(1, -1)]).T
    scale = products[:, :-1].diagonal().clamp(min=1e-300).rsqrt()
    matrix = products[:, :-1] * scale[:, None] * scale + RIDGE * torch.eye(len(columns)).to(products)
    return (torch.linalg.solve(matrix, products[:, -1] * scale) * scale).cpu()


def fitted(columns: list[Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (K,), and the combination (B, *shape); samples that are far off count little."""
    weights = torch.ones(len(target)).to(target)
    for _ in range(ROBUST):
        found = least_squares(columns, target, weights)
        y = sum((c * column for c, column in zip(found.tolist(), columns, strict=True)), torch.zeros_like(target))
        errors = missed(y, target)
        weights = 1 / (1 + (errors / errors.median().clamp(min=1e-12)).square())
    return found, y


def greedy(
    asked: Asked, sigmas: list[float], samples: Samples, way: Trajectories, memory: int
) -> tuple[Numbers, Tensor]:
    """The table on these sigmas, and the images (B, *shape) that it makes."""
    places = [math.log(sigma) for sigma in sigmas]
    scale, y = fitted([samples.z], way.at(places[0]))
    noise, data, images = list[float](), list[Tensor](), list[Tensor]()
    for n, place in enumerate(places):
        images.append(asked.image(y, place, samples.labels))
        target = way.at(places[n + 1]) if n + 1 < len(places) else samples.x
        found, y = fitted([samples.z, *images], target)
        noise.append(float(found[0]))
        data.append(found[1:])
    return Numbers.of(sigmas, float(scale), noise, data, memory), y


def search(
    asked: Asked,
    count: int,
    samples: Samples,
    way: Trajectories,
    *,
    memory: int,
    size: float,
    limit: int,
    told: Callable[[float], None],
) -> Numbers:
    """The best table of the family, by the mean logarithm of what it misses; coordinate by coordinate.

    size: standard deviation of the data. limit: after so many passes no other is tried.
    """
    tried: dict[tuple[float, ...], tuple[float, Numbers]] = {}

    def loss(at: tuple[float, ...]) -> float:
        if at not in tried:
            top, bottom, bend = at
            outside = not asked.low <= bottom < top <= asked.high or abs(bend) > MOST_BEND
            if outside or (tried and (len(tried) == TRIES or asked.passes >= limit)):
                return math.inf
            numbers, x = greedy(asked, family(count, *at), samples, way, memory)
            errors = missed(x, samples.x)
            tried[at] = float(errors.clamp(min=1e-15).log().mean()), numbers
            told(float(errors.median()))
        return tried[at][0]

    def moved(at: tuple[float, ...], i: int, by: float) -> tuple[float, ...]:
        return (*at[:i], at[i] + by, *at[i + 1 :])

    room = LEAST * (asked.high - asked.low)
    top = min(max(math.log(BEGIN * size), asked.low + 2 * room), asked.high)
    best: tuple[float, ...] = (top, min(max(math.log(END * size / count), asked.low), top - room), 0.0)
    loss(best)
    edges = EDGES
    for _ in range(SWEEPS):
        for i, edge in enumerate(edges):
            for by in (edge, -edge):
                while loss(other := moved(best, i, by)) < loss(best):
                    best = other
        edges = tuple(edge / 2 for edge in edges)
    return tried[best][1]


def family(count: int, top: float, bottom: float, bend: float) -> list[float]:
    q = torch.linspace(0, 1, count, dtype=torch.float64)
    return (top + (bottom - top) * (q + bend * q * (1 - q))).exp().tolist()
