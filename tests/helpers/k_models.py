"""Models as samplers of k-diffusion ask them: a mixture in closed form, and what UIs put around one."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ddim_ode.models.analytic import GaussianMixture
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

Denoise = Callable[..., Tensor]

EDM = f64([10.0, 6.0, 3.5, 2.0, 1.2, 0.7, 0.4, 0.2, 0.1, 0.05, 0.0])
FLOW = f64([1.0, 0.93, 0.85, 0.76, 0.66, 0.55, 0.43, 0.31, 0.2, 0.1, 0.0])
OURS = ("adams2", "adams3", "adams4", "unipc_3", "dpm_solver_3", "sde_dpmpp_2m", "adaptive", "dopri5")


class CONST:
    """By this name ComfyUI's `model_sampling` says that it is of a flow."""


class FlowSampling(CONST):
    sigma_min, sigma_max = torch.tensor(0.001), torch.tensor(1.0)


class EdmSampling:
    sigma_min, sigma_max = torch.tensor(0.02), torch.tensor(10.0)


class ModelSamplingDiscrete:
    """By this name it says that it was trained on discrete timesteps."""

    def __init__(self, sigmas: Tensor):
        self.sigmas = sigmas.float()
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]


class KModel:
    """model(x, sigma) -> the image: the mixture's mean given x = x0 + sigma eps, or of a flow (1 - s) x0 + s eps.

    asked: sigma (B,) of every call. handed: x of every call.
    """

    def __init__(self, mixture: GaussianMixture, flow: bool = False):
        self.mixture, self.flow = mixture, flow
        self.inner_model = SimpleNamespace(model_sampling=FlowSampling() if flow else EdmSampling())
        self.asked: list[Tensor] = []
        self.handed: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor, **arguments: Any) -> Tensor:
        self.asked.append(sigma)
        self.handed.append(x)
        s, scale = sigma.double(), torch.ones(len(x), dtype=torch.float64)
        if self.flow:
            scale = (1 - s).clamp(min=1e-12)
            s = s / scale
        return self.mixture.denoise(x.double() / scale.reshape(-1, *[1] * (x.ndim - 1)), s)[0].to(x.dtype)

    def noisy(self, image: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        """The state of an image at s."""
        return (1 - s) * image + s * noise if self.flow else image + s * noise


class Inpainting:
    """Keep a part of an image: mixed into what the model is asked about, with its own noise, and into what it says."""

    def __init__(self, model: KModel, image: Tensor, noise: Tensor):
        self.inner_model, self.image, self.noise = model, image, noise

    def __call__(self, x: Tensor, sigma: Tensor, denoise_mask: Tensor, **arguments: Any) -> Tensor:
        s = sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        mixed = torch.where(denoise_mask > 0, x, self.inner_model.noisy(self.image, self.noise, s))
        return torch.where(denoise_mask > 0, self.inner_model(mixed, sigma, **arguments), self.image)


def solved(model: Denoise, x: Tensor, first: float, last: float, steps: int = 400) -> Tensor:
    """dx/ds = (x - D) / s in float64, by the classical Runge-Kutta method on even steps of atan s."""
    ends = torch.tensor([first, last], dtype=torch.float64).atan()
    nodes = torch.tan(ends[0] + torch.linspace(0, 1, steps + 1, dtype=torch.float64) * (ends[1] - ends[0]))

    def slope(x: Tensor, s: Tensor) -> Tensor:
        return (x - model(x, s.expand(len(x)))) / s

    for n in range(steps):
        a, b = nodes[n], nodes[n + 1]
        h = b - a
        k1 = slope(x, a)
        k2 = slope(x + h / 2 * k1, a + h / 2)
        k3 = slope(x + h / 2 * k2, a + h / 2)
        k4 = slope(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def begun(flow: bool, n: int = 3) -> tuple[KModel, Tensor]:
    """A model and pure noise at the first sigma, (n, 2, 3) float64."""
    return KModel(labelled(), flow), normal(n, 2, 3, seed=1) * (1.0 if flow else float(EDM[0]))


def grid(flow: bool) -> Tensor:
    """Ten steps to 0."""
    return FLOW if flow else EDM
