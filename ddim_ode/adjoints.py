"""How a gradient comes back along a solver's way, without anything kept of that way but its end.

`two_step` and `heun` rebuild the states of a solver that is its own inverse, one after the other, and take from each
evaluation a vector-Jacobian product. `AdjointFlow` is an ODE, for a solver to carry from the end to the start:

    dy/du = f(u, y),        dl/du = -(df/dy)' l,        dg/du = -(df/dp)' l             (Chen et al. 2018, Alg. 1)

where l is the loss's gradient in the state y, and g that in the parameters p.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddim_ode.errors import DDIMError
from ddim_ode.ode import ProbabilityFlow

QUIET = 2.0**-40  # unit of g in an adjoint state: it is to have no say in the choice of steps


class GradientError(DDIMError):
    """A gradient that cannot be had as asked."""


def recorded(f: Callable[[Tensor], Any], y: Tensor) -> tuple[Tensor, Any]:
    """y as a leaf, and f of it with a graph."""
    with torch.enable_grad():
        leaf = y.detach().requires_grad_()
        return leaf, f(leaf)


class Products:
    """Vector-Jacobian products of evaluations; `total` adds up those in the parameters.

    Raises GradientError for a tensor that would miss its gradient, such as a plain function may hold.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = tuple(parameters)
        self.total = [torch.zeros_like(p) for p in parameters]

    def __call__(self, out: Tensor, leaf: Tensor, cotangent: Tensor) -> Tensor:
        """In the leaf alone."""
        of_leaf, *rest = self.each(out, leaf, cotangent)
        for total, more in zip(self.total, rest, strict=True):
            total += more
        return of_leaf

    def each(self, out: Tensor, leaf: Tensor, cotangent: Tensor) -> tuple[Tensor, ...]:
        """In the leaf and in every parameter."""
        known, nodes, seen = {id(x) for x in (leaf, *self.parameters)}, [out.grad_fn], set()
        while nodes:
            if (node := nodes.pop()) is None or node in seen:
                continue
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
            if (held := getattr(node, "variable", None)) is not None and id(held) not in known:
                raise GradientError(
                    f"a tensor of shape {tuple(held.shape)} requires a gradient but is no parameter of the network"
                    "; make it one of an nn.Module, or use differentiable='direct'"
                )
        return torch.autograd.grad(out, (leaf, *self.parameters), cotangent, materialize_grads=True)


def two_step(
    solver: Any, ode: ProbabilityFlow, u: Tensor, kept: Sequence[Tensor], of_end: Tensor, products: Products
) -> tuple[Tensor, Tensor]:
    """The first state, and l in it. With y(n+1) = c y(n-1) + (1 - c) y(n) + d(y(n)), where y(-1) = y(0),

    l(n) += (1 - c) l(n+1) + d'(y(n))' l(n+1),        l(n-1) += c l(n+1)
    """
    numbers, (after, now) = solver.arithmetic, kept
    of_after, of_now = of_end, torch.zeros_like(of_end)
    for n in reversed(range(len(u) - 1)):
        leaf, (c, dy) = recorded(partial(solver.move, ode, (u[max(n - 1, 0)], u[n], u[n + 1])), numbers.leave(now))
        of_after, of_now = of_now + (1 - c) * of_after + products(dy, leaf, of_after), c * of_after
        before = after - numbers.increment(dy.detach())
        if c != 1:
            before = (before - (1 - c) * now) / c
        after, now = now, before
    return numbers.leave(after), of_after + of_now


def heun(
    solver: Any, ode: ProbabilityFlow, u: Tensor, kept: Sequence[Tensor], of_end: Tensor, products: Products
) -> tuple[Tensor, Tensor]:
    """As `two_step`, with m = y(n) + h/2 f(z(n)), z(n+1) = 2m - z(n), y(n+1) = m + h/2 f(z(n+1))."""
    numbers, (y, z) = solver.arithmetic, kept
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


class AdjointFlow(ProbabilityFlow):
    """(y, l) in a row for each sample, and g in further rows: a state for the solvers that ask for slopes alone."""

    def __init__(self, flow: ProbabilityFlow, parameters: Sequence[Tensor], like: Tensor):
        super().__init__(flow.model, flow.path, flow.domain)
        self.flow, self.products, self.like = flow, Products(parameters), like

    def __call__(self, u: Tensor, y: Tensor) -> Tensor:
        sample, of_sample, *_ = self.split(y)
        leaf, slope = recorded(partial(self.flow, u), sample)
        return self.join(slope.detach(), *self.products.each(slope, leaf, -of_sample))

    def join(self, y: Tensor, of_y: Tensor, *of_parameters: Tensor) -> Tensor:
        rows = torch.cat([y.flatten(1), of_y.flatten(1)], dim=1)
        flat = torch.cat([rows.new_zeros(0), *(QUIET * g.flatten().to(y) for g in of_parameters)])
        return torch.cat([rows, pad(flat, (0, -len(flat) % rows.shape[1])).reshape(-1, rows.shape[1])])

    def split(self, state: Tensor) -> tuple[Tensor, ...]:
        y, of_y = (half.reshape(self.like.shape) for half in state[: len(self.like)].chunk(2, dim=1))
        shapes = [p.shape for p in self.products.parameters]
        flat = state[len(self.like) :].flatten()[: sum(map(torch.Size.numel, shapes))] / QUIET
        each = flat.split([shape.numel() for shape in shapes]) if shapes else ()
        return y, of_y, *(g.reshape(shape) for g, shape in zip(each, shapes, strict=True))

    def enter(self, xbar: Tensor, sigma: Tensor | float) -> Tensor:
        return xbar

    def leave(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        return y
