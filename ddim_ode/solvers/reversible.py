"""Solvers that can be run backwards, so that an image becomes a latent and comes back.

Each of these carries a pair of states, and the step that leads from one pair to the next can be solved for the former.
In floating point that holds up to rounding, which the way back may amplify. On a *lattice* it holds to the last bit:
states are 64-bit integers in units of 2^-52, every increment is rounded to an integer once, and what was added is
subtracted again. That asks one thing of the network: the same input must give the same output.

    leapfrog          y(n+1) = y(n-1) + (u(n+1) - u(n-1)) f(y(n), u(n)), begun with an Euler step
    reversible Heun   m = y + h/2 f(z, u),  z' = 2m - z,  y' = m + h/2 f(z', u')     (Kidger et al. 2021)
    EDICT             two chains that take turns and are mixed after every step      (Wallace et al. 2023)
    BDIA              the leapfrog with a and b as exact differences, gamma = 1      (Zhang et al. 2023)
    O-BELM            the leapfrog of order 2 on unequal steps of sigma              (Wang et al. 2024)

All but EDICT are their own inverse: `step` from a later time to an earlier one undoes it.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.ode.adjoint import Products, recorded
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.solvers.base import Reversible, Solver, Step
from ddim_ode.solvers.lattice import FLOATS, LATTICE, Floats, Lattice


class Two(NamedTuple):
    """Where a two-step method is, where it was, and on the way back where it is known to go."""

    now: Tensor
    before: Tensor | None = None
    u_before: Tensor | None = None
    after: Tensor | None = None


@dataclass(frozen=True)
class TwoStep(Reversible):
    """y(n+1) from y(n-1) and one evaluation at y(n). The first step is one of Euler, the same evaluation from y(0)."""

    arithmetic: Floats | Lattice = FLOATS

    @property
    def exact(self) -> bool:
        return isinstance(self.arithmetic, Lattice)

    @abstractmethod
    def move(self, ode: ProbabilityFlow, u: tuple[Tensor, Tensor, Tensor], y: Tensor) -> tuple[float, Tensor]:
        """(c, dy) of y(n+1) = c y(n-1) + (1 - c) y(n) + dy, for times u(n-1), u(n), u(n+1) and y(n)."""

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Two:
        return Two(self.arithmetic.enter(y))

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Two) -> Step:
        numbers = self.arithmetic
        if state.after is not None:
            return Step(numbers.leave(state.after), Two(state.after, state.now, u0))
        before, u_before = state.now, u0  # the first step
        if state.before is not None and state.u_before is not None:
            before, u_before = state.before, state.u_before
        share, dy = self.move(ode, (u_before, u0, u1), numbers.leave(state.now))
        new = before + numbers.increment(dy)
        if share != 1:
            new = new + (1 - share) * (state.now - before)
        new = numbers.check(new)
        return Step(numbers.leave(new), Two(new, state.now, u0))

    def keep(self, state: Two) -> tuple[Tensor, Tensor]:
        return state.now, state.now if state.before is None else state.before

    def resume(self, ode: ProbabilityFlow, sigmas: Tensor, kept: tuple[Tensor, Tensor]) -> Step:
        return Step(self.arithmetic.leave(kept[0]), Two(kept[0], after=kept[1]))

    def pullback(
        self, ode: ProbabilityFlow, u: Tensor, kept: tuple[Tensor, ...], of_end: Tensor, products: Products
    ) -> tuple[Tensor, Tensor]:
        """The first state, and l in it. With y(n+1) = c y(n-1) + (1 - c) y(n) + d(y(n)), where y(-1) = y(0),

        l(n) += (1 - c) l(n+1) + d'(y(n))' l(n+1),        l(n-1) += c l(n+1)
        """
        numbers, (after, now) = self.arithmetic, kept
        of_after, of_now = of_end, torch.zeros_like(of_end)
        for n in reversed(range(len(u) - 1)):
            leaf, (c, dy) = recorded(partial(self.move, ode, (u[max(n - 1, 0)], u[n], u[n + 1])), numbers.leave(now))
            of_after, of_now = of_now + (1 - c) * of_after + products(dy, leaf, of_after), c * of_after
            before = after - numbers.increment(dy.detach())
            if c != 1:
                before = (before - (1 - c) * now) / c
            after, now = now, before
        return numbers.leave(after), of_after + of_now


@dataclass(frozen=True)
class Leapfrog(TwoStep):
    """The leapfrog on the lattice, in the time of the path."""

    arithmetic: Floats | Lattice = LATTICE

    def move(self, ode: ProbabilityFlow, u: tuple[Tensor, Tensor, Tensor], y: Tensor) -> tuple[float, Tensor]:
        return 1.0, (u[2] - u[0]) * ode(u[1], y)


@dataclass(frozen=True)
class BDIA(TwoStep):
    """The DDIM step onwards less the DDIM step back, both from y(n); gamma = 1, the value for editing."""

    def move(self, ode: ProbabilityFlow, u: tuple[Tensor, Tensor, Tensor], y: Tensor) -> tuple[float, Tensor]:
        sigma = ode.path.sigma(u[1])
        data, noise, _ = ode.predict(ode.leave(y, sigma), sigma)
        (a0, b0), (a2, b2) = ode.path.coefficients(u[0]), ode.path.coefficients(u[2])
        return 1.0, float(a2 - a0) * data + float(b2 - b0) * noise


@dataclass(frozen=True)
class BELM(TwoStep):
    """O-BELM: the weights that make the two-step formula of order 2 on steps of any size."""

    def move(self, ode: ProbabilityFlow, u: tuple[Tensor, Tensor, Tensor], y: Tensor) -> tuple[float, Tensor]:
        h0, h1 = float(u[1] - u[0]), float(u[2] - u[1])
        if h0 == 0:
            return 1.0, h1 * ode(u[1], y)
        return (h1 / h0) ** 2, h1 * (h0 + h1) / h0 * ode(u[1], y)


class HeunPair(NamedTuple):
    y: Tensor
    z: Tensor
    slope: Tensor | None = None  # at z, once it is known


@dataclass(frozen=True)
class ReversibleHeun(Reversible):
    """Heun's method in which the evaluations follow a chain of their own: one a step, and one to begin."""

    arithmetic: Floats | Lattice = FLOATS

    @property
    def exact(self) -> bool:
        return isinstance(self.arithmetic, Lattice)

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> HeunPair:
        y = self.arithmetic.enter(y)
        return HeunPair(y, y)

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: HeunPair) -> Step:
        numbers, half = self.arithmetic, (u1 - u0) / 2
        slope = ode(u0, numbers.leave(state.z)) if state.slope is None else state.slope
        middle = state.y + numbers.increment(half * slope)
        z = numbers.check(2 * middle - state.z)
        slope = ode(u1, numbers.leave(z))
        new = numbers.check(middle + numbers.increment(half * slope))
        return Step(numbers.leave(new), HeunPair(new, z, slope))

    def keep(self, state: HeunPair) -> tuple[Tensor, Tensor]:
        return state.y, state.z

    def resume(self, ode: ProbabilityFlow, sigmas: Tensor, kept: tuple[Tensor, Tensor]) -> Step:
        return Step(self.arithmetic.leave(kept[0]), HeunPair(*kept))

    def pullback(
        self, ode: ProbabilityFlow, u: Tensor, kept: tuple[Tensor, ...], of_end: Tensor, products: Products
    ) -> tuple[Tensor, Tensor]:
        """The first state, and l in it, with m = y(n) + h/2 f(z(n)), z(n+1) = 2m - z(n), y(n+1) = m + h/2 f(z(n+1))."""
        numbers, (y, z) = self.arithmetic, kept
        of_y, of_z, of_slope, half = of_end, torch.zeros_like(of_end), torch.zeros_like(of_end), torch.zeros(())
        for n in reversed(range(len(u))):
            leaf, slope = recorded(partial(ode, u[n]), numbers.leave(z))
            y = y - numbers.increment(half * slope.detach())  # from the m of the step that begins here
            half = (u[n] - u[max(n - 1, 0)]) / 2
            of_z = of_z + products(slope, leaf, of_slope + half * of_y)
            if n:
                y = y - numbers.increment(half * slope.detach())  # the m of the step that ends here
                z = 2 * y - z
                of_y = of_y + 2 * of_z
                of_z, of_slope = -of_z, half * of_y
        return numbers.leave(y), of_y + of_z


