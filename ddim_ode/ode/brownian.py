"""Brownian motions that are functions of their seeds: the same path whatever the batch, the steps or the solver.

Time is t = -log sigma, which grows as sampling goes on. A path is a tree over t in [-16, 16): each half of an interval
is drawn given the whole, so that a query goes down one branch, and finer steps only add branches (Levy's construction,
with the area under the path, as solvers of strong order 1.5 need it: Foster, Lyons & Oberhauser 2020). Over a length h

    W = W(h) ~ N(0, h),        H = 1/h int_0^h (W(s) - s/h W) ds ~ N(0, h/12), independent of W,

and its halves follow from W1 - W2 = 3 H + sqrt(h)/2 X and H1 + H2 = 2 H - (W1 - W2)/2, H1 - H2 = sqrt(h/12) Y, with X
and Y standard normal.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.paths import f64
from ddim_ode.support.seeds import normal_pairs

REACH = 16.0  # |log sigma| at most: sigma from 1.1e-7 to 8.9e6
DEPTH = 18  # halvings
SMALLEST = 2 * REACH / 2**DEPTH  # 1.2e-4: two times in one interval of this size are not told of each other
LEAST = 4 * SMALLEST  # of a step, whose noise would not be normal if it were smaller
TICKS = 2**26  # in one of them: times are rounded, so that a sigma that is rounded differently means the same one


class BrownianError(DDIMError):
    """A time that the paths do not reach."""


class Node(NamedTuple):
    """A node of the tree, of the motions of all samples, (B, *shape) float64 each."""

    w: Tensor  # increment over it
    h: Tensor  # its H
    before: Tensor  # W where it begins
    area: Tensor  # int W ds up to there


class NoiseSource(Protocol):
    """What a solver draws from."""

    def increment(self, sigma0: Tensor | float, sigma1: Tensor | float) -> tuple[Tensor, Tensor]: ...


class Brownian:
    """Motions W_i(t), one for each seed.

    Args:
        seeds: one int a sample.
        shape: of a sample.
        device, dtype: of what queries return; the paths are drawn on the CPU.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: tuple[int, ...],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.seeds, self.shape, self.device, self.dtype = tuple(seeds), shape, device, dtype
        self._keys = np.array(self.seeds, dtype=np.uint64)
        w, h = self._normals("root", 0, 0)
        length = 2 * REACH
        zero = torch.zeros_like(w)
        root = Node(math.sqrt(length) * w, math.sqrt(length / 12) * h, zero, zero)
        self._branch = [root]  # the last one gone down
        self._bits = ""
        self._last: tuple[float, tuple[Tensor, Tensor]] | None = None

    def increment(self, sigma0: Tensor | float, sigma1: Tensor | float) -> tuple[Tensor, Tensor]:
        """(z, u), each (B, *shape): W(t1) - W(t0) and int (W - W(t0)) dt, divided by what makes z ~ N(0, 1).

        That is sqrt(t1 - t0) and (t1 - t0)^(3/2); u ~ N(0, 1/3), with a covariance of 1/2 with z.

        Raises:
            BrownianError: sigmas that are out of reach, closer than the paths can tell, or rise.
        """
        t0, t1 = self._time(sigma0), self._time(sigma1)
        if 0 < t1 - t0 < LEAST:
            raise BrownianError(
                f"the step from sigma={float(sigma0):.6g} to {float(sigma1):.6g} is too small for a Brownian path"
                f"; it must be {LEAST:.1e} of log sigma or more, so use fewer steps"
            )
        if t1 <= t0:
            raise BrownianError(f"noise is drawn downwards, not from {float(sigma0):.6g} to {float(sigma1):.6g}")
        (w0, a0), (w1, a1) = self._at(t0), self._at(t1)
        z = (w1 - w0) / math.sqrt(t1 - t0)
        u = (a1 - a0 - (t1 - t0) * w0) / (t1 - t0) ** 1.5
        return z.to(self.device, self.dtype), u.to(self.device, self.dtype)

    def _time(self, sigma: Tensor | float) -> float:
        """-log sigma, counted from where the paths begin."""
        t = round((REACH - math.log(float(f64(sigma)))) / SMALLEST * TICKS) / TICKS * SMALLEST
        if not 0 <= t < 2 * REACH:
            raise BrownianError(f"sigma={float(sigma):.6g} is beyond the Brownian paths, |log sigma| < {REACH:g}")
        return t

    def _at(self, t: float) -> tuple[Tensor, Tensor]:
        """W and the area under it."""
        if self._last and self._last[0] == t:
            return self._last[1]
        place, tick = divmod(round(t / SMALLEST * TICKS), TICKS)
        bits = format(place, f"0{DEPTH}b")
        shared = 0
        while shared < len(self._branch) - 1 and bits[shared] == self._bits[shared]:
            shared += 1
        del self._branch[shared + 1 :]
        for level in range(shared, DEPTH):
            self._branch.append(self._half(self._branch[level], level, bits[: level + 1]))
        self._bits = bits
        node, share = self._branch[-1], tick / TICKS
        found = node.before, node.area
        if share:  # W there given the interval's W and H, and the mean of its area
            x, _ = self._normals("bridge", place, tick)
            both = share * (1 - share)
            w = share * node.w + 6 * both * node.h + math.sqrt((both - 3 * both**2) * SMALLEST) * x
            mean = share**2 / 2 * node.w + (3 * share**2 - 2 * share**3) * node.h
            found = node.before + w, node.area + SMALLEST * (share * node.before + mean)
        self._last = t, found
        return found

    def _half(self, whole: Node, level: int, bits: str) -> Node:
        """The left half of an interval, or the right one, as the last bit says."""
        length = 2 * REACH / 2**level
        x, y = self._normals("half", level, int(bits[:-1] or "0", 2))
        difference = torch.add(3 * whole.h, x, alpha=math.sqrt(length) / 2)  # W1 - W2
        total = torch.sub(2 * whole.h, difference, alpha=0.5)  # H1 + H2
        w1 = (whole.w + difference) / 2
        h1 = torch.add(total, y, alpha=math.sqrt(length / 12)) / 2
        if bits[-1] == "0":
            return Node(w1, h1, whole.before, whole.area)
        mean = torch.add(whole.before, w1, alpha=0.5).add_(h1)  # of W over the left half
        area = torch.add(whole.area, mean, alpha=length / 2)
        return Node(whole.w - w1, total - h1, whole.before + w1, area)

    def _normals(self, *node: int | str) -> tuple[Tensor, Tensor]:
        """Two standard normals (B, *shape) of a node of the tree."""
        pair = normal_pairs(self._keys, math.prod(self.shape), *node)
        x, y = (torch.from_numpy(z.astype(np.float64)).reshape(-1, *self.shape) for z in pair)
        return x, y
