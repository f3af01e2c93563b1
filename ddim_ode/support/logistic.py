"""Steps of log sigma by a logistic distribution: small where images take shape, ever wider on both sides."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PREFIX = "logistic:"


class Logistic(NamedTuple):
    """The distribution of log sigma at whose evenly spaced quantiles the nodes of a grid are.

    Its density falls off at rates of its own above the centre and below it. With all of them 1 and `left` too, the
    nodes are even in the time of a flow, sigma / (1 + sigma).
    """

    centre: float = 0.7  # sigma
    above: float = 2.0  # width in log sigma there
    below: float = 1.5
    left: float = 0.4  # steps below the last node, 0 where it is the smallest sigma
    first: float = 1.0  # length of the first interval in steps, 3 where it costs three evaluations

    @classmethod
    def named(cls, text: str) -> "Logistic | None":
        """What "logistic:0.7:2:1.5:0.4" says, one number for both widths if there are two in all; None if it is no such
        text, or one of numbers that no grid can have.
        """
        try:
            given = [float(part) for part in text.removeprefix(PREFIX).split(":")] if text.startswith(PREFIX) else []
        except ValueError:
            return None
        if not 1 <= len(given) <= 5:
            return None
        shape = cls(*(given if len(given) != 2 else (given[0], given[1], given[1])))
        return shape if shape.possible else None

    @property
    def possible(self) -> bool:
        """Whether nodes can be placed so in float64."""
        widths = all(0.1 <= width <= 100 for width in (self.above, self.below))
        return 1e-6 <= self.centre <= 1e6 and widths and 0 <= self.left <= 10 and 1 <= self.first <= 10

    def __str__(self) -> str:
        given = self if self.first != 1 else self[:4]
        return PREFIX + ":".join(f"{number:g}" for number in given)

    def nodes(self, high: float, low: float, n: int) -> Tensor:
        """(n,) float64 sigmas, decreasing, between two of them; the first is `high`."""
        first, last = self._share(math.log(high)), self._share(math.log(low))
        steps = np.maximum(np.arange(n) + (self.first - 1), 0) * (np.arange(n) > 0)
        shares = first + (last - first) * steps / max(steps[-1] + self.left, 1)
        logs = torch.tensor([self._node(share) for share in shares], dtype=torch.float64)
        sigmas = torch.exp(logs).clamp(low, high)
        sigmas[0] = high  # which the way there and back has rounded
        if self.left == 0 and n > 1:
            sigmas[-1] = low
        return sigmas

    @property
    def _part(self) -> float:
        """The share of the distribution below its centre."""
        return self.below / (self.above + self.below)

    def _share(self, node: float) -> float:
        """The distribution function of log sigma."""
        z = node - math.log(self.centre)
        if z < 0:
            return 2 * self._part / (1 + math.exp(-z / self.below))
        return self._part + (1 - self._part) * math.tanh(z / self.above / 2)

    def _node(self, share: float) -> float:
        """Its inverse."""
        middle, part = math.log(self.centre), self._part
        if share < part:
            half = max(share / (2 * part), 1e-300)
            return middle + self.below * math.log(half / (1 - half))
        return middle + 2 * self.above * math.atanh(min((share - part) / (1 - part), 1 - 1e-16))
