"""What a model's flow is like: a few trajectories, and how much an error on the way to the image counts at its end.

It is measured once for a model, at the cost of some forty samples, and then tells `auto_grid` where the steps of any
method should be, without asking the network again. Of a sample a few hundred numbers are kept, chosen by chance: the
mean of squares over those is that over all, near enough.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, NonFiniteError, Prediction
from ddim_ode.models.provenance import innermost
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.planning.inputs import check_model, check_seeds, seeded_noise
from ddim_ode.solvers import DivergedError, Method, adams, integrate
from ddim_ode.support.checks import as_path, flag
from ddim_ode.support.logistic import Logistic
from ddim_ode.support.seeds import generator
from ddim_ode.support.tensors import read_tensors, write_tensors

NODES, CENTRE, WIDTH = 64, 0.7, 2.5  # at which a trajectory is kept, and where they are
SHAPE = Logistic(CENTRE, WIDTH, WIDTH, 0)
PLACES = 10  # at which it is disturbed
STRIDE = 6  # of the nodes, in the steps from there to the image
SIZE = 0.01  # of what disturbs it, RMS in data units
KEPT = 512  # numbers of a sample
SEEDS = range(2**31, 2**31 + 6)  # that nobody else is likely to ask for
REMEDY = "measure the profile again"
FIELDS, NUMBERS = ("sigmas", "states", "images", "weights", "seeds"), ("labelled", "evaluations")
KIND = "ddim_ode profile 1"


class ProfileError(DDIMError):
    """A model whose flow cannot be measured, or a file that holds no profile of it."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Trajectories of a model, from its largest sigma to its smallest.

    sigmas: (M,) float64, decreasing, evenly spaced in the logistic of log sigma.
    states, images: (M, K, P) float64, xbar there and the image that is predicted, P numbers of each of K samples.
    weights: (M,) float64, the error of the image that comes of one of the state there.
    seeds: (K,) int64, of the samples. labelled: whether classes took turns.
    evaluations: network passes that all of it has cost.
    """

    sigmas: Tensor
    states: Tensor
    images: Tensor
    weights: Tensor
    seeds: Tensor
    labelled: bool
    evaluations: int

    @property
    def end(self) -> Tensor:
        """(K, P), the images in which the trajectories end."""
        return self.images[-1]

    def at(self, sigma: float) -> tuple[Tensor, Tensor]:
        """(K, P) state and image at sigma, by the cubic through the four nodes about it."""
        ends, steps = _share(self.sigmas[[0, -1]]), len(self.sigmas) - 1
        place = float((ends[0] - _share(f64(sigma))) / (ends[0] - ends[1])) * steps
        first = min(max(int(place) - 1, 0), steps - 3)
        others = [[k for k in range(4) if k != node] for node in range(4)]
        cubic = f64([math.prod((place - first - k) / (n - k) for k in rest) for n, rest in enumerate(others)])
        state, image = (torch.einsum("m,m...->...", cubic, x[first : first + 4]) for x in (self.states, self.images))
        return state, image

    def leak(self, sigma: float) -> float:
        """The share J of an error of the state at sigma that the predicted image has.

        An error d of xbar obeys d' = (1 - J) d in log sigma, by the slope of the flow, (xbar - image) / sigma; and what
        it counts, w d, stays the same on the way. So J = 1 + d log w / d log sigma, and the last w itself.
        """
        return float(np.interp(-math.log(sigma), *self._leaks))

    @cached_property
    def _leaks(self) -> tuple[np.ndarray, np.ndarray]:
        """-log sigma of the nodes, rising, and the shares there."""
        rising, log_w = -self.sigmas.log().numpy(), self.weights.log().numpy()
        shares = 1 - np.gradient(log_w, rising)
        shares[-1] = math.exp(log_w[-1])
        return rising, np.clip(shares, 0, 1)

    def missed(self, model: Model, method: Method, sigmas: Tensor) -> float:
        """What the method on that grid misses on the model itself, at the ends: RMS, geometric mean over the samples.

        Infinite where it diverges.
        """
        start, labels = _begin(model, self.seeds.tolist(), self.labelled)
        ode = ProbabilityFlow(model, method.path, (0.0, model.sigma_max), labels)
        try:
            found = integrate(ode, method.solver, sigmas, start)
        except (NonFiniteError, DivergedError):
            return math.inf
        errors = (_kept(found) - self.end).square().mean(1).sqrt()
        return float(errors.clamp(min=1e-15).log().mean().exp())

    def check(self, model: Model) -> None:
        """Raise ProfileError unless it may be of that model: of its sigmas, its shape and its classes."""
        ends, own = self.sigmas[[0, -1]].tolist(), [model.sigma_max, model.sigma_min]
        if any(abs(math.log(a / b)) > 1e-6 for a, b in zip(ends, own, strict=True)):
            raise ProfileError(
                f"the profile is of a model from sigma={ends[1]:g} to {ends[0]:g}, and this one's are {own[1]:g} and"
                f" {own[0]:g}; {REMEDY}"
            )
        size = math.prod(model.shape)
        if self.end.shape[1] != min(size, KEPT) or (self.labelled and not model.num_classes):
            numbers = f"{self.end.shape[1]}{' or more' * (self.end.shape[1] == KEPT)} numbers a sample"
            raise ProfileError(
                f"the profile is of a model with {numbers} and {'classes' if self.labelled else 'no classes'},"
                f" and this one has {size} and {model.num_classes} classes; {REMEDY}"
            )

    def save(self, file: Path) -> None:
        """Write it into a safetensors file of ours. Raises OutputError."""
        numbers = {name: torch.tensor(int(getattr(self, name))) for name in NUMBERS}
        write_tensors(as_path("file", file), {name: getattr(self, name) for name in FIELDS} | numbers, {"kind": KIND})

    @staticmethod
    def load(file: Path) -> "Profile":
        """Read back what `save` has written. Raises ProfileError for a file that is damaged or holds something else."""
        file = as_path("file", file)
        tensors, told = read_tensors(file, ProfileError, REMEDY)
        if told.get("kind") != KIND or {*FIELDS, *NUMBERS} - tensors.keys():
            raise ProfileError(f"{file} holds no profile of a model; {REMEDY}")
        found: dict[str, Any] = {name: tensors[name] for name in FIELDS}
        return Profile(**found, labelled=bool(tensors["labelled"]), evaluations=int(tensors["evaluations"]))


def measure(model: Model, labelled: bool = False, seeds: Sequence[int] = SEEDS) -> Profile:
    """Follow a few samples to their images, and disturb them on the way.

    Args:
        model: the network, or one that is guided.
        labelled: classes in turn, where the model has any; otherwise the null class.
        seeds: of the samples.

    Raises:
        ProfileError: a model without a finite range of sigma.
        SampleError, ArgumentError: what is no model, or are no seeds.
        NonFiniteError, DivergedError: as a sample's.
    """
    check_model(model)
    seeds, labelled = check_seeds(seeds), flag("labelled", labelled) and bool(model.num_classes)
    if not 0 < model.sigma_min < model.sigma_max < math.inf:
        raise ProfileError(
            f"grid='auto' needs a finite range of sigma, and this model's is [{model.sigma_min:g}, {model.sigma_max:g}]"
            "; give its path sigma_min and sigma_max, or an explicit grid"
        )
    start, labels = _begin(model, seeds, labelled)
    sigmas = SHAPE.nodes(model.sigma_max, model.sigma_min, NODES)
    places = torch.linspace(1, NODES - 1, PLACES).round().long().tolist()
    before = [max(n - 3, 0) for n in places]
    record = _Record(model, {float(sigmas[n]) for n in (*places, *before)})
    _run(record, start, sigmas, labels)
    counted = []
    for n, m in zip(places, before, strict=True):
        (state, image), (_, last) = (record.whole[float(sigmas[k])] for k in (n, m))
        counted.append(_count(record, state, image - last, sigmas[n:], labels))
    said = [record.said[sigma] for sigma in sigmas.tolist()]
    states, images = (torch.stack(kept) for kept in zip(*said, strict=True))
    weights = _between(places, counted)
    return Profile(sigmas, states, images, weights, torch.tensor(list(seeds)), labelled, record.evaluated)


def _begin(model: Model, seeds: Sequence[int], labelled: bool) -> tuple[Tensor, Tensor | None]:
    """xbar of the seeds at the largest sigma, and labels in turn if there are any."""
    noise = seeded_noise(list(seeds), model.shape).to(model.device)
    classes = torch.arange(len(seeds), device=model.device) % max(model.num_classes, 1)
    return noise * model.path.prior_std(f64(model.sigma_max)).to(noise), classes if labelled else None


def _kept(x: Tensor) -> Tensor:
    """(K, P) float64, the numbers that are kept of samples (K, *shape)."""
    flat = x.reshape(len(x), -1)
    return flat[:, torch.randperm(flat.shape[1], generator=generator(0))[:KEPT].to(x.device)].double().cpu()


_MEASURED: WeakKeyDictionary[Any, dict[tuple[Any, ...], Profile]] = WeakKeyDictionary()


def profile_of(model: Model, labelled: bool) -> Profile:
    """The profile of a model: measured the first time it is asked for, and kept as long as its network is there.

    Raises as `measure`.
    """
    inner = innermost(model)
    guided = (getattr(model, "scale", 1.0), getattr(model, "sigma_range", None)) if inner is not model else ()
    key = (model.path, guided, labelled and bool(model.num_classes))
    try:
        known = _MEASURED.setdefault(getattr(inner, "net", inner), {})
    except TypeError:  # of something that cannot be watched
        known = {}
    if key not in known:
        known[key] = measure(model, labelled)
    return known[key]


def _between(places: Sequence[int], counted: Sequence[float]) -> Tensor:
    """What was counted at some nodes, at all of them: a monotone cubic of its logarithm, before the first as there."""
    found = PchipInterpolator([0, *places], np.log([counted[0], *counted]))
    return f64(np.exp(found(np.arange(NODES))))


def _count(model: "_Record", state: Tensor, change: Tensor, sigmas: Tensor, labels: Tensor | None) -> float:
    """By how much an error of a state has grown in the image, if it is as the image changes there; geometric mean."""
    size = _sizes(change).clamp(min=1e-12)
    error = SIZE * change / size.reshape(-1, *[1] * (change.ndim - 1))
    way = torch.cat([sigmas[:-1:STRIDE], sigmas[-1:]])
    both = None if labels is None else torch.cat([labels, labels])
    disturbed, plain = _run(model, torch.cat([state + error, state]), way, both).chunk(2)
    grown = _sizes(disturbed - plain) / _sizes(error).clamp(min=1e-30)
    return float(grown.double().clamp(1e-6, 1e6).log().mean().exp())


def _sizes(x: Tensor) -> Tensor:
    """(K,) root mean squares of samples."""
    return x.reshape(len(x), -1).square().mean(1).sqrt()


def _run(model: Model, start: Tensor, sigmas: Tensor, labels: Tensor | None) -> Tensor:
    """The images of xbar at the first of the sigmas; the last evaluation is at the last of them."""
    method = adams(3 if len(sigmas) > NODES / STRIDE + 1 else 2, "data", "log_snr")
    ode = ProbabilityFlow(model, method.path, (model.sigma_min, model.sigma_max), labels)
    return integrate(ode, method.solver, torch.cat([sigmas, f64([0.0])]), start)


class _Record:
    """A model that remembers what it was asked first at each sigma, and has said: some numbers, and all where told."""

    def __init__(self, model: Model, places: set[float]):
        self.model, self.path, self.shape, self.num_classes = model, model.path, model.shape, model.num_classes
        self.device, self.sigma_min, self.sigma_max = model.device, model.sigma_min, model.sigma_max
        self.places, self.whole = places, dict[float, tuple[Tensor, Tensor]]()
        self.said: dict[float, tuple[Tensor, Tensor]] = {}
        self.evaluated = 0

    def evaluations(self, sigma: float) -> int:
        return self.model.evaluations(sigma)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        found, sigma = self.model(xbar, sigma, labels), float(sigma)
        if sigma not in self.said:
            self.said[sigma] = _kept(xbar), _kept(found.data)
            if sigma in self.places:
                self.whole[sigma] = xbar, found.data
        self.evaluated += len(xbar) * int(found.evaluations)
        return found


def _share(sigma: Tensor) -> Tensor:
    """The coordinate in which the nodes are spaced evenly."""
    return torch.special.expit((sigma / CENTRE).log() / WIDTH)
