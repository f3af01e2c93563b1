"""Whether the kept measurements of a cell still hold: small questions to its method, the reference and the metrics.

The code of a solver can change and its name and parameters stay. What it computes is told by what it answers: two
samples of a mixture that is known in closed form, of the model's own shape, on its own path and with the options of the
cell, so that the same sigmas are visited. A few numbers of them are kept, and compared to about six digits, which
another machine's rounding does not reach.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import astuple, replace
from functools import cached_property

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.metrics import FeatureSpace, consistency, distribution, psnr, ssim
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.conditions import Conditions, Told, labels_of, with_labels
from ddim_ode.models.denoiser import Model
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import SolveOptions
from ddim_ode.sampling import sample_with
from ddim_ode.study.cells import Cell, Shared
from ddim_ode.study.reference import rms_each, solve_reference
from ddim_ode.study.roundtrip import round_trip

Answers = list[float | str]

SEEDS = (0, 1)
SMALL = 10  # evaluations of an adaptive method: to find the tolerance for a budget takes ten solutions
FINE = 1e-3  # and a tolerance that leads such a method to its higher orders
SHOWN = 4  # values of a sample, evenly spread
PICTURES = (1, 12, 12)  # the least shape that SSIM's whole window fits in
RELATIVE, ABSOLUTE = 1e-5, 1e-6


class Examiner:
    """It asks the methods, the reference and the metrics of one study, each once.

    Their answers are not remembered from one study to the next: a class that was corrected in place would answer as
    before.
    """

    def __init__(self, model: Model, shared: Shared, pictures: bool):
        self._stood_for, self.shared, self.pictures = model, shared, pictures
        self.labels = None if labels_of(shared.labels) is None else torch.arange(len(SEEDS))
        self._known: dict[Cell, Answers] = {}

    @cached_property
    def model(self) -> Model:
        """The model that is asked, made when it first is: it may be large."""
        return stand_in(self._stood_for)

    def of_cell(self, cell: Cell) -> Answers:
        """The answers of all that a cell depends on beside the model and the seeds: method, reference and metrics."""
        return [answer for one in questions(cell) for answer in self.of_method(one)] + self.reference + self.metrics

    def of_method(self, cell: Cell) -> Answers:
        """Numbers of samples, their cost and, for a method that can be undone, the loss of a round trip."""
        if cell not in self._known:
            self._known[cell] = answer(lambda: self._samples(cell))
            if cell.invertible:
                self._known[cell] += answer(lambda: self._round_trip(cell))
        return self._known[cell]

    def _samples(self, cell: Cell) -> Iterable[float]:
        options = self._options(cell)
        found = sample_with(self.model, options, seeds=SEEDS, labels=self.labels)
        return [*gist(found.x), *numbers(found.nfe, found.steps)]

    def _round_trip(self, cell: Cell) -> Iterable[float]:
        options = self._options(cell)
        x = seeded_noise(SEEDS, self.model.shape).clamp(-1, 1)
        return astuple(round_trip(self.model, x, options, self.labels))

    def _options(self, cell: Cell) -> SolveOptions:
        """Those of a cell, but that a tuned method may run on the mixture too."""
        return replace(cell, method=replace(cell.method, origin=None)).options(self.shared.options)

    @cached_property
    def reference(self) -> Answers:
        """The small model's own reference."""

        def solve() -> Iterable[float]:
            s = self.shared
            found = solve_reference(self.model, s.options, SEEDS, self.labels, s.reference_tol)
            return [*gist(found.x), found.tol, found.nfe_mean, found.median, found.rms]

        return answer(solve)

    @cached_property
    def metrics(self) -> Answers:
        """Every metric of fixed pictures; nothing where samples are no pictures."""

        def measure() -> Iterable[float]:
            x, y = seeded_noise(range(16), PICTURES), seeded_noise(range(16, 32), PICTURES)
            sets = astuple(distribution(x, y, "pixels"))
            pairs = numbers(psnr(x, y), ssim(x, y), consistency(x, y, "pixels"))
            return [*pairs, *(value for value in sets if isinstance(value, float))]

        return answer(measure) if self.pictures else []


def questions(cell: Cell) -> list[Cell]:
    """The cells that are asked in a cell's place: itself, unless it has a tolerance to find for a large budget."""
    if cell.nfe is None or not cell.method.adaptive:
        return [cell]
    return [replace(cell, nfe=min(cell.nfe, SMALL)), replace(cell, nfe=None, tol=FINE)]


def stand_in(model: Model) -> Model:
    """A mixture of the shape of a model, in two classes, on its path and guided as it is.

    Its values leave [-1, 1], so that what clips them shows.
    """
    if isinstance(model, Guided):
        return replace(model, model=stand_in(model.model))
    means = 1.5 * torch.arange(1, 4 * math.prod(model.shape) + 1, dtype=torch.float64).sin().reshape(4, *model.shape)
    return GaussianMixture(means, [0.03, 0.06, 0.1, 0.2], [4, 3, 2, 1], [0, 1, 0, 1]).denoiser(model.path, "data")


def of_model(model: Model, told: Told, space: FeatureSpace | None) -> list[float]:
    """Predictions for fixed noise, and features of the noise, which tell functions apart as no digest can.

    told: what the samples of the study are told, of which the first's conditions are taken.
    """
    x = seeded_noise(SEEDS, model.shape).to(model.device)
    labels = torch.zeros(2, dtype=torch.int64, device=model.device) if model.num_classes else None
    told = with_labels(told[[0, 0]].to(model.device) if isinstance(told, Conditions) else None, labels)
    low, high = max(model.sigma_min, 1e-3), min(model.sigma_max, 1e3)
    found = [model(sigma * x, sigma, told).data.cpu() for sigma in (low, math.sqrt(low * high), high)]
    found += [] if space is None else [space(x.cpu())]
    return numbers(*(part.reshape(len(part), -1)[:, :4] for part in found))


def agree(before: Answers, now: Answers) -> bool:
    """Whether two lists of answers are the same up to rounding; NaN is not the same as anything."""

    def same(a: float | str, b: float | str) -> bool:
        if isinstance(a, str) or isinstance(b, str):
            return a == b
        return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)

    return len(before) == len(now) and all(map(same, before, now))


def answer(question: Callable[[], Iterable[float]]) -> Answers:
    """The numbers that a question is answered with, or the words of an error of ours, such as of a refused budget.

    Any other exception is NaN, which agrees with nothing: a solver that fails here and not on the model has told
    nothing of its samples, and is measured every time.
    """
    try:
        return list(question())
    except DDIMError as error:
        return [f"{type(error).__name__}: {error}"]
    except Exception:
        return [math.nan]


def gist(x: Tensor) -> list[float]:
    """A few values of each sample (B, *shape), and the RMS of each, in which all of its values have a part."""
    return numbers(x.reshape(len(x), -1)[:, :: math.ceil(x[0].numel() / SHOWN)], rms_each(x))


def numbers(*parts: Tensor) -> list[float]:
    """All values of some tensors, in order."""
    return [value for part in parts for value in part.double().flatten().tolist()]
