"""What `ddim-ode upscale` begins with, and what is said of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ddim_ode.cascade import Cascade, CascadeError, is_cascade
from ddim_ode.checkpoints import load
from ddim_ode.commands.shared.input_images import InputImages, gather
from ddim_ode.data import to_float
from ddim_ode.metrics import psnr
from ddim_ode.models.conditional import condition_of
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.image_condition import divides, resized, shrunk


def open_chain(name: str) -> tuple[Cascade, Denoiser]:
    """The stages of a cascade that are told images, or a model that is, as a cascade of one; and the last of them.

    Raises:
        CascadeError: there is nothing that is told an image.
        CheckpointError: no such model.
    """
    if is_cascade(name):
        whole = Cascade.load(name)
        cascade = whole if condition_of(whole.stages[0]) else whole.after(1)
        network = cascade.stages[-1]
        assert isinstance(network, Denoiser)  # as those from files are
        return cascade, network
    model = load(name)
    if condition_of(model) is None:
        raise CascadeError(f"{name} is told no image; give a model whose network has a condition, or a cascade")
    return Cascade([model]), model


def small_images(
    chain: Cascade, paths: Sequence[Path] | None, count: int | None, label: str | None, resize: bool, shrink: bool
) -> tuple[Tensor, InputImages, Tensor | None]:
    """The images (B, C, h, w) that are told, what they were read as and, if they were shrunk, what from: floats.

    Raises as `gather` does, and CascadeError for a size that no boxes of pixels lead to.
    """
    first, last = chain.stages[0], chain.stages[-1]
    wanted = condition_of(first)
    assert wanted
    assert isinstance(first, Denoiser)  # as those from files are
    if paths and not shrink:
        given = gather(replace(first, shape=wanted.image), paths, count, label, resize)
        return to_float(given.x), given, None
    channels, height, width = last.shape
    if not divides(wanted.image, (channels, height, width)):
        raise CascadeError(
            f"images of {last.shape} do not shrink to {wanted.image} by boxes of pixels; give small ones"
        )
    given = gather(last, paths, count, label, resize)
    truth = to_float(given.x)
    return shrunk(truth, wanted.image[1:]), given, truth


def compared(x: Tensor, low: Tensor, truth: Tensor | None) -> dict[str, float]:
    """How far the images, shrunk again, are from those that were told (RMS) and, in dB, how near to the truth, beside
    what bilinear interpolation makes of these. Empty where boxes of pixels do not lead there.
    """
    found: dict[str, float] = {}
    size = (low.shape[-2], low.shape[-1])
    if divides((low.shape[1], *size), (x.shape[1], x.shape[2], x.shape[3])):
        found["shrunk_again"] = float((shrunk(x.to(low), size) - low).square().mean().sqrt())
    if truth is not None:
        enlarged = resized(low, (x.shape[-2], x.shape[-1]))
        found |= {"psnr": float(psnr(x, truth).mean()), "psnr_bilinear": float(psnr(enlarged, truth).mean())}
    return found


def in_words(facts: Mapping[str, float]) -> list[str]:
    """The lines that `compared` is told in."""
    lines = []
    if "shrunk_again" in facts:
        lines.append(
            f"shrunk again they are {facts['shrunk_again']:.3g} from what was given (RMS, of images in [-1, 1])"
        )
    if "psnr" in facts:
        lines.append(
            f"PSNR to the originals {facts['psnr']:.2f} dB, of bilinear interpolation {facts['psnr_bilinear']:.2f}"
        )
    return lines
