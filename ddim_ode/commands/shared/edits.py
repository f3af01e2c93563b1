"""What `ddim-ode edit` does to images: noise and sampling by strength, or translation, with what there is to see."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.commands.shared.display import progress
from ddim_ode.commands.shared.input_images import InputImages
from ddim_ode.commands.shared.manifest import account, write_samples
from ddim_ode.commands.shared.pictures import save_columns
from ddim_ode.data import is_picture, to_float, to_uint8
from ddim_ode.editing.sides import Side
from ddim_ode.editing.strength import noise_for, sdedit_with
from ddim_ode.editing.translation import decode_under
from ddim_ode.inversion import encode_with
from ddim_ode.latents import Latent
from ddim_ode.models.conditions import digest
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.planning.options import SolveOptions
from ddim_ode.support.counts import spread
from ddim_ode.support.outputs import finish

Levels = dict[str, tuple[float | None, float | None]]  # (strength, sigma), of which one is None, by its title


@dataclass(frozen=True, kw_only=True)
class Edited:
    """Images, what became of them, each several times in turn, and what it took.

    x: (B * each, *shape). nfe, converged: (B * each,). columns: of a picture, sets of B images by their titles.
    """

    x: Tensor
    each: int
    nfe: Tensor
    converged: Tensor
    sigmas: Tensor
    seconds: float
    columns: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    words: tuple[str, ...]
    latent: Latent | None = None


def noised(
    model: Model,
    given: InputImages,
    options: SolveOptions,
    levels: Levels,
    seeds: tuple[int, ...],
) -> Edited:
    """Edit the images at each level by the same noise."""
    started, before = time.perf_counter(), to_float(given.x)
    found, sigmas = [], [noise_for(model, *level) for level in levels.values()]  # a wrong one is found out first
    for name, sigma in zip(levels, sigmas, strict=True):
        with progress(len(before), what=f"editing, {name}" if len(levels) > 1 else "editing") as update:
            edit = sdedit_with(model, given.x, options, sigma=sigma, seeds=seeds, labels=given.labels, callback=update)
        found.append(edit)
    after = [edit.x.cpu() for edit in found]
    distances = [_distance(x, before) for x in after]
    last = {"difference, 0 is grey": after[0] - before} if len(levels) == 1 else {}
    columns = {"before": before, **dict(zip(levels, after, strict=True)), **last}
    rows = zip(levels, sigmas, distances, strict=True)
    words = [f"sigma {sigma:.4g}, RMS distance to the image {far:.3f}" for _, sigma, far in rows]
    if len(levels) > 1:
        words = [f"strength {name}: {line}" for name, line in zip(levels, words, strict=True)]
    return Edited(
        x=torch.stack(after, 1).flatten(0, 1),
        each=len(levels),
        nfe=torch.stack([edit.nfe for edit in found], 1).flatten(),
        converged=torch.stack([edit.converged for edit in found], 1).flatten(),
        sigmas=found[-1].sigmas,
        seconds=time.perf_counter() - started,
        columns=columns,
        facts={"sigmas_of_edits": sigmas, "distances": distances, "seeds": list(seeds)},
        words=tuple(words),
    )


@dataclass(frozen=True)
class Target:
    """What images are translated to."""

    labels: list[int] | None
    guidance: float
    guidance_range: Any  # (low, high), of which an end may be None


def translated(
    model: Model,
    given: InputImages,
    options: SolveOptions,
    target: Target,
    *,
    window: tuple[float, float | None] | None,
    deterministic: bool,
    back: bool,
) -> Edited:
    """Encode the images under their labels, decode them under the target's, and go back, if that is asked for."""
    started, before = time.perf_counter(), to_float(given.x)
    side = Side(target.labels, guidance=target.guidance, guidance_range=target.guidance_range)
    with progress(len(before), what="encoding") as update:
        how: dict[str, Any] = {"deterministic": deterministic, "callback": update}
        latent = encode_with(model, given.x, options, labels=given.labels, **how)
    with progress(len(before), what="decoding") as update:
        found = decode_under(model, latent, side, window=window, deterministic=deterministic, callback=update)
    after = found.x.cpu()
    distance = _distance(after, before)
    columns = {"before": before, "after": after, "difference, 0 is grey": after - before}
    facts: dict[str, Any] = {"distances": [distance], "target": target.labels}
    words = [f"RMS distance to the image {distance:.3f}"]
    if back:
        with progress(len(before), what="going back") as update:
            returned = found.back(callback=update)
        came = returned.x.cpu()
        same = int((to_uint8(came) == given.x).flatten(1).all(1).sum())
        off = _distance(came, before)
        columns |= {"and back": came}
        facts |= {"back": {"same_bytes": same, "rms": off, "nfe": float(returned.nfe.double().mean())}}
        words.append(f"back: {same} of {len(came)} came back to the same bytes, RMS error {off:.3g}")
    return Edited(
        x=after,
        each=1,
        nfe=found.nfe,
        converged=found.converged,
        sigmas=latent.sigmas,
        seconds=time.perf_counter() - started,
        columns=columns,
        facts=facts,
        words=tuple(words),
        latent=latent,
    )


def write(
    folder: Path, model: Denoiser, given: InputImages, found: Edited, arguments: Mapping[str, Any], images: bool
) -> None:
    """The pictures, the edited images, the latents of a translation, and the manifest."""
    tensors = {"x": found.x, "before": given.x, "nfe": found.nfe, "sigmas": found.sigmas}
    if given.labels is not None:
        tensors["labels"] = torch.tensor(given.labels)
    write_samples(folder, tensors, columns=8 if found.each == 1 else found.each, images=images)
    if is_picture(model.shape):
        save_columns(found.columns, "; ".join(found.words) if found.each == 1 else "by strength", folder / "edit.png")
    if found.latent:
        found.latent.save(folder / "latent.safetensors")
    record = account(
        model,
        "edit",
        arguments,
        images={"names": given.names, "sha256": digest(given.x)},
        labels=given.labels,
        **found.facts,
        nfe=spread(found.nfe).model_dump(),
        seconds=found.seconds,
    )
    finish(folder, "edit", record)


def _distance(a: Tensor, b: Tensor) -> float:
    """Root of the mean square between sets of images, in data units."""
    return float((a.double() - b.double()).square().mean().sqrt())
