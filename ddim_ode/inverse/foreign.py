"""Operators of other libraries: whatever has deepinv's `A`, `A_adjoint` and perhaps `A_dagger` (Tachella et al. 2025).

https://deepinv.github.io: `deepinv.physics.LinearPhysics`. Noise that it would add when called is left out; its level
is `noise_std` here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.inverse.measurements import LinearOperator, Measurement, MeasurementError, Ridge, home
from ddim_ode.models.conditions import digest
from ddim_ode.support.checks import ArgumentError, described


@dataclass(frozen=True, eq=False)
class Physics(LinearOperator):
    """A linear operator of deepinv's kind. Its normal equations are solved by conjugate gradients."""

    physics: Any

    @property
    def facts(self) -> tuple[object, ...]:
        """A module itself, as its weights tell it from others; of anything else its type, numbers and tensors."""
        if isinstance(self.physics, nn.Module):
            return (self.physics,)
        held = sorted(getattr(self.physics, "__dict__", {}).items())
        plain = [(name, value) for name, value in held if isinstance(value, bool | int | float | str)]
        tensors = [(name, digest(value)) for name, value in held if isinstance(value, Tensor)]
        return type(self.physics).__name__, *plain, *tensors

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            return tuple(self.apply(torch.zeros(1, *shape, device=home(self.physics))).shape[1:])
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise MeasurementError(
                f"{type(self.physics).__name__} cannot measure images of shape {shape}: {error}"
            ) from error

    def apply(self, x: Tensor) -> Tensor:
        found: Tensor = self.physics.A(x)
        return found

    def adjoint(self, y: Tensor) -> Tensor:
        found: Tensor = self.physics.A_adjoint(y)
        return found

    def pseudo_inverse(self, y: Tensor, ridge: Ridge = 0.0) -> Tensor:
        if isinstance(ridge, Tensor) or ridge or not hasattr(self.physics, "A_dagger"):
            return super().pseudo_inverse(y, ridge)
        found: Tensor = self.physics.A_dagger(y)
        return found


def as_operator(operator: object) -> Measurement:
    """The operator itself, or one of deepinv's kind as one of ours. Raises ArgumentError for anything else."""
    if isinstance(operator, Measurement):
        return operator
    if isinstance(operator, type) or not all(callable(getattr(operator, name, None)) for name in ("A", "A_adjoint")):
        raise ArgumentError(
            f"operator is {described(operator)}; give one such as Mask(known) or Blur.gaussian(1.5), or of deepinv's"
            " kind, with A and A_adjoint; Differentiable(f) is any other function"
        )
    return Physics(operator)
