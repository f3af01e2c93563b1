"""Noise on samples, as pipelines ask their scheduler for it."""

import torch
from torch import Tensor

from ddim_ode.checkpoints.frames import Frame
from ddim_ode.integrations.handed import SchedulerError
from ddim_ode.integrations.plans import PipelinePlan
from ddim_ode.ode.flow import along
from ddim_ode.paths import f64
from ddim_ode.support.checks import of_kind

ROUNDED = 1e-5  # by which a timestep may lie outside of its range


def noised(
    frame: Frame, plan: PipelinePlan | None, exploding: bool, samples: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """a(t) x0 + b(t) eps for samples and noise (B, *shape) and timesteps (B,) or (1,), fractions included.

    It is x0 + sigma(t) eps where samples are xbar, which is to be exploding.

    A timestep of the plan stands for the sigma of that call, which a rounded one only nearly tells.

    Raises:
        SchedulerError: timesteps outside of the schedule, or not as many as samples.
        ArgumentError: no tensors.
    """
    for name, value in (("original_samples", samples), ("noise", noise), ("timesteps", timesteps)):
        of_kind(name, value, Tensor, "a tensor")
    t, path = timesteps.detach().double().cpu(), frame.path
    if noise.shape != samples.shape or t.ndim > 1 or t.numel() not in (1, len(samples)):
        raise SchedulerError(
            f"noise {tuple(noise.shape)} and timesteps {tuple(t.shape)} do not fit original_samples"
            f" {tuple(samples.shape)}; give noise of the same shape, and a timestep for each sample"
        )
    low, high = path.u(f64([path.sigma_min, path.sigma_max])).sort().values.tolist()
    if path.zero_terminal_snr:  # whose last timestep, pure noise, is beyond the path
        high = path.num_timesteps - 1
    if not ((t >= low - ROUNDED * (high - low)) & (t <= high + ROUNDED * (high - low))).all():
        raise SchedulerError(f"timesteps {float(t.min()):g} to {float(t.max()):g} must be within {low:g} to {high:g}")
    sigma = path.sigma(t)
    if plan:
        same = plan.timesteps.double() == t.reshape(-1, 1)
        found = torch.where(same.any(1), plan.calls[same.int().argmax(1)], sigma.reshape(-1))
        sigma = found.reshape(t.shape)
    a = path.scale(sigma)
    b = a * sigma
    if path.zero_terminal_snr:
        a, b = torch.where(t < high, a, 0.0), torch.where(t < high, b, 1.0)
    if exploding:
        a, b = torch.ones_like(a), sigma
    return along(a, samples) * samples + along(b, noise) * noise
