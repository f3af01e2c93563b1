"""An adaptive Adams method of variable step and order, each sample on its own: one evaluation a step.

With the slope f of the ODE on a path, P_q the polynomial in the time u through the last q slopes, and Q_q through
those and the one at the end of the step,

    predict   y_p = y0 + int P_q du        evaluate  f(u1, y_p)        correct  y1 = y0 + int Q_q du

y1 - y_p estimates the error of y_p, whose local order is q + 1; y1, one order better, is kept. So the error of a run
falls in proportion to the tolerance.

f(u1) also says how the step before should have gone, since a polynomial is better between its nodes than at their edge.
So y0 is revised, from y at the node before it, by a polynomial through three nodes or more, u1 among them, and y1 moves
by as much:

    revise    y0 = y_before + int Q du

It costs no evaluation. A revision that would move y0 further than y1 was corrected is left out.

The orders next to q are estimated from the same slopes, and the one that promises the longest step is used (Shampine &
Gordon 1975, "Computer Solution of Ordinary Differential Equations").

On the path `flow` the state is bounded, and an error of it is one of the image: data units. No other path measured as
well (docs/adaptive.md). What all D pixels share, their brightness, is the exception: it comes out of the noise at a
sigma of about sqrt(D), and an error of it in the state becomes one of the image up to sqrt(D) times as large. So for
images of 56^2 numbers and more the first step is at most 1 / sqrt(D), which is the scale of that in u, and errors at
large sigma count up to sqrt(D) / 56 times. For smaller ones the bound is looser, and at 28^2 it hardly ever matters.

At the largest sigmas a network sees noise and returns the mean of its data, whatever the state. So the first evaluation
is not made there but where that begins to change, and its answer also leads to where it is made.

The last step has no evaluation of its own. It is taken as soon as three successive orders agree on where it ends.
"""

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.solvers.base import Adaptive, Control, Outcome, Watch
from ddim_ode.solvers.lagrange import Floats, combine, integrals, lagrange
from ddim_ode.solvers.trajectories import LARGE, Mask, Trajectories, beside
from ddim_ode.solvers.trials import Counts, Course, Sizes, State, Trial, choose
from ddim_ode.support.waiting import fetched

SMALLEST = 1e-12  # step, in units of the interval
ORDERS = 3  # that must agree about the end
ROOTS = 1 / np.arange(1, 33, dtype=np.float32)  # that of the error at an order by which its step grows


