"""Classifier-free guidance (Ho & Salimans 2022, Eq. 6): the prediction under no condition, and past that under one.

    guided = null + scale (conditional - null)

Its scale may follow sigma. CFG++ (Chung et al. 2024, arXiv:2406.08070, Alg. 2), which steps from sigma to sigma' with

    xbar' = (null + scale (conditional - null)).data + sigma' null.noise,

is DDIM under this guidance at scale sigma / (sigma - sigma'): see `plus_plus`.

A large scale makes images whose contrast is too strong. Rescaling (Lin et al. 2023, arXiv:2305.08891, Eq. 15 and 16)
gives the guided prediction the standard deviation of the conditional one, in part:

    guided = (rescale std(conditional) / std(guided) + 1 - rescale) guided

As in the paper this is done to v, whatever the network predicts, and by sample: v = (noise - sigma data) / r of the
variance-preserving x = xbar / r, r^2 = 1 + sigma^2, from which data = (x - sigma v) / r and noise = (sigma x + v) / r.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ddim_ode.models.arguments import label_numbers
from ddim_ode.models.conditions import Conditions, Told, joined, labels_of, unconditional, with_labels
from ddim_ode.models.denoiser import Model, NonFiniteError, Prediction
from ddim_ode.models.guidance.around import Guidance, GuidanceError
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.models.guidance.scales import (
    Scale,
    checked_scale,
    extrapolated,
    facts_of,
    per_sample,
    scale_at,
    scales_at,
    words,
)
from ddim_ode.support.checks import real
from ddim_ode.support.tables import table_of

#: the largest batch whose two passes run as one of twice the size; beyond it a CPU is busy with one
TOGETHER = 16
MOST_SIGMAS = 100_000  # of a grid
NONE = 1e-100  # of a variance


class Contrast(Guidance):
    """Guidance by what a condition changes: of the model's predictions under it and under none."""

    @abstractmethod
    def words(self) -> str:
        """The scale in a message."""

    def guided_cost(self, sigma: float) -> Cost:
        return cost(self.model, sigma) + cost(self.model, sigma)

    def check_told(self, told: Told, count: int) -> Told:
        check_guides(self.model.num_classes, told, self.words())
        if (labels := labels_of(told)) is not None:
            return with_labels(told, label_numbers(labels, count, self.num_classes, GuidanceError))
        return told

    def both(self, xbar: Tensor, sigma: Tensor, told: Told) -> tuple[Prediction, Prediction]:
        """The model's predictions under the condition, and under none."""
        null = unconditional(told, self.num_classes)
        if len(xbar) > TOGETHER:
            return self.model(xbar, sigma, told), self.model(xbar, sigma, null)
        twice = torch.cat([sigma, sigma]) if sigma.ndim else sigma
        try:
            found = self.model(torch.cat([xbar, xbar]), twice, joined([told, null]))
        except NonFiniteError as error:
            error.sample %= len(xbar)
            raise
        spent = found.evaluations
        data, noise = found.data.chunk(2), found.noise.chunk(2)
        spents = spent.chunk(2) if isinstance(spent, Tensor) else (spent, spent)
        return Prediction(data[0], noise[0], spents[0]), Prediction(data[1], noise[1], spents[1])


