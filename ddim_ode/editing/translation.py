"""Translation (DDIB: Su et al. 2022): an image is encoded under one condition and decoded under another.

    x  --source-->  latent  --target-->  y        and back:        y  --target-->  latent  --source-->  x

An exact method (`exact_heun`, `leapfrog`) carries a pair of states, and the way back from the pair that it ends with is
the way there, integer by integer: A -> B -> A returns the same bits of bytes and float32 images, at any NFE, and
float64 images to 3e-16. That the image y alone, whose pair is forgotten, returns them is not guaranteed, and with few
steps not even usual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ddim_ode.editing.sides import Mixed, Numbered, Side, side_of
from ddim_ode.editing.strength import EditError
from ddim_ode.grids import Grid
from ddim_ode.interpolation import slerp
from ddim_ode.inversion import check_latent, decode, encode_with
from ddim_ode.latents import Latent, LatentError
from ddim_ode.models.denoiser import Model
from ddim_ode.models.guidance import Window
from ddim_ode.planning.inputs import Labels
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback, Plan, prepare
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.solvers import Method, Outcome, Solution, Watch
from ddim_ode.support.process import computing
from ddim_ode.support.scalars import sigma_range

ROUNDED = 1e-4  # relative, by which two largest sigmas may differ and still be one


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Edited images, and all that the way back needs.

    x: (B, *shape), xbar at the model's smallest sigma.
    nfe: (B,) int64, network passes spent on each, both ways together.
    converged: (B,) bool, as in `Solution`.
    latent: of the source: `decode(model, latent)` gives the images back as well, at half of the cost of `back`.
    states: what the solver ended with at x, each (B, *shape), as the states of a `Latent`.
    """

    x: Tensor
    nfe: Tensor
    converged: Tensor
    latent: Latent
    states: tuple[Tensor, ...]
    model: Model = field(repr=False)
    down: Plan = field(repr=False)  # from the latent to x
    deterministic: bool = False

    def encode(self, *, callback: Callback | None = None) -> Latent:
        """The latent of x, by the way that x came: with an exact method the states of `latent`, bit for bit."""
        found = _carried(self.down.backwards(), self.states, self.latent, self.deterministic, callback)
        return replace(
            self.latent,
            states=tuple(torch.cat(parts) for parts in zip(*(end.kept for end in found), strict=True)),
            nfe=torch.cat([end.nfe for end in found]),
            converged=torch.cat([end.converged for end in found]),
        )

    def back(self, *, callback: Callback | None = None) -> Solution:
        """The images that x was made of, from x: up under the target, and down under the source.

        With an exact method they are the same bits, whatever the target and the NFE, of bytes and float32 images, as in
        `encode`; float64 ones come back to 3e-16. Its nfe is that of both ways.
        """
        latent = self.encode(callback=callback)
        found = decode(self.model, latent, deterministic=self.deterministic, callback=callback)
        return replace(found, nfe=latent.nfe + found.nfe, converged=latent.converged & found.converged)


