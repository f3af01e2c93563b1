"""A Gaussian of any covariance, its denoiser and Jacobian, and what it becomes when something is measured."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_ode.inverse import Measurement
from ddim_ode.models.analytic import MixtureNet
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import DiscreteVP, Path, f64


@dataclass(frozen=True, eq=False)
class Gaussian:
    """x ~ N(mean, covariance), mean (C, H, W) and covariance (D, D) in float64."""

    mean: Tensor
    covariance: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    def jacobian(self, sigma: float) -> Tensor:
        """d E[x | xbar] / d xbar = covariance (covariance + sigma^2 I)^-1."""
        return self.covariance @ torch.linalg.inv(self.covariance + sigma**2 * torch.eye(len(self.covariance)).double())

    def denoise(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        levels = f64(sigma).reshape(-1, 1, 1)
        eye = torch.eye(len(self.covariance), dtype=torch.float64)
        offset = (xbar - self.mean).flatten(1)[:, :, None]
        inverse = torch.linalg.solve(self.covariance + levels**2 * eye, offset)
        data = self.mean + (self.covariance @ inverse).reshape(xbar.shape)
        return data, (levels * inverse).reshape(xbar.shape)

    def denoiser(self, path: Path | None = None) -> Denoiser:
        path = DiscreteVP.linear() if path is None else path
        return Denoiser(MixtureNet(self, path, "noise"), path, "noise", self.shape, dtype=torch.float64)

    def posterior(self, matrix: Tensor, y: Tensor, noise_std: float) -> tuple[Tensor, Tensor]:
        """Mean (C, H, W) and covariance (D, D) given y = matrix x + noise_std n, by the textbook."""
        cross = self.covariance @ matrix.T
        seen = matrix @ cross + noise_std**2 * torch.eye(len(matrix), dtype=torch.float64)
        gain = cross @ torch.linalg.pinv(seen)
        mean = self.mean.flatten() + gain @ (y.flatten() - matrix @ self.mean.flatten())
        return mean.reshape(self.shape), self.covariance - gain @ cross.T


def matrix_of(operator: Measurement, shape: tuple[int, ...]) -> Tensor:
    """A linear operator, written out: (measured, D)."""
    count = torch.Size(shape).numel()
    basis = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    return operator.apply(basis).reshape(count, -1).T
