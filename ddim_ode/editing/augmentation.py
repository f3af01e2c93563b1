"""More training images: each image of a set edited by `sdedit` several times, under its own label, which stays true."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim_ode.editing.strength import EditError, sdedit
from ddim_ode.models.conditions import Conditions, labels_of
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import Labels, SampleError, asked, check_data, check_seeds, check_told
from ddim_ode.solvers import Solution
from ddim_ode.support.checks import whole

MOST = 10_000  # of an image


@dataclass(frozen=True)
class Augmented:
    """Edited images, those of the first image first.

    x: (B * per_image, *shape). labels: int64, one each, or None for the null class.
    of: int64, the index of the image that each was made of. solution: with what they cost.
    """

    x: Tensor
    labels: Tensor | None
    of: Tensor
    solution: Solution


def augment(
    model: Model,
    x: Tensor,
    labels: Labels = None,
    strength: float | None = 0.4,
    per_image: int = 4,
    seeds: Iterable[int] | None = None,
    *,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> Augmented:
    """Edit each image several times, under its own label and conditions.

    Args:
        model, x, strength: as in `sdedit`.
        labels: (B,) or one int for all, of the images; None is the null class.
        per_image: how many are made of each.
        seeds: B * per_image of them (default: 0, 1, 2, ...).
        conditions, null: as in `sample`, each (B, ...), of the images.
        options: the others of `sdedit`.

    Raises as `sdedit`.
    """
    count = len(check_data(model, x))
    per_image = whole("per_image", per_image, EditError, most=MOST)
    told = check_told(model, asked(model, labels, conditions, null), count)
    of = torch.arange(count).repeat_interleave(per_image)
    numbers = check_seeds(range(len(of)) if seeds is None else seeds)
    if len(numbers) != len(of):
        raise SampleError(f"{len(numbers)} seeds for {count} images with {per_image} each; give {len(of)}")
    told = None if told is None else told[of]
    classes = labels_of(told)
    if isinstance(told, Conditions):
        options |= {"conditions": told.tensors, "null": told.null}
    found = sdedit(model, x[of.to(x.device)], strength, seeds=numbers, labels=classes, **options)
    return Augmented(found.x, classes, of, found)
