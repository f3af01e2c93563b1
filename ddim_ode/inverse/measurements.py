"""What was measured of an image, y = A x + s n with n standard normal, and what an operator A must be able to do.

A linear one knows its adjoint A' and solves its normal equations, from which everything else follows:

    solve(y, ridge) = (A A' + ridge I)^+ y          pseudo_inverse(y, ridge) = A' (A A' + ridge I)^+ y

With ridge = s^2 / r^2 the latter is the best linear estimate of x ~ N(0, r^2 I) from y; with ridge = 0 it is A^+ y.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddim_ode.errors import DDIMError
from ddim_ode.inverse.conjugate import conjugate_gradients
from ddim_ode.models.conditions import digest
from ddim_ode.support.checks import ArgumentError, described, shown
from ddim_ode.support.scalars import number
from ddim_ode.support.tables import is_readable

Ridge = float | Tensor  # >= 0, one for all samples or (B, 1, 1, 1)


class MeasurementError(DDIMError):
    """A measurement that cannot be, or does not fit the images; the message gives the value, the rule, the remedy."""


class Measurement(ABC):
    """Anything differentiable that can be measured of images x (B, *shape), sample by sample."""

    @property
    def facts(self) -> tuple[object, ...]:
        """What tells it from another of its kind, for the `fingerprint` of a model that knows what was measured."""
        return tuple(digest(part) if isinstance(part, Tensor) else part for part in vars(self).values())

    @abstractmethod
    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is measured of one image of that shape. Raises MeasurementError where none can be."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """y = A x without noise, (B, *measured), of images (B, *shape)."""

    @abstractmethod
    def derivative(self, x: Tensor, v: Tensor) -> Tensor:
        """By how much the measurement of x changes along v (B, *shape), to first order: A v, of a linear one."""

    @abstractmethod
    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        """(A A' + ridge I)^+ y; what is not linear answers y itself, as if A A' were I."""

    def count(self, shape: tuple[int, ...]) -> int:
        """How many numbers are measured of one image."""
        return math.prod(self.measured(shape))

    def seen(self, y: Tensor) -> Tensor:
        """y (B, *measured) without what in it was not measured."""
        return y

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """RMS of y - A x over what was measured, (B,) float64."""
        missing = (self.seen(y).double() - self.apply(x).double()).flatten(1).square().sum(1)
        return (missing / self.count(tuple(x.shape[1:]))).sqrt()


class LinearOperator(Measurement):
    """A linear measurement. `solve` is by conjugate gradients unless a class knows better."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A' y (B, *shape), so that <A x, y> = <x, A' y>."""

    def derivative(self, x: Tensor, v: Tensor) -> Tensor:
        return self.apply(v)

    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        """(A A' + ridge I)^+ y (B, *measured): each sample to a relative residual of rounding, or in 200 iterations."""
        return conjugate_gradients(lambda v: self.apply(self.adjoint(v)) + ridge * v, y)

    def pseudo_inverse(self, y: Tensor, ridge: Ridge = 0.0) -> Tensor:
        """A' (A A' + ridge I)^+ y (B, *shape), the smallest image that explains y, or as much of it as is not noise."""
        return self.adjoint(self.solve(y, ridge))

    def agree(self, x: Tensor, y: Tensor) -> Tensor:
        """The image nearest to x whose measurement is y, x + A^+ (y - A x)."""
        return x + self.pseudo_inverse(y - self.apply(x))


@dataclass(frozen=True, eq=False)
class Differentiable(Measurement):
    """A function of images that torch can differentiate: x (B, *shape) -> y (B, ...). No adjoint is asked of it."""

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            raise ArgumentError(f"function is {described(self.function)}; give one from images to what is measured")

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            y = self.apply(torch.zeros(1, *shape, device=home(self.function)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise MeasurementError(f"the function cannot measure images of shape {shape}: {error}") from error
        return tuple(y.shape[1:])

    def apply(self, x: Tensor) -> Tensor:
        y = self.function(x)
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 1 or len(y) != len(x):
            found = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else described(y)
            raise MeasurementError(f"the function measured {found} of {len(x)} images; return floats ({len(x)}, ...)")
        return y

    def derivative(self, x: Tensor, v: Tensor) -> Tensor:
        """Forward derivative as that of a backward one, which more of torch's functions have than their own.

        Raises MeasurementError where there is none but 0, as of rounding.
        """
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            y = self.apply(at)
            dual = torch.zeros_like(y, requires_grad=True)
            (back,) = torch.autograd.grad(y, at, dual, create_graph=True)
            if not back.requires_grad:
                raise MeasurementError(
                    "the function's derivative is 0 on every image, as that of rounding is; leave such steps out"
                )
            (found,) = torch.autograd.grad(back, dual, v)
        return found.detach()

    def solve(self, y: Tensor, ridge: Ridge) -> Tensor:
        return y


def home(operator: object) -> torch.device:
    """Where a module of other people's takes images: where its first tensor is; the CPU for anything else."""
    tensors = [*operator.parameters(), *operator.buffers()] if isinstance(operator, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def checked_noise(noise_std: object) -> float:
    """The standard deviation of a measurement's noise as a float. Raises MeasurementError for what cannot be one."""
    found = number(noise_std)
    if not 0 <= found < math.inf:
        raise MeasurementError(f"noise_std={shown(noise_std)} must be a finite number >= 0, in data units")
    return found


def check_measurement(operator: Measurement, y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """y, if it can have been measured of images of that shape: finite floats (B, *measured), and nothing else in it.

    Raises MeasurementError, and ArgumentError for what is no tensor.
    """
    wanted = operator.measured(shape)
    rule = f"a tensor (B{''.join(f', {n}' for n in wanted)})"
    if not isinstance(y, Tensor):
        raise ArgumentError(f"y is {described(y)}; give {rule}")
    if not is_readable(y) or not y.is_floating_point():
        raise MeasurementError(f"y is {described(y)} of {y.dtype}; give floats, {rule}")
    if tuple(y.shape[1:]) != wanted or y.ndim < 1 or not len(y):
        raise MeasurementError(f"y has shape {tuple(y.shape)}; of images {shape} this operator measures {rule}")
    y = operator.seen(y.detach())
    wrong = ~torch.isfinite(y.reshape(len(y), -1)).all(1)
    if wrong.any():
        raise MeasurementError(f"y[{int(wrong.nonzero()[0])}] holds NaN or infinity; give finite numbers")
    return y
