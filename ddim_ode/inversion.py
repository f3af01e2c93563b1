"""From an image to its latent and back: the probability flow followed upwards, and downwards again.

An image is taken as xbar at the model's smallest sigma. Any deterministic method can go both ways; what `invertible`
ones encode they decode up to rounding, and `exact_heun` and `leapfrog`, whose states are integers, to the last bit
(see `solvers.reversible`).

That needs a network which answers the same question with the same bits. On one machine it does, as long as the batch
around a sample, the precision, the device and the number of threads stay the same; so a latent remembers them, and
`decode` uses them again, but for the device, which is the model's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddim_ode.data import to_float, to_uint8
from ddim_ode.grids import Grid
from ddim_ode.latents import Latent, LatentError
from ddim_ode.models.conditional import is_fast
from ddim_ode.models.conditions import Conditions, labels_of
from ddim_ode.models.denoiser import Model
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.inputs import Labels, SampleError, asked, check_callback, check_data, check_model, check_size
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback, prepare
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.solvers import Method, MethodError, Outcome, Solution, Watch
from ddim_ode.support.checks import described, flag
from ddim_ode.support.process import computing


def encode(
    model: Model,
    x: Tensor,
    method: str | Method = "exact_heun",
    nfe: int | None = None,
    *,
    labels: Labels = None,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    grid: Grid | None = None,
    tol: float | None = None,
    max_nfe: int | None = None,
    deterministic: bool = False,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Latent:
    """Follow the probability flow from images to latents.

    Args:
        model: a `Denoiser`, or something around one.
        x: (B, *shape) images in [-1, 1], or their bytes as uint8; any data for a model of other data.
        method: a deterministic one. `exact_heun` and `leapfrog` bring bytes and float32 images back bit for bit (values
            closer to 0 than 2^-27 to 1e-16), and float64 images, with dtype=torch.float64, to 3e-16.
        nfe: the most network evaluations that encoding a sample may cost (default 20); not for adaptive methods.
        labels, conditions, null, guidance, guidance_range, max_nfe, dtype, callback: as in `sample`.
        grid: a name in `GRIDS`, or decreasing sigmas, of which the last is that of the images (default: sigma_min).
            None is near_image for a method whose steps can be undone, and the method's own for another.
        tol: the error to accept with an adaptive method, which is one way's: both ways add up.
        deterministic: evaluate every sample alone and with torch's deterministic algorithms, so that it can be
            decoded among others. It costs the speed of batches.
        batch_size: samples integrated at once (default: up to 128). The same is used to decode.

    Raises:
        SampleError, MethodError, GridError, GuidanceError, ConditionError: arguments that cannot be, images of another
            shape or range.
        NonFiniteError, DivergedError: as in `sample`.
    """
    options = SolveOptions(
        method=resolved(model, method),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        grid=grid,
        final="sigma_min",
        guidance=guidance,
        guidance_range=guidance_range,
        dtype=dtype,
        batch_size=batch_size,
    )
    told = asked(model, labels, conditions, null)
    return encode_with(model, x, options, labels=told, deterministic=deterministic, callback=callback)


def encode_with(
    model: Model,
    x: Tensor,
    options: SolveOptions,
    *,
    labels: Labels | Conditions = None,
    deterministic: bool = False,
    callback: Callback | None = None,
) -> Latent:
    """Encode images as `encode` does, with the options in one value."""
    _check_run(model, deterministic, callback)
    method = options.row
    if not method.deterministic:
        raise MethodError(
            f"{options.name} draws noise on its way, so nothing can be encoded; use 'exact_heun' or 'ddim'"
        )
    if deterministic:
        if options.batch_size not in (None, 1):
            size = options.batch_size
            raise SampleError(f"batch_size={size} contradicts deterministic, which takes one sample at a time")
        options = replace(options, batch_size=1)
    working = torch.float64 if method.exact else options.dtype
    images = as_floats(model, x)
    check_size(model, len(images), working, None, "latents")
    plan = prepare(model, options, len(images), labels=labels, upward=True)

    def go(rows: slice, watch: Watch | None) -> Outcome:
        return plan.run(plan.flow(rows), images[rows].to(plan.model.device, working), watch)

    with computing(deterministic=deterministic):
        ends = plan.each(len(images), go, callback)
    sigmas = plan.sigmas.flip(0)
    return Latent(
        states=tuple(torch.cat(parts) for parts in zip(*(end.kept for end in ends), strict=True)),
        sigmas=sigmas,
        nfe=torch.cat([end.nfe for end in ends]),
        converged=torch.cat([end.converged for end in ends]),
        labels=labels_of(plan.labels),
        conditions=plan.labels.with_labels(None) if isinstance(plan.labels, Conditions) else None,
        options=replace(options, nfe=None, grid=None, tol=plan.tol, batch_size=plan.batch_size),
        threads=torch.get_num_threads(),
        device=plan.model.device.type,
        prior=float(plan.model.path.prior_std(sigmas[0])),
        model=fingerprint(model),
        fast=is_fast(model),
    )


def decode(
    model: Model,
    latent: Latent,
    *,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    deterministic: bool = False,
    callback: Callback | None = None,
) -> Solution:
    """Follow the way back that a latent has come: its method, grid, labels, guidance, batches and threads.

    Args:
        model: the one that encoded it.
        latent: of `encode`, or of `Latent.load`.
        conditions, null: those that it was encoded under, of a latent from a file, which holds digests of them alone.
        deterministic: one sample at a time and by torch's deterministic algorithms, as in `encode`.
        callback: called with a `Progress` after every step.

    Returns:
        A `Solution` whose x are the images that were encoded, up to the method's error; without one if it is exact.

    Raises:
        LatentError: the latent of another model, or of other conditions.
        NonFiniteError, DivergedError: as in `sample`.
    """
    _check_run(model, deterministic, callback)
    check_latent(model, latent)
    if conditions is not None or null is not None:
        latent = latent.under(conditions or {}, null)
    options = replace(
        latent.options,
        grid=tuple(latent.sigmas.tolist()),
        batch_size=1 if deterministic else latent.options.batch_size,
    )
    plan = prepare(model, options, len(latent), labels=latent.told)

    def go(rows: slice, watch: Watch | None) -> Outcome:
        kept = [state[rows].to(plan.model.device) for state in latent.states]
        return plan.resume(plan.flow(rows), kept, watch).bare(options.dtype)

    with computing(latent.threads, deterministic):
        return plan.solution(plan.each(len(latent), go, callback))


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Images, their latents and what came back; every tensor has an entry an image.

    bit_exact: bool, the same bits. max_error, rms: in data units, [-1, 1].
    mse: on [0, 1], as in DDIM's Table 2. psnr: in dB, of a peak of 1; infinite for the same bits.
    same_bytes: bool, the same 8-bit image.
    latent_mean, latent_std: of `Latent.noise`; 0 and 1 of a standard normal.
    normality: p-value of Jarque and Bera (1987) for its values being normal; small where they are not. They are not
        independent either, so that it compares methods rather than tests a hypothesis.
    """

    x: Tensor
    latent: Latent
    solution: Solution
    bit_exact: Tensor
    same_bytes: Tensor
    max_error: Tensor
    rms: Tensor
    mse: Tensor
    psnr: Tensor
    latent_mean: Tensor
    latent_std: Tensor
    normality: Tensor


