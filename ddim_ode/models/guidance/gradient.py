"""A prediction and the gradient, in the noisy image, of a loss of the predicted image, by one vector-Jacobian product:

    g = d/dxbar sum_i loss(data(xbar))_i = J' grad loss(data),        J = d data / d xbar

A product v' J with vectors v of one's own is that of the loss (v data).sum.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, NonFiniteError, Prediction
from ddim_ode.models.failures import check_finite
from ddim_ode.models.guidance.around import GuidanceError

#: of predicted images (B, *shape), a number for each, (B,)
Loss = Callable[[Tensor], Tensor]
Found = TypeVar("Found")


class NonFiniteLossError(NonFiniteError):
    """A loss of the predicted image, or its gradient, is NaN or infinity."""

    what, remedy = "the loss or its gradient", "give a loss that is smooth on every image"


def with_gradient(model: Model, xbar: Tensor, sigma: Tensor, told: Told, loss: Loss) -> tuple[Prediction, Tensor]:
    """The model's prediction and the gradient in xbar of the sum of its data's losses, (B, *shape).

    The prediction's `evaluations` count the product as much as the prediction: twice what that cost. Both carry a graph
    where grad mode is on and something requires it: xbar, the network's weights or the loss's.

    Args:
        xbar: (B, *shape), float32 or float64.
        sigma: () or (B,), float64.
        loss: of data (B, *shape) the losses (B,), each of its own sample alone.

    Raises:
        GuidanceError: losses of another shape, or that do not depend on the data.
        NonFiniteLossError: a loss or its gradient that is not finite.
        NonFiniteError: from the network.
    """

    def losses(x: Tensor) -> tuple[Prediction, Tensor]:
        prediction = model(x, sigma, told)
        found = loss(prediction.data)
        check_losses(found, len(x))
        check_finite(found.detach(), sigma, NonFiniteLossError)
        return prediction, found

    prediction, gradient = differentiated(losses, xbar)
    check_finite(gradient.detach(), sigma, NonFiniteLossError)
    if not gradient.requires_grad:
        prediction = prediction._replace(data=prediction.data.detach(), noise=prediction.noise.detach())
    return prediction._replace(evaluations=2 * prediction.evaluations), gradient


def differentiated(losses: Callable[[Tensor], tuple[Found, Tensor]], xbar: Tensor) -> tuple[Found, Tensor]:
    """What a function finds besides losses (B,) of xbar, and the gradient of their sum in xbar.

    The gradient carries a graph if grad mode is on and xbar, or anything else that the losses are made of, requires it.
    """
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        x = xbar if recorded and xbar.requires_grad else xbar.detach().requires_grad_()
        found, values = losses(x)
        graph = recorded and (x is xbar or _needs_more(values, x))
        (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=graph)
    return found, gradient


def check_losses(losses: object, count: int) -> None:
    """Raise GuidanceError unless they are differentiable numbers, one a sample."""
    if not isinstance(losses, Tensor) or losses.shape != (count,) or not losses.is_floating_point():
        found = f"{losses.dtype} {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise GuidanceError(f"the loss of {count} images is {found}; it must return one float a sample, ({count},)")
    if not losses.requires_grad:
        raise GuidanceError("the loss does not depend on the predicted image; compute it from its argument, by torch")


def _needs_more(values: Tensor, x: Tensor) -> bool:
    """Whether the graph of some values begins at another tensor than x that requires a gradient."""
    todo, seen = [values.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", x) is not x:
            return True
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
    return False