@dataclass(frozen=True)
class Guided(Contrast):
    """A `Model` whose predictions under a condition are pushed away from those under none.

    Args:
        model: a class-conditional denoiser, or one that is told conditions with null values.
        scale: 1 is the model itself, 0 ignores the condition, more than 1 exaggerates it. Or a function of sigma.
        sigma_range: (low, high): outside it the model is evaluated once, without guidance.
        rescale: 0 to 1: how far v is given the standard deviation that it has under the condition.

    Inside the range a prediction costs two evaluations, and one where the scale is 1.

    Raises:
        GuidanceError: the scale is not finite, the range is empty, or rescale is outside 0..1.
        ArgumentError: what is no model.
    """

    scale: Scale
    sigma_range: tuple[float, float] = (0.0, math.inf)
    _: KW_ONLY
    rescale: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", checked_scale(self.scale))
        object.__setattr__(self, "rescale", real("rescale", self.rescale, GuidanceError, 0, 1, "0.7"))

    @classmethod
    def plus_plus(cls, model: Model, scale: float, sigmas: Sequence[float] | Tensor) -> "Guided":
        """CFG++ (Chung et al. 2024, arXiv:2406.08070, Alg. 2) of DDIM's steps along a grid.

        Args:
            scale: the paper's lambda, 0 to 1; 0 ignores the condition, 1 renoises the conditional image.
            sigmas: the grid, decreasing, of which the last may be 0. Give it to `sample(..., "ddim", grid=sigmas)` too.

        Under another method it is a guidance whose scale follows the steps of this grid.

        Raises GuidanceError: a grid that is none.
        """
        return cls(model, PlusPlus(scale, sigmas))

    @property
    def facts(self) -> tuple[object, ...]:
        of_rescale = (self.rescale,) if self.rescale else ()  # without it the digest is that of version 0.1.0
        return facts_of(self.scale, self.model), self.sigma_range, *of_rescale

    def words(self) -> str:
        return words(self.scale)

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        return super().acts(sigma) and scale_at(self.scale, sigma) != 1

    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        conditional, null = self.both(xbar, sigma, told)
        found = extrapolated(null, conditional, scales_at(self.scale, sigma))
        return rescaled(found, conditional, sigma, self.rescale) if self.rescale else found


@dataclass(frozen=True)
class PlusPlus:
    """The scale of classifier-free guidance under which DDIM's step from each sigma of a grid to the next is CFG++'s:

        scale sigma / (sigma - sigma')

    At another sigma it is that of the step which begins nearest, in log sigma.
    """

    scale: float
    sigmas: tuple[float, ...]

    def __init__(self, scale: float, sigmas: Sequence[float] | Tensor):
        object.__setattr__(self, "scale", real("scale", scale, GuidanceError, -1e6, 1e6, "0.6"))
        found = tuple(table_of("sigmas", sigmas, MOST_SIGMAS, GuidanceError).tolist())
        if len(found) < 2 or not all(a > b >= 0 for a, b in pairwise(found)):
            raise GuidanceError("sigmas are no grid; give two or more that decrease, of which the last may be 0")
        object.__setattr__(self, "sigmas", found)

    def __call__(self, sigma: float) -> float:
        if sigma <= 0:
            return self.scale
        begins = self.sigmas[:-1]
        n = min(range(len(begins)), key=lambda n: abs(math.log(begins[n] / sigma)))
        return self.scale * begins[n] / (begins[n] - self.sigmas[n + 1])


def rescaled(found: Prediction, conditional: Prediction, sigma: Tensor, share: float) -> Prediction:
    """A prediction whose v has, in part, the standard deviation of the conditional one's."""
    s = per_sample(sigma, found.data)
    xbar = found.data + s * found.noise
    v, of_condition = (part.noise - s * part.data for part in (found, conditional))  # times r, which drops out
    # in float64 and never below NONE: of a v that is the same everywhere the ratio is 1
    variance, wanted = (x.flatten(1).double().var(dim=1, correction=0).clamp(min=NONE) for x in (v, of_condition))
    v = per_sample(share * (wanted / variance).sqrt() + (1 - share), v) * v
    square = 1 + s * s
    return found._replace(data=(xbar - s * v) / square, noise=(s * xbar + v) / square)


def check_guides(num_classes: int, told: Told, scale: float | str) -> None:
    """Raise GuidanceError where what is told holds nothing to guide to, because no condition would be the same."""
    if told is not None and (not isinstance(told, Conditions) or told.guides):
        return
    given = scale if isinstance(scale, str) else words(scale)
    if isinstance(told, Conditions):
        names = ", ".join(told.tensors)
        raise GuidanceError(
            f"guidance={given} has nothing to guide to: neither labels nor a null value of {names}; give"
            f" null={{{next(iter(told.tensors))!r}: ...}}, or use guidance=1"
        )
    if not num_classes:
        raise GuidanceError(f"guidance={given} needs a class-conditional model; use guidance=1")
    raise GuidanceError(f"guidance={given} has no labels to guide to; give labels, or use guidance=1")