def reconstruct(
    model: Model,
    x: Tensor,
    method: str | Method = "exact_heun",
    nfe: int | None = None,
    *,
    deterministic: bool = False,
    callback: Callback | None = None,
    **options: Any,
) -> Reconstruction:
    """Encode images, decode them, and compare.

    Args:
        model, x, method, nfe, deterministic, callback: as in `encode`.
        options: the others of `encode`, with its defaults.

    Raises as `encode`.
    """
    latent = encode(model, x, method, nfe, deterministic=deterministic, callback=callback, **options)
    return compared(as_floats(model, x), latent, decode(model, latent, deterministic=deterministic, callback=callback))


def compared(images: Tensor, latent: Latent, solution: Solution) -> Reconstruction:
    """What became of images (B, *shape), floats on the CPU, on the way to a latent and back."""
    found = solution.x.cpu()
    error = (found.double() - images.double()).reshape(len(found), -1)
    mse = (error / 2).square().mean(1)
    z = latent.noise.double().cpu().reshape(len(latent), -1)
    return Reconstruction(
        x=images,
        latent=latent,
        solution=solution,
        bit_exact=_same_bits(found, images),
        same_bytes=(to_uint8(found) == to_uint8(images)).reshape(len(found), -1).all(1),
        max_error=error.abs().amax(1),
        rms=error.square().mean(1).sqrt(),
        mse=mse,
        psnr=-10 * mse.log10(),
        latent_mean=z.mean(1),
        latent_std=z.std(1, correction=0),
        normality=_normality(z),
    )


def _same_bits(a: Tensor, b: Tensor) -> Tensor:
    """Whether each sample has the same bits, (B,) bool; 0.0 and -0.0 differ, as do numbers of different precision."""
    if a.dtype != b.dtype:
        return torch.zeros(len(a), dtype=torch.bool)
    bits = torch.int32 if a.dtype == torch.float32 else torch.int64
    return (a.view(bits) == b.view(bits)).reshape(len(a), -1).all(1)


def _normality(z: Tensor) -> Tensor:
    centred = z - z.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    skew = centred.pow(3).mean(1) / variance**1.5
    excess = centred.pow(4).mean(1) / variance**2 - 3
    return torch.exp(-z.shape[1] / 12 * (skew.square() + excess.square() / 4))  # chi^2 of 2 degrees of freedom


def as_floats(model: Model, x: Tensor) -> Tensor:
    """x as floats, on the CPU."""
    x = check_data(model, x).detach().cpu()
    return to_float(x) if x.dtype == torch.uint8 else x


def _check_run(model: Model, deterministic: bool, callback: Callback | None) -> None:
    """What both ways ask of their arguments."""
    check_model(model)
    flag("deterministic", deterministic)
    check_callback(callback)


def check_latent(model: Model, latent: Latent) -> None:
    """Raise LatentError for what is no latent that this model has encoded."""
    if not isinstance(latent, Latent) or not len(latent):
        raise LatentError(
            f"latent is {described(latent)}, and nothing to decode; give a Latent of one image or more, as of encode"
            " or Latent.load"
        )
    shape = tuple(latent.states[0].shape[1:])
    if shape != model.shape:
        raise LatentError(f"the latent has shape {shape}; this model needs {model.shape}: decode with its own model")
    if (found := fingerprint(model)) != latent.model:
        if is_fast(model) != latent.fast:
            how, remedy = ("with", "model.fast()") if latent.fast else ("without", "the model itself")
            raise LatentError(f"the latent was encoded {how} fast(), which rounds differently; decode with {remedy}")
        raise LatentError(
            f"the latent was encoded by a model with digest {latent.model[:12]}, this one has {found[:12]}"
            "; decode with that model, or start from latent.noise with sample(noise=...)"
        )
