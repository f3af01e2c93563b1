"""Between two latents, or four: along the great circle (Shoemake 1985), as DDIM's Eq. 67 does.

A mixture of normals by straight lines would be shorter than a normal, and what it decodes to washed out.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddim_ode.latents import Latent
from ddim_ode.models.denoiser import Model
from ddim_ode.paths import f64
from ddim_ode.planning.inputs import SampleError, whole
from ddim_ode.sampling import sample
from ddim_ode.solvers import Solution

PARALLEL = 1e-6  # radians: closer than that, or as close to opposite, there is no circle to follow


def slerp(z0: Tensor, z1: Tensor, weights: Tensor | Sequence[float] | float) -> Tensor:
    """sin((1 - w) t) / sin t z0 + sin(w t) / sin t z1, with t the angle between the two.

    Args:
        z0, z1: (*shape), latents of one sample each; only z0 at w = 0 and only z1 at w = 1.
        weights: W numbers, or one.

    Returns (W, *shape) in the dtype of z0, or (*shape) of one weight.

    Raises:
        SampleError: shapes that differ, or latents that point in opposite directions.
    """
    if z0.shape != z1.shape:
        raise SampleError(f"latents of shapes {tuple(z0.shape)} and {tuple(z1.shape)} have nothing in between")
    if not (z0.is_floating_point() and z1.is_floating_point() and (z0 + z1).isfinite().all()):
        raise SampleError("the latents are not finite floats; give standard normals, such as Latent.noise")
    w = f64(weights)
    a, b = z0.double().flatten(), z1.double().flatten()
    cosine = float(a @ b / (a.norm() * b.norm()).clamp(min=torch.finfo(torch.float64).tiny))
    angle = torch.acos(f64(min(1.0, max(-1.0, cosine))))
    if angle > torch.pi - PARALLEL:
        raise SampleError("the latents point in opposite directions, with every way between them as short; use others")
    if angle < PARALLEL:
        shares = (1 - w, w)
    else:
        shares = (torch.sin((1 - w) * angle) / torch.sin(angle), torch.sin(w * angle) / torch.sin(angle))
    first, second = (share.reshape(*w.shape, *[1] * z0.ndim).to(z0.device) for share in shares)
    return (first * z0.double() + second * z1.double()).to(z0.dtype)


def between(ends: Tensor, frames: int = 11) -> Tensor:
    """Latents from end to end: (frames, *shape) of two, (frames * frames, *shape) row by row of four corners.

    Args:
        ends: (2, *shape), or (4, *shape): top left, top right, bottom left, bottom right.
        frames: how many on a side, both ends included; at least 2.

    Raises:
        SampleError: another number of ends or frames.
    """
    if len(ends) not in (2, 4):
        raise SampleError(f"{len(ends)} latents have no in-between; give 2 for a row of frames, or 4 for a square")
    if whole("frames", frames) < 2:
        raise SampleError(f"frames={frames} leaves one end out; use frames >= 2")
    weights = torch.linspace(0, 1, frames, dtype=torch.float64)
    if len(ends) == 2:
        return slerp(ends[0], ends[1], weights)
    left, right = slerp(ends[0], ends[2], weights), slerp(ends[1], ends[3], weights)
    return torch.cat([slerp(a, b, weights) for a, b in zip(left, right, strict=True)])


def interpolate(model: Model, ends: Tensor | Latent, frames: int = 11, **options: Any) -> Solution:
    """Samples from the latents `between` the ends.

    Args:
        model: a `Denoiser`, or something around one.
        ends: standard normals (2 or 4, *shape), or a `Latent`, of which the noise is taken.
        frames: how many on a side, both ends included.
        options: those of `sample`, but for seeds, noise and start.

    Raises as `between` and `sample`.
    """
    return sample(model, noise=between(ends.noise if isinstance(ends, Latent) else ends, frames), **options)
