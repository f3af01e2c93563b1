"""What `ddim-ode restore` measures: operators in words, measurements simulated or given, and how near the answer is."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.commands.shared.input_images import InputImages, first_files, load_fitting
from ddim_ode.commands.shared.parsing import parse_labels
from ddim_ode.data import to_float
from ddim_ode.inverse import (
    Blur,
    BoxDownsampling,
    Grey,
    LinearOperator,
    Mask,
    MeasurementError,
    Restoration,
)
from ddim_ode.inverse.measurements import checked_noise
from ddim_ode.metrics.pairs import psnr, ssim
from ddim_ode.models.denoiser import Model
from ddim_ode.support.checks import shown
from ddim_ode.support.images import SUFFIXES
from ddim_ode.support.seeds import generator, mix

EXAMPLES = "mask:half, mask:random:0.7, mask:box:14, a mask's FILE.png, down:4, blur:1.5, grey"
BYTE = 2 / 255 / math.sqrt(12)  # standard deviation of what rounding to bytes does to an image in [-1, 1]
BRIGHT = 128  # the least byte of a mask's file that means a known pixel


def parse_operator(text: str, shape: tuple[int, ...]) -> LinearOperator:
    """An operator on images of a shape, by its name and a number, or a mask from a file, white where it is known.

    Raises MeasurementError and DataError.
    """
    if text.lower().endswith(SUFFIXES) or os.path.isfile(text):
        remedy = "a mask is taken as it is, one pixel each; give one of that size, in grey"
        return Mask(load_fitting([Path(text)], (1, *shape[1:]), remedy=remedy)[0] >= BRIGHT)
    name, _, argument = text.partition(":")
    if name == "mask":
        name, _, argument = argument.partition(":")
        name = f"mask:{name}"
    size = (shape[-2], shape[-1]) if len(shape) == 3 else (0, 0)
    known: dict[str, tuple[Callable[[Any], LinearOperator], type | None]] = {
        "mask:half": (lambda _: Mask.half(size), None),
        "mask:random": (lambda share: Mask.random(size, share), float),
        "mask:box": (lambda side: Mask.box(size, side), int),
        "down": (BoxDownsampling, int),
        "blur": (Blur.gaussian, float),
        "grey": (lambda _: Grey(), None),
    }
    make, kind = known.get(name, (None, None))
    try:
        if make is None or (kind is None and argument):
            raise ValueError
        value = kind(argument) if kind else None
    except ValueError:
        raise MeasurementError(f"operator={shown(text)} is none that is known; give one of {EXAMPLES}") from None
    operator = make(value)
    operator.measured(shape)
    return operator


@dataclass(frozen=True)
class Given:
    """Measurements y (B, *measured) in data units with noise of noise_std, the images they are of, if these are known,
    and the images' names and classes.
    """

    y: Tensor
    noise_std: float
    truth: Tensor | None
    images: InputImages


def simulated(operator: LinearOperator, noise: float | None, images: InputImages) -> Given:
    """Measurements of images, with noise from a generator for each, of its place."""
    level = checked_noise(0.0 if noise is None else noise)
    truth = to_float(images.x)
    y = operator.apply(truth)
    draws = [torch.randn(y.shape[1:], generator=generator(mix(i, "measurement"))) for i in range(len(y))]
    return Given(operator.seen(y + level * torch.stack(draws)), level, truth, images)


def measured_already(
    model: Model,
    operator: LinearOperator,
    noise: float | None,
    *,
    paths: list[Path] | None,
    count: int | None,
    label: str | None,
) -> Given:
    """Files that are measurements themselves, of bytes: what rounding does to them is their noise, at least.

    The known pixels of a mask count as exact unless noise is given.
    """
    if not paths:
        raise MeasurementError("--measured takes what was measured from files, and there are none; give IMAGES")
    files = first_files(paths, count)
    level = checked_noise((0.0 if isinstance(operator, Mask) else BYTE) if noise is None else noise)
    x = load_fitting(files, operator.measured(model.shape), remedy="give files of what this operator measures")
    labels = None if label is None else parse_labels(label, len(x))
    return Given(to_float(x), level, None, InputImages(x, labels, [str(file) for file in files], "measurements"))


def compared(operator: LinearOperator, given: Given, found: Restoration) -> dict[str, Any]:
    """Means over images, and a list with an entry an image: the residual and, where the truth is known, how near."""
    each: dict[str, list[float]] = {"residual": found.residual.tolist()}
    if given.truth is not None:
        plain = operator.pseudo_inverse(given.y, given.noise_std**2).clamp(-1, 1)
        x = found.x.cpu().clamp(-1, 1)
        each |= {"psnr": psnr(x, given.truth).tolist(), "psnr_without_model": psnr(plain, given.truth).tolist()}
        each |= {"ssim": ssim(x, given.truth).tolist(), "ssim_without_model": ssim(plain, given.truth).tolist()}
    means = {name: sum(values) / len(values) for name, values in each.items()}
    means["residual"] = float(found.residual.square().mean().sqrt())
    return {**means, "noise_std": given.noise_std, "each": each}


def in_words(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"residual {facts['residual']:.3g} (RMS of y - A x; the noise is {facts['noise_std']:.3g})"]
    if "psnr" in facts:
        lines.append(
            f"PSNR {facts['psnr']:.1f} dB, SSIM {facts['ssim']:.3f}; without the model"
            f" {facts['psnr_without_model']:.1f} dB, {facts['ssim_without_model']:.3f}"
        )
    return lines


def columns(
    operator: LinearOperator, given: Given, x: Tensor, facts: dict[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """What a picture of images shows side by side, and the words beside each row.

    A measurement of another shape than the images is shown as the smallest image that explains it.
    """
    y = operator.seen(given.y)
    shown = {"measured": y if y.shape == x.shape else operator.pseudo_inverse(y), "restored": x}
    if given.truth is None:
        return shown, [f"residual {value:.2g}" for value in facts["each"]["residual"]]
    shown = {"truth": given.truth, **shown, "difference, 0 is grey": x - given.truth}
    return shown, [f"{value:.1f} dB" for value in facts["each"]["psnr"]]