@dataclass(frozen=True)
class AdaptiveAdams(Adaptive):
    """Holds the last `most` slopes of each sample; a step needs memory of some 25 states for a while.

    It has a loop of its own, because every sample is at another sigma. What has to be known of a round on the CPU
    comes from the device in one copy, for which all of the batch waits once.

    most: the largest order of the predictor.
    aim: the error that the next step is made for, in tolerances. Errors of a run add up to the tolerance, and a larger
    one is only rejected beyond it. safety: on that step. finish: how well three orders must agree about the end,
    in tolerances. ahead: how far from pure noise the first evaluation is at most, 1 / sigma, in first steps; where the
    first step is given, it begins at the largest sigma. revise: how far a revision may go, in corrections of the step
    after; 0 is none. The values were measured: docs/adaptive.md. shared: the first axis of what is solved as one sample
    is a batch that shares its steps, of which the worst member decides.
    """

    most: int = 6
    aim: float = 0.2
    safety: float = 0.8
    finish: float = 0.03
    ahead: float = 0.3
    revise: float = 1.0
    growth: tuple[float, float] = (0.2, 2.5)
    _: KW_ONLY
    shared: bool = False

    @property
    def per_sample(self) -> bool:
        return not self.shared

    @property
    def depth(self) -> int:
        """Slopes to remember: three at least, for the last step."""
        return max(3, self.most)

    def solve(
        self, ode: ProbabilityFlow, sigmas: Tensor, xbar: Tensor, control: Control, watch: Watch | None = None
    ) -> Outcome:
        trajectories = Trajectories(ode, xbar, sigmas, xbar.shape[1] if self.shared else 1)
        begin, end = trajectories.begin, trajectories.end
        state = self._first(trajectories, ode.enter(xbar, sigmas[0]), control)
        while len(state.course.rows):
            course = state.course
            u0 = course.nodes[:, 0]
            u1 = np.where(course.step < abs(end - u0), u0 + course.step * np.sign(end - u0), end)
            sigmas_there = trajectories.sigmas(u1)
            able = trajectories.affordable(course.rows, sigmas_there, control.max_nfe)
            able &= course.step > SMALLEST * abs(end - begin)
            if not able.all():
                left = state.take(~able)
                trajectories.abandon(left.course.rows, left.course.nodes[:, 0], left.y, left.slopes[:, 0])
                state, u1, sigmas_there = state.take(able), u1[able], sigmas_there[able]
            if len(u1):
                trial = self._try(trajectories, state, u1, sigmas_there)
                state = self._decide(trajectories, state, trial, control.tol, watch)
        return trajectories.outcome()

    def _first(self, trajectories: Trajectories, y: Tensor, control: Control) -> State:
        count = len(y)
        rows, ones = np.arange(count), np.ones(count, dtype=np.int64)
        step, sigma = control.first_step, math.inf
        if step is None:
            size = trajectories.size
            step = min(math.sqrt(self.aim * control.tol), max(1.0, LARGE / size) / math.sqrt(size))
            sigma = 1 / max(self.ahead * step, SMALLEST)
        nodes = np.full((count, self.depth), trajectories.begin)  # where `before` is, until there is a second node
        nodes[:, 0], start, slope = trajectories.start(rows, y, sigma, control.max_nfe)
        slopes = torch.cat([slope[:, None], y.new_zeros(count, self.depth - 1, *y.shape[1:])], 1)
        return State(Course(rows, nodes, ones, ones, np.full(count, float(step))), start, y, slopes)

    def _try(self, trajectories: Trajectories, state: State, u1: Floats, sigmas: Floats) -> Trial:
        """Evaluate at u1. What follows from the times alone is computed when the network has been asked, which may take
        its time.
        """
        course, q = state.course, state.course.order
        u0, end = course.nodes[:, 0], np.full(len(u1), trajectories.end)
        ahead = integrals(course.nodes, u0[:, None], u1[:, None])[:, 0]
        predicted = state.y + combine(beside(of_orders(ahead, q[:, None]), state.y), state.slopes)[:, 0]
        slope = trajectories.evaluate(course.rows, u1, predicted)
        slopes = torch.cat([slope[:, None], state.slopes], 1)

        nodes = np.concatenate([u1[:, None], course.nodes], 1)
        before = nodes[:, 2]
        many = integrals(nodes, np.array([u0, before, u1]).T, np.array([u1, u0, end]).T)
        here, past, rest = many[:, 0], many[:, 1], many[:, 2]
        # What the new slope corrects at order q and at those next to it; 0 stands for one that cannot be.
        orders = np.stack([q - 1, q, np.where(q < np.minimum(course.known, self.most), q + 1, 0)], 1)
        corrections = of_orders(here, np.where(orders > 0, orders + 1, 0))
        corrections[..., 1:] -= of_orders(ahead, orders)
        # The slope at u1 tells more of the step before than of this one, which lies at the edge of the polynomial.
        revision = of_orders(past, np.minimum(np.maximum(q + 1, 3), course.known + 1)[:, None])
        known = np.minimum(course.known + 1, self.depth)
        of_state, of_slope = trajectories.arrival
        ends = (of_state * rest + of_slope * lagrange(nodes, end[:, None])[:, 0])[:, 1:-1]
        gaps = [np.diff(ends, axis=1)] if known.max() >= ORDERS else []

        weights = beside(np.concatenate([corrections, revision, *gaps], 1), slopes)
        return Trial(
            u1=u1,
            sigmas=sigmas,
            orders=orders,
            nodes=nodes[:, :-1],
            known=known,
            ends=ends[..., :-1],
            slopes=slopes,
            predicted=predicted,
            corrections=combine(weights[:, :3], slopes),
            revised=state.before + combine(weights[:, 3:4], slopes)[:, 0],
            gaps=combine(weights[:, 4:], slopes) if gaps else None,
        )

    def _decide(self, trajectories: Trajectories, state: State, trial: Trial, tol: float, watch: Watch | None) -> State:
        """What is accepted is at u1, and left out if it could go on to the end; what is not accepted is where it was,
        with a shorter step.
        """
        moved = trial.revised - state.y
        stepped = trial.predicted + trial.corrections[:, 1] + moved  # of nearly all, so before the CPU waits for sizes
        sizes = self._sizes(trajectories, trial, moved)

        accepted = sizes.errors[:, 1] <= tol
        # Where it moves further than this step's correction, the slope has turned: no polynomial through both is right.
        smooth = sizes.shift <= self.revise * sizes.errors[:, 1]
        revised = choose(smooth | ~accepted, trial.revised, state.y)
        if revised is not trial.revised:
            stepped = trial.predicted + trial.corrections[:, 1] + (revised - state.y)
        trajectories.record(state.course.rows, trial.u1, trial.sigmas, accepted)
        state = State(
            course=self._next(state.course, trial, sizes, accepted, tol),
            y=choose(accepted, stepped, state.y),
            before=choose(accepted, revised, state.before),
            slopes=choose(accepted, trial.slopes[:, :-1], state.slopes),
        )
        trajectories.tell(state.course.rows, state.course.nodes[:, 0], state.y, watch)
        return self._arrive(trajectories, state, trial, sizes, accepted, tol)

    def _sizes(self, trajectories: Trajectories, trial: Trial, moved: Tensor) -> Sizes:
        """Wait for the device to say them."""
        parts = [trial.corrections, moved[:, None], *([] if trial.gaps is None else [trial.gaps])]
        sizes = fetched(torch.cat([trajectories.norms(part) for part in parts], 1)).numpy()
        sizes = sizes / math.sqrt(trajectories.size)
        errors = trajectories.weight(trial.sigmas)[:, None] * sizes[:, :4]
        return Sizes(errors[:, :3], errors[:, 3], trajectories.scale * sizes[:, 4:])

    def _next(self, course: Course, trial: Trial, sizes: Sizes, accepted: Mask, tol: float) -> Course:
        """How to go on, from where it has got to."""
        # How much longer than this step the next may be with each of the orders.
        longer = self.safety * power(self.aim * tol * (1 / np.maximum(sizes.errors, 1e-300)), ROOTS[trial.orders])
        longer[np.isnan(longer)] = 0.0
        longer[:, 1] *= 1.05  # another order must be worth the change
        longer[trial.orders == 0] = -1.0
        longer[~accepted, 2] = -1.0
        best = longer.argmax(1)
        order, growth = course.order + best - 1, longer[np.arange(len(best)), best]
        # After the first step nothing is known of order 2, but that it allows a longer one.
        first = accepted & (course.known == 1) & (self.most > 1)
        order, growth = np.where(first, 2, order), np.where(first, 1.5 * growth, growth)
        growth = np.where(accepted, growth, np.minimum(growth, 0.9)).clip(*self.growth)
        return Course(
            rows=course.rows,
            nodes=np.where(accepted[:, None], trial.nodes, course.nodes),
            known=np.where(accepted, trial.known, course.known),
            order=order,
            step=growth * abs(trial.u1 - course.nodes[:, 0]),
        )

    def _arrive(
        self, trajectories: Trajectories, state: State, trial: Trial, sizes: Sizes, accepted: Mask, tol: float
    ) -> State:
        """Take the last step of those at u1 for which three orders agree about its end; the others are left.

        Of a trial that was rejected nothing new is known about the end.
        """
        there, order = accepted & (trial.u1 == trajectories.end), np.minimum(trial.known, ORDERS)
        if trial.gaps is not None:
            # Two gaps in a row: in few dimensions one may be small by chance.
            gaps = np.maximum(sizes.gaps[:, 1:], sizes.gaps[:, :-1])
            gaps = np.where(np.arange(ORDERS, self.depth + 1) <= trial.known[:, None], gaps, math.inf)
            there |= accepted & (gaps.min(1) <= self.finish * tol)
            order = np.where(trial.known >= ORDERS, gaps.argmin(1) + ORDERS, order)
        if not there.any():
            return state
        done, (of_state, _) = state.take(there), trajectories.arrival
        weights = beside(trial.ends[there, order[there] - 1][:, None], done.slopes)
        trajectories.arrive(done.course.rows, of_state * done.y + combine(weights, done.slopes)[:, 0])
        return state.take(~there)


def of_orders(weights: Floats, orders: Counts) -> Floats:
    """(B, Q, K): of weights (B, N, K) for all orders those for `orders` (B, Q)."""
    found: Floats = weights[np.arange(len(orders))[:, None], orders]
    return found


def power(base: Floats, exponent: NDArray[np.floating]) -> Floats:
    """torch's, whose last digit NumPy's has not always."""
    found: Floats = torch.pow(torch.from_numpy(base), torch.from_numpy(exponent)).numpy()
    return found