def translate(
    model: Model,
    x: Tensor,
    source: Side | Labels,
    target: Side | Labels,
    method: str | Method = "exact_heun",
    nfe: int | None = None,
    *,
    window: tuple[float, float | None] | None = None,
    grid: Grid | None = None,
    tol: float | None = None,
    max_nfe: int | None = None,
    deterministic: bool = False,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Translation:
    """Encode images under the source, and decode their latents under the target.

    Args:
        model: a `Denoiser`, or something around one.
        x: (B, *shape) images in [-1, 1], or their bytes as uint8.
        source, target: labels, (B,) or one int for all or None for the null class; or a `Side`, with conditions,
            guidance, or another model.
        method, nfe, grid, tol, max_nfe, deterministic, dtype, batch_size: as in `encode`; nfe is that of the source's
            way, whose grid the target's takes, at up to twice the cost where the target alone is guided.
        window: (low, high) in sigma, where the target holds; outside of it the source still does. An end that is None
            is open; without a window the target holds everywhere. Large sigmas decide of the outline, small ones of
            the texture.
        callback: called with a `Progress` after every step, of one way and then of the other.

    Raises:
        EditError: a window that no sigma of the way is in.
        LatentError: the target's model does not reach as far as the source's.
        SampleError and others: as `encode`; a label that does not exist.
    """
    begin = side_of(source)
    options = SolveOptions(
        method=resolved(model, method),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        grid=grid,
        final="sigma_min",
        guidance=begin.guidance,
        guidance_range=begin.guidance_range,
        dtype=dtype,
        batch_size=batch_size,
    )
    own = begin.model or model
    told = begin.told(own)
    latent = encode_with(own, x, options, labels=told, deterministic=deterministic, callback=callback)
    end = replace(side_of(target), model=side_of(target).model or model)
    return decode_under(own, latent, end, window=window, deterministic=deterministic, callback=callback)


def decode_under(
    model: Model,
    latent: Latent,
    target: Side | Labels,
    *,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    window: tuple[float, float | None] | None = None,
    deterministic: bool = False,
    callback: Callback | None = None,
) -> Translation:
    """Decode latents under another condition than they were encoded under: the second half of `translate`.

    Args:
        model: the one that encoded them.
        latent: of `encode`, or of `Latent.load`; its own condition is the source.
        conditions, null: those that it was encoded under, of a latent from a file, as in `decode`; the target has its
            own. Without them the source is not known, which a window and `Translation.back` need.
        target, window, deterministic, callback: as in `translate`.

    Raises:
        LatentError: the latent of another model, of other conditions, or of more noise than the target's model takes.
        EditError, SampleError and others: as `translate`.
    """
    check_latent(model, latent)
    if conditions is not None or null is not None:
        latent = latent.under(conditions or {}, null)
    side = side_of(target)
    other = side.model or model
    _check_reach(other, latent)
    batch = 1 if deterministic else latent.options.batch_size
    own = replace(latent.options, grid=tuple(latent.sigmas.tolist()), batch_size=batch)
    theirs = replace(own, guidance=side.guidance, guidance_range=side.guidance_range)
    down = prepare(other, theirs, len(latent), labels=side.told(other))
    if window is not None:
        outside = prepare(model, own, len(latent), labels=latent.told)
        each = torch.arange(len(latent))
        both = Window(Numbered.of(outside, each), Numbered.of(down, each), _checked(window, latent))
        down = replace(down, model=both, labels=each)
    found = _carried(down, latent.states, latent, deterministic, callback)
    solution = down.solution([end.bare(own.dtype) for end in found])
    return Translation(
        x=solution.x,
        nfe=latent.nfe + solution.nfe,
        converged=latent.converged & solution.converged,
        latent=latent,
        states=tuple(torch.cat(parts) for parts in zip(*(end.kept for end in found), strict=True)),
        model=model,
        down=down,
        deterministic=deterministic,
    )


def between_edits(
    first: Translation,
    second: Translation,
    weights: Tensor | Sequence[float],
    *,
    callback: Callback | None = None,
) -> Solution:
    """Images between two edits: `slerp` of their latents, under a mixture of what they were decoded under.

    At weight w each prediction is 1 - w of the first target's and w of the second's, so that two edits of one image,
    which have one latent, have something in between as well. It costs both. The way is that of the first edits; the
    ends come back up to the method's error, as the latents between two pairs of states are single ones.

    Args:
        first, second: edits of B images each, whose latents are at the same sigma.
        weights: (W,), from 0, the first, to 1, the second.

    Returns a `Solution` of B * W images, those of the first pair first.

    Raises:
        EditError: edits of different numbers of images, or latents at different sigmas.
        SampleError: latents with nothing in between, weights that are no numbers.
    """
    count = len(first.latent)
    if len(second.latent) != count:
        raise EditError(f"{count} edits and {len(second.latent)} have no pairs; give as many of both")
    tops = [float(edit.latent.sigmas[0]) for edit in (first, second)]
    if abs(tops[0] / tops[1] - 1) > ROUNDED:
        raise EditError(f"latents at sigma={tops[0]:.6g} and {tops[1]:.6g} have nothing in between; use one grid")
    z = [slerp(a, b, weights) for a, b in zip(first.latent.noise, second.latent.noise, strict=True)]
    w = torch.as_tensor(weights, dtype=torch.float64)
    numbers = torch.arange(count).repeat_interleave(len(w))
    mixed = Mixed(Numbered.of(first.down, numbers), Numbered.of(second.down, numbers), w.repeat(count))
    plan = replace(first.down, model=mixed, labels=torch.arange(len(numbers)))
    start = first.latent.prior * torch.cat(z)

    def go(rows: slice, watch: Watch | None) -> Outcome:
        return plan.run(plan.flow(rows), start[rows].to(mixed.device), watch).bare(first.latent.options.dtype)

    return plan.solution(plan.each(len(numbers), go, callback))


def _carried(
    plan: Plan, states: Sequence[Tensor], latent: Latent, deterministic: bool, callback: Callback | None
) -> list[Outcome]:
    """Batches carried on from what a solver has kept, by the threads that the latent was encoded by."""

    def go(rows: slice, watch: Watch | None) -> Outcome:
        return plan.resume(plan.flow(rows), [state[rows].to(plan.model.device) for state in states], watch)

    with computing(latent.threads, deterministic):
        return plan.each(len(latent), go, callback)


def _check_reach(model: Model, latent: Latent) -> None:
    """Raise LatentError unless the target's model takes what the latent is: at one sigma all models have one state."""
    shape, top = tuple(latent.states[0].shape[1:]), float(latent.sigmas[0])
    if shape != tuple(model.shape):
        raise LatentError(
            f"the latent has shape {shape}, and the target's model takes {tuple(model.shape)}; use another"
        )
    if top > model.sigma_max * (1 + ROUNDED):
        raise LatentError(
            f"the latent is noise of sigma={top:.6g}, and the target's model begins at {model.sigma_max:.6g}"
            "; encode on a grid that begins there"
        )


def _checked(window: tuple[float, float | None], latent: Latent) -> tuple[float, float]:
    """The window. Raises EditError for one that is no range, or of which the way has nothing."""
    low, high = sigma_range("the window ", window, EditError)
    bottom, top = float(latent.sigmas[-1]), float(latent.sigmas[0])
    if high < bottom or low > top:
        raise EditError(f"the window {low:g}:{high:g} holds no sigma of the way, {bottom:.4g} to {top:.6g}; widen it")
    return low, high