class Chains(NamedTuple):
    x: Tensor
    y: Tensor
    turn: int  # of the step to come, counted from the noise


@dataclass(frozen=True)
class EDICT(Reversible):
    """Exact diffusion inversion by coupled transformations: two evaluations a step. The path is variance-preserving.

    The chains take turns in moving first, as in the authors' code.

    mix: the share p of its own chain that each keeps after a step. Downwards it draws the chains together, by p^2 a
    step; on the way up it drives them apart, so that a hundred steps multiply what is left of a difference by 2e6.
    """

    mix: float = 0.93

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Chains:
        return Chains(y, y, _first_turn(sigmas))

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Chains) -> Step:
        (x, y, turn), p = state, self.mix
        down = bool(ode.path.sigma(u1) < ode.path.sigma(u0))
        high, low = (u0, u1) if down else (u1, u0)
        (a0, b0), (a1, b1), sigma = ode.path.coefficients(high), ode.path.coefficients(low), ode.path.sigma(high)
        a = float(a1 / a0)
        b = float(b1) - float(b0) * a

        def eps(y: Tensor) -> Tensor:
            return ode.predict(ode.leave(y, sigma), sigma).noise

        if down:  # the published step
            first, second = (y, x) if turn % 2 else (x, y)
            first = a * first + b * eps(second)
            second = a * second + b * eps(first)
            x, y = (second, first) if turn % 2 else (first, second)
            x = p * x + (1 - p) * y
            y = p * y + (1 - p) * x
        else:  # the step that it undoes
            y = (y - (1 - p) * x) / p
            x = (x - (1 - p) * y) / p
            first, second = (y, x) if turn % 2 else (x, y)
            second = (second - b * eps(first)) / a
            first = (first - b * eps(second)) / a
            x, y = (second, first) if turn % 2 else (first, second)
        return Step(x, Chains(x, y, turn + 1 if down else turn - 1))

    def keep(self, state: Chains) -> tuple[Tensor, Tensor]:
        return state.x, state.y

    def resume(self, ode: ProbabilityFlow, sigmas: Tensor, kept: tuple[Tensor, Tensor]) -> Step:
        return Step(kept[0], Chains(*kept, _first_turn(sigmas)))


