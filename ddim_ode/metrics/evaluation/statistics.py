"""The mean and covariance of features in the .npz files that the field exchanges.

    mu (D,), sigma (D, D)           of the features: pytorch-fid, clean-fid, EDM, guided-diffusion
    mu_s (2023,), sigma_s           of spatial features, for sFID: guided-diffusion
    ddim_ode                        of ours: which features, resized how, of how many images and of which, as JSON
    arr_0 (N, H, W, C)              images, those or some of them: guided-diffusion's reference batches

All numbers are float64.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim_ode.image_sets import ImageSet
from ddim_ode.image_sets.arrays import IMAGES, NpzImages, members
from ddim_ode.metrics.checks import MetricError, whole_or_none
from ddim_ode.metrics.evaluation.features import answers_alike
from ddim_ode.metrics.moments import Gaussian
from ddim_ode.support.checks import as_path
from ddim_ode.support.files import replacing
from ddim_ode.support.reading import open_regular
from ddim_ode.support.resources import check_memory

MEAN, COVARIANCE, OURS = "mu", "sigma", "ddim_ode"
SPATIAL = "_s"  # after the names of spatial ones
REMEDY = "give an .npz with mu (D,) and sigma (D, D)"
NEGATIVE = 1e-5  # of the largest eigenvalue: below it, what rounding in float32 leaves of zero


@dataclass(frozen=True)
class About:
    """What statistics are of; None where a file does not say."""

    features: str | None = None
    resize: str | None = None
    weights: str | None = None  # sha256
    count: int | None = None
    images: str | None = None  # digest of all images
    answers: tuple[float, ...] = ()  # of a network of the caller's, as in `Extractor`


@dataclass(frozen=True)
class Statistics:
    """The Gaussians of features and, where there are any, of spatial features. `name`: what to call them.

    `examples`: images of the same file, for what a Gaussian cannot tell.
    """

    name: str
    features: Gaussian
    spatial: Gaussian | None
    about: About
    examples: ImageSet | None = None

    @property
    def unsaid(self) -> str | None:
        """What a file does not say of itself, one line; None for ours."""
        if self.about.features is not None:
            return None
        return f"{self.name} does not say in which features, or how resized: see to it that these are the same"

    def identity(self) -> str:
        """A digest of the numbers, and of the images if there are any."""
        found = sha256(json.dumps(asdict(self.about)).encode())
        for gaussian in (self.features, self.spatial):
            for values in gaussian or ():
                found.update(values.contiguous().numpy().data)
        if self.examples is not None:
            found.update(self.examples.identity().encode())
        return found.hexdigest()


def is_statistics(path: Path) -> bool:
    """Whether a file is an .npz of statistics. Raises DataError for an .npz that is damaged."""
    return path.suffix == ".npz" and os.path.isfile(path) and MEAN in members(path)


def save_statistics(file: Path, found: Statistics) -> None:
    """Write statistics. Raises OutputError."""
    arrays: dict[str, Any] = {OURS: np.array(json.dumps(asdict(found.about)))}
    for end, gaussian in (("", found.features), (SPATIAL, found.spatial)):
        if gaussian is not None:
            arrays |= {MEAN + end: gaussian.mean.numpy(), COVARIANCE + end: gaussian.covariance.numpy()}
    with replacing(file) as new:
        np.savez(new, **arrays)


def load_statistics(file: str | Path) -> Statistics:
    """Read statistics, ours or another program's. Raises MetricError: they are damaged, or none; and DataError for
    images in the same file that are none.
    """
    path = as_path("file", file)
    if not os.path.isfile(path):
        raise MetricError(f"{path}: no such file; {REMEDY}")
    try:
        with open_regular(path, MetricError, REMEDY) as opened, np.load(opened, allow_pickle=False) as stored:
            names = _wanted(stored.files)
            unpacked = sum(stored.zip.getinfo(f"{name}.npy").file_size for name in names)
            check_memory(4 * unpacked, f"{path}", "give another", MetricError)
            arrays = {name: stored[name] for name in names}
    except MetricError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, TypeError, RuntimeError) as fault:
        raise MetricError(f"{path} is damaged or no .npz of numbers ({fault}); {REMEDY}") from None
    features = _gaussian(arrays, "", path)
    spatial = _gaussian(arrays, SPATIAL, path) if MEAN + SPATIAL in arrays else None
    examples = NpzImages(path) if IMAGES in members(path) else None
    return Statistics(str(path), features, spatial, _about(arrays, path), examples)


def check_alike(found: Statistics, about: About, width: int) -> None:
    """Raise MetricError unless statistics are of features such as these, as far as they say."""
    for name in ("features", "resize", "weights"):
        theirs, ours = getattr(found.about, name), getattr(about, name)
        if found.about.features is not None and theirs != ours:
            raise MetricError(
                f"{found.name} has statistics of {name}={theirs!r}, and these are of {name}={ours!r}; give others"
            )
    if len(found.features.mean) != width:
        raise MetricError(
            f"{found.name} has statistics of {len(found.features.mean)} features, and {about.features!r} has {width};"
            " give those of the same features"
        )
    if found.about.features is not None and not answers_alike(found.about.answers, about.answers):
        raise MetricError(
            f"{found.name} has statistics of another network of the name {about.features!r}, which answers otherwise"
            "; give those of this one"
        )


def _wanted(names: list[str]) -> list[str]:
    ours = [name + end for end in ("", SPATIAL) for name in (MEAN, COVARIANCE)]
    return [name for name in [*ours, OURS] if name in names]


def _gaussian(arrays: Mapping[str, Any], end: str, file: Path) -> Gaussian:
    try:
        mean, covariance = (torch.from_numpy(np.asarray(arrays[name + end], float)) for name in (MEAN, COVARIANCE))
    except (KeyError, ValueError, TypeError) as fault:
        raise MetricError(f"{file} has no numbers {fault}; {REMEDY}") from None
    mean = mean.squeeze(0) if mean.ndim == 2 else mean
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise MetricError(f"{file} has {MEAN + end} and {COVARIANCE + end} of shapes {shapes}; {REMEDY}")
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise MetricError(f"{file} holds values that are not finite; {REMEDY}")
    return Gaussian(mean, _factor(covariance, COVARIANCE + end, file))


def _factor(covariance: Tensor, name: str, file: Path) -> Tensor:
    """(R, D) of a covariance: factor^T factor."""
    largest = covariance.abs().max()
    if (covariance - covariance.mT).abs().max() > NEGATIVE * largest:
        raise MetricError(f"{file}: {name} is not symmetric, as a covariance is; {REMEDY}")
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    if values[0] < -NEGATIVE * values[-1].clamp(min=0) or values[-1] < 0:
        raise MetricError(f"{file}: {name} has the negative variance {float(values[0]):.3g}; {REMEDY}")
    return (values.clamp(min=0).sqrt() * vectors).mT


def _about(arrays: Mapping[str, Any], file: Path) -> About:
    if OURS not in arrays:
        return About()
    try:
        told = About(**json.loads(str(arrays[OURS])))
        whole_or_none(told.count)
        return replace(told, answers=tuple(map(float, told.answers)))
    except (ValueError, TypeError) as fault:
        raise MetricError(f"{file} does not say what it is of ({fault}); {REMEDY}") from None
