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
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.paths import f64
from ddim_ode.solvers.base import Adaptive, Control, Outcome, Watch
from ddim_ode.solvers.lagrange import combine, integrals, lagrange
from ddim_ode.solvers.weights import ddim

LARGE = 56**2  # numbers in an image, from which on its brightness is minded
SMALLEST = 1e-12  # step, in units of the interval


class State(NamedTuple):
    """The samples under way, first axis. Second axis of nodes and slopes: the newest first."""

    rows: Tensor  # (B,) which samples of the batch these are
    y: Tensor  # (B, *shape)
    before: Tensor  # (B, *shape) at the second node, revised
    nodes: Tensor  # (B, K) times of the slopes; y is at the first
    slopes: Tensor  # (B, K, *shape)
    known: Tensor  # (B,) how many of them there are
    order: Tensor  # (B,) how many the predictor uses
    step: Tensor  # (B,) > 0


def take(state: State, chosen: Tensor) -> State:
    """The samples that are chosen, (B,) bool."""
    return state if chosen.all() else State(*(x[chosen.to(x.device)] for x in state))


@dataclass(frozen=True)
class AdaptiveAdams(Adaptive):
    """Holds the last `most` slopes of each sample; a step needs memory of some 25 states for a while.

    It has a loop of its own, because every sample is at another sigma.

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
        state = self._first(trajectories, ode.enter(xbar, sigmas[0]), control)
        while len(state.rows):
            u0 = state.nodes[:, 0]
            way = trajectories.end - u0
            u1 = torch.where(state.step < way.abs(), u0 + state.step * way.sign(), trajectories.end)
            able = trajectories.affordable(state.rows, u1, control.max_nfe)
            able &= state.step > SMALLEST * (trajectories.end - trajectories.begin).abs()
            trajectories.abandon(take(state, ~able))
            state, u1 = take(state, able), u1[able]
            if len(state.rows):
                state = self._step(trajectories, state, u1, control.tol)
                trajectories.tell(state, watch)
                state = self._finish(trajectories, state, control.tol)
        return trajectories.outcome()

    def _first(self, trajectories: "Trajectories", y: Tensor, control: Control) -> State:
        count, rows, ones = len(y), torch.arange(len(y)), torch.ones(len(y), dtype=torch.int64)
        step, sigma = control.first_step, math.inf
        if step is None:
            size = trajectories.size
            step = min(math.sqrt(self.aim * control.tol), max(1.0, LARGE / size) / math.sqrt(size))
            sigma = 1 / max(self.ahead * step, SMALLEST)
        nodes = trajectories.begin.repeat(count, self.depth)  # where `before` is, until there is a second node
        slopes = y.new_zeros(count, self.depth, *y.shape[1:])
        nodes[:, 0], start, slopes[:, 0] = trajectories.start(rows, y, sigma, control.max_nfe)
        return State(rows, start, y, nodes, slopes, ones, ones, step * ones.double())

    def _step(self, trajectories: "Trajectories", state: State, u1: Tensor, tol: float) -> State:
        """Try to get to u1. What is accepted is there; what is not is where it was, with a shorter step."""
        u0, q = state.nodes[:, 0], state.order
        predicted = state.y + combine(integrals(state.nodes, q[:, None], u0, u1), state.slopes)[:, 0]
        slope = trajectories.evaluate(state.rows, u1, predicted)
        nodes = torch.cat([u1[:, None], state.nodes], 1)
        slopes = torch.cat([slope[:, None], state.slopes], 1)

        # What the new slope corrects at order q and at those next to it; 0 stands for one that cannot be.
        orders = torch.stack([q - 1, q, torch.where(q < state.known.clamp(max=self.most), q + 1, 0)], 1)
        weights = integrals(nodes, torch.where(orders > 0, orders + 1, 0), u0, u1)
        weights[..., 1:] -= integrals(state.nodes, orders, u0, u1)
        corrections = combine(weights, slopes)
        # The slope at u1 tells more of the step before than of this one, which lies at the edge of the polynomial.
        through = torch.minimum((q + 1).clamp(min=3), state.known + 1)[:, None]
        revised = state.before + combine(integrals(nodes, through, state.nodes[:, 1], u0), slopes)[:, 0]
        sizes = trajectories.weight(u1)[:, None] * trajectories.rms(
            torch.cat([corrections, (revised - state.y)[:, None]], 1)
        )
        errors, shift = sizes[:, :3], sizes[:, 3]
        # Where it moves further than this step's correction, the slope has turned: no polynomial through both is right.
        revised = choose(shift <= self.revise * errors[:, 1], revised, state.y)
        accepted = errors[:, 1] <= tol

        # How much longer than this step the next may be with each of them.
        longer = (self.safety * (self.aim * tol / errors.clamp(min=1e-300)) ** (1 / (orders + 1))).nan_to_num(nan=0.0)
        longer[:, 1] *= 1.05  # another order must be worth the change
        longer[orders == 0] = -1.0
        longer[~accepted, 2] = -1.0
        growth, best = longer.max(1)
        order = q + best - 1
        # After the first step nothing is known of order 2, but that it allows a longer one.
        first = accepted & (state.known == 1) & (self.most > 1)
        order, growth = torch.where(first, 2, order), torch.where(first, 1.5 * growth, growth)
        growth = torch.where(accepted, growth, growth.clamp(max=0.9)).clamp(*self.growth)

        trajectories.record(state.rows, u1, accepted)
        return State(
            rows=state.rows,
            y=choose(accepted, predicted + corrections[:, 1] + (revised - state.y), state.y),
            before=choose(accepted, revised, state.before),
            nodes=choose(accepted, nodes[:, :-1], state.nodes),
            slopes=choose(accepted, slopes[:, :-1], state.slopes),
            known=(state.known + accepted).clamp(max=self.depth),
            order=order,
            step=growth * (u1 - u0).abs(),
        )

    def _finish(self, trajectories: "Trajectories", state: State, tol: float) -> State:
        """Take the last step of those for which three orders agree about its end; the others are left."""
        of_state, of_slope = ddim(trajectories.ode.path, trajectories.end, trajectories.sigma)
        u0, end = state.nodes[:, 0], trajectories.end.expand(len(state.rows))
        orders = torch.arange(1, self.depth + 1).expand(len(state.rows), -1)
        possible = orders <= state.known[:, None]
        orders = torch.where(possible, orders, 0)
        weights = of_state * integrals(state.nodes, orders, u0, end)
        weights += of_slope * lagrange(state.nodes, orders, end[:, None])[..., 0]
        # Two gaps in a row: in few dimensions one may be small by chance.
        gaps = trajectories.scale * trajectories.rms(combine(weights.diff(dim=1), state.slopes))
        gaps = torch.where(possible[:, 2:], torch.maximum(gaps[:, 1:], gaps[:, :-1]), math.inf)
        least, best = gaps.min(1)
        there = (least <= self.finish * tol) | (u0 == trajectories.end)
        done, weights = take(state, there), weights[there, best[there] + 2]
        trajectories.arrive(done.rows, of_state * done.y + combine(weights[:, None], done.slopes)[:, 0])
        return take(state, ~there)


class Trajectories:
    """A batch under way: where its samples have been, what they have cost and where they have arrived."""

    def __init__(self, ode: ProbabilityFlow, xbar: Tensor, sigmas: Tensor, members: int = 1):
        self.members, self.size = members, xbar[0].numel() // members
        self.ode, self.sigma, self.first, self.last = ode, sigmas[-1], sigmas[0], sigmas[1]
        self.begin, self.end = ode.path.u(sigmas[:2])
        self.scale = ode.path.scale(self.sigma)  # makes an error at the end one in data units
        self.x = xbar.clone()
        self.nfe, self.rejected = torch.zeros(2, len(xbar), dtype=torch.int64)
        self.converged = torch.ones(len(xbar), dtype=torch.bool)
        self.visited = [[float(sigmas[0])] for _ in xbar]
        self.rounds = 0

    def evaluate(self, rows: Tensor, u: Tensor, y: Tensor) -> Tensor:
        """The slopes of those samples, counted."""
        part = self.ode.part(rows)
        try:
            slope = part(u, y)
        except NonFiniteError as error:
            error.step, error.sample = self.rounds + 1, int(rows[error.sample])
            raise
        self.nfe[rows] += part.nfe
        return slope

    def start(self, rows: Tensor, y: Tensor, sigma: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Time, state and slope at the first evaluation: at sigma if that is on the way down and no dearer than `most`,
        otherwise at the begin.

        y is the state at the begin; a DDIM step with what is predicted at sigma leads there. The network is asked at
        the state to which it would lead if the image were 0, all that is known of it.
        """
        if not self.last < sigma < self.first or self.ode.model.evaluations(sigma) > most:
            return self.begin, y, self.evaluate(rows, self.begin.expand(len(y)), y)
        u = self.ode.path.u(f64(sigma))
        (a0, b0), (a, b) = map(self.ode.path.coefficients, (self.begin, u))
        db = self.ode.path.slopes(u)[1]
        asked = b / b0 * y
        slope = self.evaluate(rows, u.expand(len(y)), asked)
        # The image that it predicts moves the state, and the slope with it.
        of_state, of_slope = ddim(self.ode.path, u, f64(0.0))
        moved = (a - b / b0 * a0) * (of_state * asked + of_slope * slope)
        return u, asked + moved, slope + db / b * moved

    def weight(self, u: Tensor) -> Tensor:
        """What an error of a state at time u counts, as one of the image that comes of it."""
        most = max(1.0, math.sqrt(self.size / LARGE))
        return (1 / self.ode.path.scale(self.ode.path.sigma(u))).clamp(max=most)

    def rms(self, y: Tensor) -> Tensor:
        """Root mean squares of y (B, Q, *shape), of the worst member, as (B, Q) float64 on the CPU where steps are
        decided.
        """
        size = torch.linalg.vector_norm(y.detach().reshape(*y.shape[:2], self.members, -1), dim=3)
        return size.to("cpu", torch.float64).amax(2) / math.sqrt(self.size)

    def affordable(self, rows: Tensor, u: Tensor, most: int) -> Tensor:
        """Whether each of them can still pay an evaluation at its time u."""
        costs = [self.ode.model.evaluations(sigma) for sigma in self.ode.path.sigma(u).tolist()]
        return self.nfe[rows] + torch.tensor(costs, dtype=torch.int64) <= most

    def record(self, rows: Tensor, u: Tensor, accepted: Tensor) -> None:
        self.rounds += 1
        self.rejected[rows] += ~accepted
        sigmas = torch.where(u == self.end, self.last, self.ode.path.sigma(u))[accepted]
        for row, sigma in zip(rows[accepted].tolist(), sigmas.tolist(), strict=True):
            self.visited[row].append(sigma)

    def tell(self, state: State, watch: Watch | None) -> None:
        if watch:
            u = state.nodes[:, 0]
            sigma = self.ode.path.sigma(u)
            self.x[state.rows.to(self.x.device)] = self.ode.leave(state.y, sigma)
            left = float(((self.end - u) / (self.end - self.begin)).sum()) / len(self.x)
            watch(self.rounds, 1 - left, float(sigma.max()), self.x.clone())

    def arrive(self, rows: Tensor, x: Tensor, converged: bool = True) -> None:
        for row in rows.tolist():
            if self.visited[row][-1] != float(self.sigma):
                self.visited[row].append(float(self.sigma))
        self.x[rows.to(x.device)] = x
        self.converged[rows] = converged

    def abandon(self, state: State) -> None:
        """The rest in one DDIM step, for which the slope is there already."""
        weights = ddim(self.ode.path, state.nodes[:, 0], self.sigma)
        of_state, of_slope = (along(w, state.y) for w in weights)
        self.arrive(state.rows, of_state * state.y + of_slope * state.slopes[:, 0], converged=False)

    def outcome(self) -> Outcome:
        steps = torch.tensor([len(sigmas) - 1 for sigmas in self.visited])
        sigmas = pad_sequence([f64(s) for s in self.visited], batch_first=True, padding_value=math.nan)
        return Outcome(self.x, self.nfe, steps, self.rejected, sigmas, self.converged)


def choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` for the samples of the mask (B,), `no` for the others."""
    return yes if mask.all() else torch.where(mask.to(yes.device).reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