def _first_turn(sigmas: Tensor) -> int:
    """The number of the first step on a grid, if the steps on it are counted from the noise."""
    return 0 if sigmas[0] > sigmas[-1] else len(sigmas) - 2


@dataclass(frozen=True)
class FixedPoint:
    """`solver`, a one-step method, towards the image; upwards the inverse of that step, by fixed-point iteration.

    y1 = y1 + (y0 - step(y1)), so many times, from y1 = y0 (Pan et al. 2023, AIDI; Meiri et al. 2023). The slope's
    derivative is about 1/u at worst, where the data leave no freedom, and an iteration then leaves (u1 - u0) / u1 of an
    error: on `flow`, where u < 1, a part of it even at the largest sigmas; on `noise` nearly all of it there.
    """

    solver: Solver
    iterations: int = 5

    to_zero = False

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: None) -> Step:
        sigma0, sigma1 = ode.path.sigma(u0), ode.path.sigma(u1)
        if sigma1 < sigma0:
            return Step(self._down(ode, u0, u1, y), None)
        found = y
        for _ in range(self.iterations):
            found = found + (y - self._down(ode, u1, u0, found))
        return Step(found, None)

    def _down(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor) -> Tensor:
        sigmas = torch.stack([ode.path.sigma(u0), ode.path.sigma(u1)])
        return self.solver.step(ode, u0, u1, y, self.solver.init(ode, sigmas, y)).y
