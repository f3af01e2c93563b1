"""Samples on their way by an adaptive Adams method, and what a step that they try comes to.

Times, orders and sizes of errors are few numbers, kept in NumPy on the CPU, where steps are decided; states, slopes and
what is made of them stay on their device.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_ode.solvers.lagrange import Floats
from ddim_ode.solvers.trajectories import Mask, Rows, beside
from ddim_ode.support.waiting import sent

Counts = NDArray[np.int64]


class Course(NamedTuple):
    """What is known on the CPU of the samples under way. Second axis of nodes: the newest first."""

    rows: Rows  # (B,) which samples of the batch these are
    nodes: Floats  # (B, K) times of the slopes; the state is at the first
    known: Counts  # (B,) how many of them there are
    order: Counts  # (B,) how many the predictor uses
    step: Floats  # (B,) > 0

    def take(self, rows: Rows) -> "Course":
        """Some of them."""
        return Course(self.rows[rows], self.nodes[rows], self.known[rows], self.order[rows], self.step[rows])


class State(NamedTuple):
    """The samples under way, first axis. Second axis of slopes: the newest first."""

    course: Course
    y: Tensor  # (B, *shape)
    before: Tensor  # (B, *shape) at the second node, revised
    slopes: Tensor  # (B, K, *shape)

    def take(self, chosen: Mask) -> "State":
        """The samples that are chosen."""
        if chosen.all():
            return self
        rows = np.flatnonzero(chosen)
        there = beside(rows, self.y)
        return State(self.course.take(rows), self.y[there], self.before[there], self.slopes[there])


class Trial(NamedTuple):
    """A step that was tried, to u1, and what there would be if it were accepted."""

    u1: Floats  # (B,)
    sigmas: Floats  # (B,) there
    orders: Counts  # (B, 3): that of the predictor less one, itself and one more; 0 for one that cannot be
    nodes: Floats  # (B, K)
    known: Counts  # (B,)
    ends: Floats  # (B, K, K) weights of the slopes in a last step from u1, through 1 to K of them
    slopes: Tensor  # (B, K + 1, *shape), with one that is to be forgotten
    predicted: Tensor  # (B, *shape)
    corrections: Tensor  # (B, 3, *shape), at each of the orders
    revised: Tensor  # (B, *shape) the state before the step
    gaps: Tensor | None  # (B, K - 1, *shape) between where successive orders see the end; None if nobody has enough


class Sizes(NamedTuple):
    """How large things are in a trial, in data units."""

    errors: Floats  # (B, 3) at each of the orders
    shift: Floats  # (B,) of the state before the step, revised
    gaps: Floats  # (B, K - 1) between where successive orders see the end


def choose(mask: Mask, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` for the samples of the mask (B,), `no` for the others."""
    if mask.all() or not mask.any():
        return yes if mask.all() else no
    there = sent(torch.from_numpy(mask), yes.device)
    return torch.where(there.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
