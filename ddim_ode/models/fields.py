"""Images of any size that are known in closed form: Gaussian fields with the spectrum of natural images.

The power of natural images falls with a power of the frequency, nearly the second (Field 1987; van der Schaaf & van
Hateren 1996). In the cosine basis, and with brightness apart from colour, the covariance of such a field is taken to be
diagonal, lambda. Around one of K means m_k, for the coefficients c of xbar = x0 + sigma eps,

    p(c; sigma) = sum_k w_k N(c; m_k, lambda + sigma^2)

and E[x0 | xbar] follows as for any mixture. Of a single mean the flow is known, too:

    c(sigma1) - m = (c(sigma0) - m) sqrt((lambda + sigma1^2) / (lambda + sigma0^2))

so that a solver on it has a truth that no other solver has to find.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.analytic import MixtureNet, numbers
from ddim_ode.models.arguments import check_state, noise_level, sample_shape
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import Path, f64
from ddim_ode.support.checks import real, whole
from ddim_ode.support.resources import check_memory
from ddim_ode.support.seeds import generator

COLOUR = 0.05  # of the variance of an image is in each of the two channels of its colour
#: brightness and two channels of colour, of red, green and blue; orthonormal
CHANNELS = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / torch.tensor([[3], [2], [6]]).double().sqrt()


class GaussianField:
    """A mixture of Gaussians that have one spectrum and means of their own, computed in float64.

    Args:
        shape: (C, H, W) of an image. Three channels are red, green and blue; others are independent.
        std: standard deviation of a pixel about its mean, over images.
        power: the exponent by which the variance of a frequency falls; 2 is that of natural images.
        means: (K, *shape), by default one, of zeros.
        weights: K weights > 0, normalised to 1 (default: equal).

    Raises:
        DDIMError: a shape, number or mean that cannot be.
        ArgumentError: what no numbers can be made of.
    """

    num_classes = 0

    def __init__(
        self,
        shape: tuple[int, int, int],
        std: float = 0.5,
        power: float = 2.0,
        means: Tensor | None = None,
        weights: Tensor | None = None,
    ):
        self.shape = sample_shape(shape, DDIMError)
        if len(self.shape) != 3:
            raise DDIMError(f"shape={self.shape} is no image; give (C, H, W), such as (3, 64, 64)")
        std, power = real("std", std, DDIMError, 0, 1e6, "0.5"), real("power", power, DDIMError, 0, 10, "2")
        if not std > 0:
            raise DDIMError("std=0 is one image only; give a number > 0, such as 0.5")
        channels, height, width = self.shape
        self._bases = (CHANNELS if channels == 3 else torch.eye(channels).double(), cosines(height), cosines(width))
        self.spectrum = std**2 * math.prod(self.shape) * _shares(self.shape, power)
        given = torch.zeros(1, *self.shape) if means is None else numbers("means", means, "(K, *shape)")
        if given.shape[1:] != self.shape or not len(given) or not torch.isfinite(given).all():
            raise DDIMError(f"means has shape {tuple(given.shape)}; give finite numbers (K, {str(self.shape)[1:]}")
        self.means = given.double()
        self.weights = torch.ones(len(given)) if weights is None else numbers("weights", weights, "K weights")
        if self.weights.shape != (len(given),) or not ((self.weights > 0) & (self.weights < math.inf)).all():
            raise DDIMError(f"weights are not {len(given)} positive numbers, one for each mean")
        self.weights = self.weights.double() / self.weights.double().sum()
        self._centres = self.coefficients(self.means)

    def coefficients(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in the basis in which the covariance is diagonal."""
        return torch.einsum("bchw,Cc,Hh,Ww->bCHW", x.double(), *self._bases)

    def image(self, coefficients: Tensor) -> Tensor:
        """The inverse of `coefficients`."""
        return torch.einsum("bCHW,Cc,Hh,Ww->bchw", coefficients, *self._bases)

    def denoise(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(E[x0 | xbar], E[eps | xbar]), each (B, *shape) in float64.

        xbar (B, *shape); sigma a scalar or (B,), >= 0; there are no labels. Raises DDIMError for others.
        """
        offset, variance, log_joint = self._components(xbar, sigma)
        share = torch.softmax(log_joint, dim=1)[..., None, None, None]
        # Both as sums, neither as a difference of the other and xbar: at large sigma that would cancel.
        data = (share * (self._centres + self.spectrum / variance * offset)).sum(1)
        noise = noise_level(sigma, len(xbar), DDIMError, zero=True).reshape(-1, 1, 1, 1) * (
            share * offset / variance
        ).sum(1)
        return self.image(data), self.image(noise)

    def flow(self, xbar: Tensor, sigma0: float, sigma1: float) -> Tensor:
        """Where the probability flow carries xbar (B, *shape) from sigma0 to sigma1, exactly, in float64.

        Raises DDIMError for a mixture, of which no closed form is known.
        """
        if len(self.means) > 1:
            raise DDIMError(f"the flow of {len(self.means)} means has no closed form; give a field with one")
        check_state(xbar, self.shape, DDIMError)
        ends = (noise_level(sigma, 1, DDIMError, zero=True) ** 2 for sigma in (sigma1, sigma0))
        last, first = (self.spectrum + end for end in ends)
        return self.image(self._centres + (last / first).sqrt() * (self.coefficients(xbar) - self._centres))

    def log_density(self, xbar: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p(xbar; sigma) in nats, (B,) float64."""
        return torch.logsumexp(self._components(xbar, sigma)[2], dim=1)

    def sample(self, n: int, seed: int, sigma: float = 0.0) -> Tensor:
        """n exact samples of xbar at sigma, (n, *shape) float64."""
        n, seed = whole("n", n, DDIMError), whole("seed", seed, DDIMError, least=None)
        check_memory(32 * n * self.spectrum.numel(), f"{n:,} samples", "ask for fewer at a time", DDIMError)
        random = generator(seed)
        k = torch.multinomial(self.weights, n, replacement=True, generator=random)
        eps = torch.randn(n, *self.shape, dtype=torch.float64, generator=random)
        return self.means[k] + self.image(
            (self.spectrum + noise_level(sigma, 1, DDIMError, zero=True) ** 2).sqrt() * eps
        )

    def denoiser(self, path: Path, predicts: str = "noise") -> Denoiser:
        """The field as a network on `path` would say it: a `Denoiser` that is right everywhere."""
        return Denoiser(MixtureNet(self, path, predicts), path, predicts, self.shape, dtype=torch.float64)

    def _components(self, xbar: Tensor, sigma: Any) -> tuple[Tensor, Tensor, Tensor]:
        """c - m_k (B, K, *shape), variances that broadcast to it and log w_k N(c; m_k, .) (B, K)."""
        check_state(xbar, self.shape, DDIMError)
        variance = self.spectrum + noise_level(sigma, len(xbar), DDIMError, zero=True).reshape(-1, 1, 1, 1, 1) ** 2
        offset = self.coefficients(xbar)[:, None] - self._centres
        square = offset.square() / variance + torch.log(2 * math.pi * variance)
        return offset, variance, self.weights.log() - 0.5 * square.flatten(2).sum(2)


def cosines(n: int) -> Tensor:
    """The orthonormal discrete cosine transform of n numbers (DCT-II), (frequency, place)."""
    k, i = torch.arange(n).double()[:, None], torch.arange(n).double()
    rows = torch.cos(math.pi / n * k * (i + 0.5)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def _shares(shape: tuple[int, ...], power: float) -> Tensor:
    """The share of each coefficient in the variance of an image; they sum to 1."""
    channels, height, width = shape
    squares = (torch.arange(n).double() ** 2 for n in (height, width))  # of the frequency, in half waves an image
    rows, columns = squares
    falls = (1 + rows[:, None] + columns) ** (-power / 2)
    each = f64([1 - 2 * COLOUR, COLOUR, COLOUR]) if channels == 3 else torch.ones(channels).double() / channels
    return each[:, None, None] * falls / falls.sum()
