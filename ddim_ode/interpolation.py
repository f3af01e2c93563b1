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
from ddim_ode.planning.inputs import FEWER, SampleError, check_model
from ddim_ode.sampling import sample
from ddim_ode.solvers import Solution
from ddim_ode.support.checks import described, shown, whole
from ddim_ode.support.dtypes import FLOATS
from ddim_ode.support.resources import check_memory, room
from ddim_ode.support.tables import is_readable

PARALLEL = 1e-6  # radians: closer than that, or as close to opposite, there is no circle to follow
SHARES = "give shares of the way, such as [0, 0.5, 1]"
OF_VALUE = 24  # bytes while it is made: two products and their sum


def slerp(z0: Tensor, z1: Tensor, weights: Tensor | Sequence[float] | float) -> Tensor:
    """sin((1 - w) t) / sin t z0 + sin(w t) / sin t z1, with t the angle between the two.

    Args:
        z0, z1: (*shape), latents of one sample each; only z0 at w = 0 and only z1 at w = 1.
        weights: W numbers, or one.

    Returns (W, *shape) in the dtype of z0, or (*shape) of one weight.

    Raises:
        SampleError: shapes that differ, or latents that point in opposite directions.
    """
    for name, z in (("z0", z0), ("z1", z1)):
        _check_latents(name, z)
    if z0.shape != z1.shape:
        raise SampleError(f"latents of shapes {tuple(z0.shape)} and {tuple(z1.shape)} have nothing in between")
    if z0.device != z1.device:
        raise SampleError(f"latents on {z0.device} and {z1.device} have nothing in between; move them to one device")
    w = _weights(weights)
    need = max(1, w.numel()) * z0.numel() * OF_VALUE
    a, b = z0.double().flatten(), z1.double().flatten()
    cosine = float(a @ b / (a.norm() * b.norm()).clamp(min=torch.finfo(torch.float64).tiny))
    angle = torch.acos(f64(min(1.0, max(-1.0, cosine))))
    if angle > torch.pi - PARALLEL:
        raise SampleError("the latents point in opposite directions, with every way between them as short; use others")
    if angle < PARALLEL:
        shares = (1 - w, w)
    else:
        shares = (torch.sin((1 - w) * angle) / torch.sin(angle), torch.sin(w * angle) / torch.sin(angle))
    with room(need, f"{w.numel():,} latents of shape {tuple(z0.shape)}", FEWER, SampleError):
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
    _check_latents("ends", ends)
    if ends.ndim == 0 or len(ends) not in (2, 4):
        if ends.ndim == 0:
            raise SampleError("ends is a single number; give latents (2, *shape), or (4, *shape)")
        raise SampleError(f"{len(ends)} latents have no in-between; give 2 for a row of frames, or 4 for a square")
    if (frames := whole("frames", frames, SampleError)) < 2:
        raise SampleError(f"frames={frames} leaves one end out; use frames >= 2")
    count = frames ** (len(ends) // 2)
    need = count * ends[0].numel() * OF_VALUE
    check_memory(need, f"{count:,} latents of shape {tuple(ends.shape[1:])}", FEWER, SampleError)
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
    check_model(model)
    return sample(model, noise=between(ends.noise if isinstance(ends, Latent) else ends, frames), **options)


def _check_latents(name: str, z: Tensor) -> None:
    """Raise SampleError for what is no tensor of finite floats."""
    if not isinstance(z, Tensor):
        raise SampleError(f"{name} is {described(z)}; give a tensor of standard normals, such as Latent.noise")
    if z.device.type == "cpu" and is_readable(z):  # an expanded tensor may be more than there is of it
        check_memory(2 * z.numel(), f"{name} of shape {tuple(z.shape)}", FEWER, SampleError)
    if not is_readable(z) or z.dtype not in FLOATS or not z.isfinite().all():
        raise SampleError(f"{name}: the latents are not finite floats; give standard normals, such as Latent.noise")


def _weights(weights: Tensor | Sequence[float] | float) -> Tensor:
    """Numbers as float64. Raises SampleError for what is none."""
    if isinstance(weights, range):  # before a long one becomes a tensor
        check_memory(abs(weights.stop - weights.start) * OF_VALUE, f"weights={shown(weights)}", FEWER, SampleError)
    try:
        given = torch.as_tensor(weights)  # whose dtype says what they were
        w = f64(weights).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise SampleError(f"weights={shown(weights)} are no numbers; {SHARES}") from None
    if given.is_complex() or given.dtype == torch.bool or not is_readable(given) or not w.isfinite().all():
        raise SampleError(f"weights={shown(weights)} are not finite numbers; {SHARES}")
    return w
