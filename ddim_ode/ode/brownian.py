"""Brownian motions that are functions of their seeds: the same path whatever the batch, the steps or the solver.

Time is t = -log sigma, which grows as sampling goes on. A path is a tree over t in [-16, 16): each half of an interval
is drawn given the whole, so that a query goes down one branch, and finer steps only add branches (Levy's construction,
with the area under the path, as solvers of strong order 1.5 need it: Foster, Lyons & Oberhauser 2020). Over a length h

    W = W(h) ~ N(0, h),        H = 1/h int_0^h (W(s) - s/h W) ds ~ N(0, h/12), independent of W,

and its halves follow from W1 - W2 = 3 H + sqrt(h)/2 X and H1 + H2 = 2 H - (W1 - W2)/2, H1 - H2 = sqrt(h/12) Y, with X
and Y standard normal.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.paths import f64
from ddim_ode.support.normals import Normals, Stream

REACH = 16.0  # |log sigma| at most: sigma from 1.1e-7 to 8.9e6
DEPTH = 18  # halvings
SMALLEST = 2 * REACH / 2**DEPTH  # 1.2e-4: two times in one interval of this size are not told of each other
LEAST = 4 * SMALLEST  # of a step, whose noise would not be normal if it were smaller
TICKS = 2**26  # in one of them: times are rounded, so that a sigma that is rounded differently means the same one
CPU = torch.device("cpu")
LOT = 2**16  # numbers that a CPU works on at a time, found by trial: few for its caches, and many for a call
KEPT = 8  # levels of the tree, below its root, that are kept at most: the rest is cheaper drawn again than remembered
WITHOUT_FLOAT64 = "mps", "xla"  # devices, for which the CPU draws

Patch = tuple[slice, slice]  # of (B, D)


class BrownianError(DDIMError):
    """A time that the paths do not reach."""


class Point(NamedTuple):
    """Where the motions of all samples are at a time, (B, D) float64 each."""

    w: Tensor
    area: Tensor  # int W ds up to there


class Node(NamedTuple):
    """A node of the tree, of the motions of all samples, (B, D) float64 each."""

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
        device, dtype: of what queries return. The paths are drawn there too, unless it has no float64: of the same
            bits everywhere, see `support.normals`.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: tuple[int, ...],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.seeds, self.shape, self.device, self.dtype = tuple(seeds), shape, device or CPU, dtype
        self._home = CPU if self.device.type in WITHOUT_FLOAT64 else self.device
        self._size = len(self.seeds), math.prod(shape)
        self._normals = Normals(self.seeds, self._size[1], self._home)
        self._nodes = [Node(*self._empty(4))]  # on the way to where it is, by level, as far as the next way shares it
        self._known, self._place = 1, 0  # how many of them, and the smallest interval that they lead to
        self._time, self._here = math.nan, Point(*self._empty(2))
        (keys,) = self._normals.keys([("root", 0, 0)])
        for patch in self._patches():
            w, h = (x.double() for x in self._normals.pairs(keys[patch[0]], patch[1]))
            zero = torch.zeros_like(w)
            keep(Node(math.sqrt(2 * REACH) * w, math.sqrt(2 * REACH / 12) * h, zero, zero), self._nodes[0], patch)

    def increment(self, sigma0: Tensor | float, sigma1: Tensor | float) -> tuple[Tensor, Tensor]:
        """(z, u), each (B, *shape): W(t1) - W(t0) and int (W - W(t0)) dt, divided by what makes z ~ N(0, 1).

        That is sqrt(t1 - t0) and (t1 - t0)^(3/2); u ~ N(0, 1/3), with a covariance of 1/2 with z.

        Raises:
            BrownianError: sigmas that are out of reach, closer than the paths can tell, or rise.
        """
        t0, t1 = time_of(sigma0), time_of(sigma1)
        if 0 < (h := t1 - t0) < LEAST:
            raise BrownianError(
                f"the step from sigma={float(sigma0):.6g} to {float(sigma1):.6g} is too small for a Brownian path"
                f"; it must be {LEAST:.1e} of log sigma or more, so use fewer steps"
            )
        if t1 <= t0:
            raise BrownianError(f"noise is drawn downwards, not from {float(sigma0):.6g} to {float(sigma1):.6g}")
        if self._time != t0:
            list(self._go(t0))
        z, u = (torch.empty(self._size, dtype=self.dtype, device=self._home) for _ in "zu")
        for patch, (w0, a0), (w1, a1) in self._go(t1):
            z[patch] = (w1 - w0) / math.sqrt(h)
            u[patch] = (a1 - a0 - h * w0) / h**1.5
        return z.reshape(-1, *self.shape).to(self.device), u.reshape(-1, *self.shape).to(self.device)

    def _go(self, t: float) -> Iterator[tuple[Patch, Point, Point]]:
        """To another time, patch by patch, each with where it was and where it is."""
        place, tick = divmod(round(t / SMALLEST * TICKS), TICKS)
        shared = min(self._known - 1, DEPTH - (place ^ self._place).bit_length())
        # A next step that is half as long as this one, or longer, leaves this way at that level or before.
        last = min(KEPT, DEPTH - abs(place - self._place).bit_length() + 1)
        self._nodes += [Node(*self._empty(4)) for _ in range(len(self._nodes), last + 1)]
        self._known, self._time = shared + 1, math.nan  # should it not get there
        streams: list[Stream] = [("half", level, place >> DEPTH - level) for level in range(shared, DEPTH)]
        keys = self._normals.keys([*streams, ("bridge", place, tick)])
        for patch in self._patches():
            walk = Walk(*(x[patch] for x in self._nodes[shared]))
            normals = self._pairs(keys[:, patch[0]], patch[1])
            for level in range(shared, DEPTH):
                walk.down(2 * REACH / 2**level, bool(place >> DEPTH - 1 - level & 1), *next(normals))
                if level < last:
                    keep(walk.node, self._nodes[level + 1], patch)
            before, now = Point(*(x[patch] for x in self._here)), walk.within(tick / TICKS, *next(normals))
            yield patch, before, now
            keep(now, self._here, patch)
        self._known, self._place, self._time = max(shared, last) + 1, place, t

    def _pairs(self, keys: Any, columns: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """The normals of one stream after another, drawn as many at a time as make a lot."""
        size = keys.shape[1] * len(range(*columns.indices(self._size[1])))
        many = max(1, LOT // size)
        for first in range(0, len(keys), many):
            yield from zip(*self._normals.pairs(keys[first : first + many], columns), strict=True)

    def _patches(self) -> Iterator[Patch]:
        """Parts of (B, D), of a lot at most on the CPU."""
        samples, numbers = self._size
        rows, columns = (max(1, LOT // numbers), min(numbers, LOT)) if self._home == CPU else self._size
        for row in range(0, samples, rows):
            for column in range(0, numbers, columns):
                yield slice(row, row + rows), slice(column, column + columns)

    def _empty(self, count: int) -> Iterator[Tensor]:
        return (torch.empty(self._size, dtype=torch.float64, device=self._home) for _ in range(count))


class Walk:
    """A way down the tree from a node."""

    def __init__(self, w: Tensor, h: Tensor, before: Tensor, area: Tensor):
        self.node = Node(w.clone(), h.clone(), before.clone(), area.clone())  # where it is, and its own to write to
        self._room = tuple(torch.empty_like(w) for _ in range(3))

    def down(self, length: float, right: bool, x: Tensor, y: Tensor) -> None:
        """To the left half of an interval of that length, or to the right one, given two normals."""
        (w, h, before, area), (w1, h1, mean) = self.node, self._room
        torch.mul(h, 3, out=w1).add_(x, alpha=math.sqrt(length) / 2)  # W1 - W2
        h.sub_(w1, alpha=0.25)  # (H1 + H2) / 2
        w1.add_(w).mul_(0.5)
        torch.add(h, y, alpha=math.sqrt(length / 12) / 2, out=h1)
        if right:
            torch.add(before, w1, alpha=0.5, out=mean).add_(h1)  # of W over the left half
            area.add_(mean, alpha=length / 2)
            before.add_(w1)
            w.sub_(w1)
            h.mul_(2).sub_(h1)
        else:
            self.node, self._room = Node(w1, h1, before, area), (w, h, mean)

    def within(self, share: float, x: Tensor, _: Tensor) -> Point:
        """A share into a smallest interval: W there given the interval's W and H, and the mean of its area."""
        w, h, before, area = self.node
        both = share * (1 - share)
        gone = share * w + 6 * both * h + math.sqrt((both - 3 * both**2) * SMALLEST) * x.double()
        mean = share**2 / 2 * w + (3 * share**2 - 2 * share**3) * h
        return Point(before + gone, area + SMALLEST * (share * before + mean))


def time_of(sigma: Tensor | float) -> float:
    """-log sigma, counted from where the paths begin."""
    t = round((REACH - math.log(float(f64(sigma)))) / SMALLEST * TICKS) / TICKS * SMALLEST
    if not 0 <= t < 2 * REACH:
        raise BrownianError(f"sigma={float(sigma):.6g} is beyond the Brownian paths, |log sigma| < {REACH:g}")
    return t


def keep(given: Sequence[Tensor], place: Sequence[Tensor], patch: Patch) -> None:
    """Copy a part of a node, or of a point, to where the whole is kept."""
    for x, kept in zip(given, place, strict=True):
        kept[patch] = x
