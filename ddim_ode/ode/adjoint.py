"""How a gradient comes back along a flow, without anything kept of the way but its end.

`Products` takes vector-Jacobian products of evaluations one by one, for solvers that rebuild their states.
`AdjointFlow` is an ODE, for a solver to carry from the end to the start:

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
from ddim_ode.ode.flow import ProbabilityFlow

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
        """The product in the leaf; those in the parameters are added to `total`."""
        of_leaf, *rest = self.each(out, leaf, cotangent)
        for total, more in zip(self.total, rest, strict=True):
            total += more
        return of_leaf

    def each(self, out: Tensor, leaf: Tensor, cotangent: Tensor) -> tuple[Tensor, ...]:
        """The products in the leaf and in every parameter."""
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
        rows = torch.cat([y.reshape(len(y), -1), of_y.reshape(len(of_y), -1)], dim=1)
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
