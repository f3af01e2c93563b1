"""Augmentation of a folder of images: edits of each, in files named after it, in folders as the images were."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.commands.shared.display import progress
from ddim_ode.commands.shared.input_images import load_fitting
from ddim_ode.commands.shared.manifest import account
from ddim_ode.commands.shared.parsing import parse_labels
from ddim_ode.commands.shared.pictures import save_columns
from ddim_ode.data import DataError, image_files, png_of, to_float, to_uint8
from ddim_ode.editing.augmentation import MOST
from ddim_ode.editing.strength import EditError, noise_for, sdedit_with, settled
from ddim_ode.models.conditions import digest
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.planning.options import DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.plan import Progress
from ddim_ode.support.checks import whole
from ddim_ode.support.files import replacing, reported, sweep_all
from ddim_ode.support.outputs import MANIFEST, OutputError, finish, going_on

IDENTITY, KIND = "augmentation.json", "ddim_ode augmentation 1"
SHOWN = 8  # images of the picture


@dataclass(frozen=True)
class Originals:
    """The images below a folder: uint8 (N, C, H, W), their files relative to it, and the class of each, or none."""

    x: Tensor
    files: list[Path]
    labels: list[int] | None


@dataclass(frozen=True)
class Made:
    """How many edits this run has made, and how many were there already.

    nfe: the mean of those made. tol: of an adaptive method.
    """

    made: int
    earlier: int
    nfe: float | None
    tol: float | None
    seconds: float


def originals(model: Model, folder: Path, label: str | None, resize: bool) -> Originals:
    """The images below a folder, whose folders are their classes, unless a label is given for all or each.

    Folders named by numbers are those classes; others are numbered in sorted order, as for training.

    Raises DataError: images in no class beside some that are, or folders that are not the classes of the model; two
    images that would give edits of one name.
    """
    files = image_files(folder)
    places = [file.relative_to(folder) for file in files]
    twice = [name for name, many in Counter(place.with_suffix("") for place in places).items() if many > 1]
    if twice:
        raise DataError(f"{folder / twice[0]}: two images have this name, and so would their edits; rename one")
    labels = parse_labels(label, len(files)) if label is not None else _classes(model, folder, places)
    return Originals(load_fitting(files, model.shape, resize), places, labels)


def augment_folder(
    out: Path,
    model: Denoiser,
    given: Originals,
    options: SolveOptions,
    level: tuple[float | None, float | None],
    per_image: int,
    arguments: Mapping[str, Any],
) -> Made:
    """Write `per_image` edits of each image, by seeds 0, 1, 2, ..., a picture of some, and a manifest.

    level: (strength, sigma), of which one is None. Where a run of the same arguments has stopped, this one goes on.

    Raises OutputError: the folder is of other images or another edit. And as `sdedit`.
    """
    per_image = whole("per_image", per_image, EditError, most=MOST)
    sigma, started = noise_for(model, *level), time.perf_counter()
    images = {"names": [str(place) for place in given.files], "sha256": digest(given.x)}
    record = account(model, "edit", arguments, images=images, labels=given.labels)
    identity = {name: record[name] for name in ("arguments", "model", "images", "labels")}
    with going_on(out, IDENTITY, KIND, identity) as stored:
        for name, value in identity.items():
            if stored[name] != value:
                raise OutputError(f"{out} holds edits by other {name}; choose another --out")
        spent, tol = _make(out, model, given, options, sigma, per_image)
    made = Made(
        made=len(spent),
        earlier=len(given.x) * per_image - len(spent),
        nfe=float(spent.double().mean()) if len(spent) else None,
        tol=tol,
        seconds=time.perf_counter() - started,
    )
    if made.made or not (out / MANIFEST).exists():
        _draw(out, given, per_image)
        finish(out, "edit", {**record, "sigma": sigma, **asdict(made)})
    return made


def _make(
    out: Path, model: Denoiser, given: Originals, options: SolveOptions, sigma: float, per_image: int
) -> tuple[Tensor, float | None]:
    """Write the edits that are not there, in whole batches, and by one tolerance, so that they are what they would be
    in one run.

    Returns the NFE of those made, and the tolerance of an adaptive method.
    """
    for folder in {(out / file).parent for file in given.files}:
        with reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
        sweep_all(folder)
    block = max(1, (options.batch_size or DEFAULT_BATCH) // per_image)  # images
    total, spent = len(given.x) * per_image, [torch.zeros(0, dtype=torch.int64)]
    told = None if given.labels is None else torch.tensor(given.labels).repeat_interleave(per_image)
    if all((out / _name(file, k)).is_file() for file in given.files for k in range(per_image)):
        return spent[0], None
    options = settled(model, options, sigma, told, range(total))
    with progress(total, what="augmenting") as update:
        for first in range(0, len(given.x), block):
            of = torch.arange(first, min(first + block, len(given.x))).repeat_interleave(per_image)
            files = [out / _name(given.files[i], k % per_image) for k, i in enumerate(of.tolist())]
            if all(file.is_file() for file in files):
                continue
            seeds = range(first * per_image, first * per_image + len(of))
            labels = None if told is None else told[seeds.start : seeds.stop]

            def moved(now: Progress, begin: int = seeds.start) -> None:
                update(now._replace(samples=range(now.samples.start + begin, now.samples.stop + begin)))

            edit = sdedit_with(model, given.x[of], options, sigma=sigma, seeds=seeds, labels=labels, callback=moved)
            spent.append(edit.nfe)
            for pixels, file in zip(to_uint8(edit.x.cpu()).split(1), files, strict=True):
                with replacing(file, one_of_many=True) as new:
                    new.write(png_of(pixels))
    return torch.cat(spent), options.tol


def _draw(out: Path, given: Originals, per_image: int) -> None:
    """The first images, and what has been made of them."""
    shape, count = tuple(given.x.shape[1:]), min(SHOWN, len(given.x))
    columns = {"before": to_float(given.x[:count])}
    for k in range(min(per_image, SHOWN)):
        columns[f"edit {k}"] = to_float(load_fitting([out / _name(file, k) for file in given.files[:count]], shape))
    save_columns(columns, "images and their edits", out / "edit.png")


def _name(place: Path, k: int) -> Path:
    """Where an edit of the image at a place is written."""
    return place.with_name(f"{place.stem}-{k}.png")


def _classes(model: Model, folder: Path, places: list[Path]) -> list[int] | None:
    """The class of each image by the folder that it is in; None where there are no folders, or no classes."""
    above = [place.parts[0] if len(place.parts) > 1 else None for place in places]
    names = sorted({name for name in above if name is not None})
    if not names or not model.num_classes:
        return None
    if None in above:
        raise DataError(
            f"{folder / places[above.index(None)]} is in no class, and others are; give --label, or move it"
        )
    if all(name.isdecimal() and int(name) < model.num_classes for name in names):
        return [int(str(name)) for name in above]
    if len(names) != model.num_classes:
        raise DataError(
            f"{folder} holds {len(names)} folders, and the model has {model.num_classes} classes; name the folders by"
            f" their numbers, 0 to {model.num_classes - 1}, or give --label"
        )
    return [names.index(str(name)) for name in above]
