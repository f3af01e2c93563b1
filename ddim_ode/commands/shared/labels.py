"""The classes of samples: one for all, all in turn, those in a file, or in the proportions of data."""

import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from ddim_ode.commands.shared.parsing import parse_label
from ddim_ode.data import DataError
from ddim_ode.image_sets import open_images
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards.proportions import in_proportion
from ddim_ode.support.checks import shown
from ddim_ode.support.reading import open_regular, read_text

EACH = "each"
PROPORTIONS = "proportions:"
REMEDY = "give a text file with one class a line, or an .npy of them"
IMAGES = (".npz", ".safetensors")  # files of images; any other is one of labels


def parse_classes(text: str | None) -> int | str | None:
    """A class, "each", a file of classes or "proportions:" and what has some, as absolute paths. Raises SampleError."""
    with suppress(SampleError):
        return parse_label(text)
    assert text is not None
    prefix, name = (PROPORTIONS, text.removeprefix(PROPORTIONS)) if text.startswith(PROPORTIONS) else ("", text)
    if os.path.exists(name):
        return prefix + str(Path(name).resolve())
    if prefix and name:  # a name of images
        return text
    raise SampleError(
        f"label={shown(text)} is no class; give a whole number, 'each' for all in turn, a file with one class a line"
        ", or proportions:FILE"
    )


def labels_for(label: int | str | None, num_classes: int, count: int) -> list[int] | None:
    """The class of each sample. Raises SampleError, and DataError for what cannot be read."""
    if label is None:
        return None
    if not num_classes:
        raise SampleError("this model has no classes; leave --label out")
    if label == EACH:
        return [i % num_classes for i in range(count)]
    if isinstance(label, int):
        return [label] * count
    if label.startswith(PROPORTIONS):
        return in_proportion(_labels_of(label.removeprefix(PROPORTIONS)), count)
    found = read_labels(Path(label))
    if len(found) != count:
        raise SampleError(
            f"{label} has {len(found):,} labels, for {count:,} samples; give one a sample, or proportions:{label}"
        )
    return found


def read_labels(file: Path) -> list[int]:
    """The labels in a file. Raises DataError."""
    found = _numbers(file) if file.suffix == ".npy" else read_text(file, DataError, remedy=REMEDY).split()
    wrong = next((label for label in found if not re.fullmatch(r"\d{1,9}", str(label))), None)
    if wrong is not None or not found:
        raise DataError(
            f"{file} holds {'nothing' if wrong is None else f'{shown(str(wrong))}, which is no class'}; {REMEDY}"
        )
    return [int(label) for label in found]


def _numbers(file: Path) -> list[int]:
    """The whole numbers in an .npy. Raises DataError."""
    with open_regular(file, DataError, REMEDY) as opened:
        try:
            found = np.load(opened, allow_pickle=False)
        except (ValueError, EOFError, OSError, OverflowError, MemoryError) as fault:  # MemoryError: of a wrong count
            raise DataError(f"{file} is no array of numbers ({fault}); {REMEDY}") from None
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iu":
        raise DataError(f"{file} is no list of whole numbers; {REMEDY}")
    numbers: list[int] = found.tolist()
    return numbers


def _labels_of(what: str) -> list[int]:
    """The labels in a file, or of images."""
    if os.path.isfile(what) and Path(what).suffix not in IMAGES:
        return read_labels(Path(what))
    labels = open_images(what).labels
    if labels is None:
        raise DataError(f"{what} has no labels; {REMEDY}")
    found: list[int] = labels.tolist()
    return found
