"""The zoo: models on the paths that people hold models on, each with a truth that can be trusted.

A problem is named family/path/condition. Families:

relabelled   the bundled network `fashion`, told its own time through sigma, so that it is a model on the path; with
             its classes in turn ("labels"), without any ("null") and guided at scale 3 ("guided")
digits-0.05, digits-0.15
             mixtures of 400 scanned digits of 8 x 8 pixels with that standard deviation, known in closed form
field-32, field-64, field-256
             Gaussian fields with the spectrum of natural images, whose flow is known exactly; the last in colour
fields-32    a mixture of six of them

The truth of networks is found by exponential Adams 3 in 160 steps of log sigma, that of mixtures by 600; one on another
path with fewer steps says how far it can be trusted. Constants of the library were chosen on half of the problems
(`chosen_on`), the others judge them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import ddim_ode
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.fields import GaussianField
from ddim_ode.models.guidance import Guided
from ddim_ode.paths import DiscreteVP, Flow, Noise, Path, f64
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.solvers import adams

GUIDANCE = 3.0


@dataclass(frozen=True)
class ShiftedFlow(Flow):
    """A flow whose times are shifted towards the noise, u' = s u / (1 + (s - 1) u) (Esser et al. 2024, Eq. 23)."""

    shift: float = 1.0

    def sigma(self, u: Tensor) -> Tensor:
        return self.shift * u / (1 - u)

    def u(self, sigma: Tensor) -> Tensor:
        return sigma / (self.shift + sigma)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.shift / (1 - u + self.shift * u) ** 2  # of the time that is not shifted
        return -slope, slope


def sigmoid() -> DiscreteVP:
    """Betas on a sigmoid from 1e-4 to 0.02, as diffusers has them."""
    return DiscreteVP.from_betas(torch.sigmoid(torch.linspace(-6, 6, 1000).double()).numpy() * (0.02 - 1e-4) + 1e-4)


PATHS: dict[str, Path] = {
    "linear": DiscreteVP.linear(),
    "scaled_linear": DiscreteVP.scaled_linear(1000, 0.00085, 0.012),
    "cosine": DiscreteVP.cosine(),
    "sigmoid": sigmoid(),
    "edm": Noise(0.0065, 80.0),
    "ve": Noise(0.01, 50.0),
    "flow": Flow(0.007, 999.0),
    "flow-3": ShiftedFlow(0.007, 999.0, 3.0),
}
CONDITIONS = ("labels", "null", "guided")
DIGITS = {"digits-0.05": 0.05, "digits-0.15": 0.15}
FIELDS = {"field-32": (1, 32, 32), "field-64": (1, 64, 64), "field-256": (3, 256, 256)}
FAMILIES = (*DIGITS, "field-32", "field-64", "fields-32", "relabelled", "field-256")


@dataclass(frozen=True)
class Problem:
    """A model, noise to start from, labels if it has any, and where the exact flow leads from there."""

    name: str
    model: Model
    noise: Tensor  # (K, *shape) standard normal
    labels: Tensor | None
    truth: Tensor  # (K, *shape) float64
    doubt: float  # median over samples of the distance of a second truth, RMS

    def sample(self, method: Any, **choices: Any) -> ddim_ode.Solution:
        return ddim_ode.sample(self.model, method, noise=self.noise, labels=self.labels, **choices)

    def errors(self, x: Tensor) -> Tensor:
        """(K,) RMS over a sample."""
        return (x.double() - self.truth).flatten(1).square().mean(1).sqrt()


def names() -> list[str]:
    relabelled = [f"relabelled/{path}/{condition}" for path in PATHS for condition in CONDITIONS]
    return [*relabelled, *(f"{family}/{path}" for family in (*DIGITS, *FIELDS, "fields-32") for path in PATHS)]


def chosen_on(name: str) -> bool:
    """Whether constants may be chosen on it: half of the families on half of the paths each."""
    family, path, *rest = name.split("/")
    place = FAMILIES.index(family) + list(PATHS).index(path)
    return (place + sum(CONDITIONS.index(condition) for condition in rest)) % 2 == 0


def relabelled(model: Denoiser, path: Path) -> Denoiser:
    """The model as one on another path, of noise."""

    def net(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        u = t.double()
        scale = path.coefficients(u)[0].to(x).reshape(-1, *[1] * (x.ndim - 1))
        return model(x / scale, path.sigma(u), labels).noise

    return Denoiser(net, path, "noise", model.shape, model.num_classes)


@cache
def fashion() -> Denoiser:
    return ddim_ode.load("fashion")


def digits() -> Tensor:
    """(400, 1, 8, 8) in [-1, 1]."""
    return torch.as_tensor(load_digits().data[:400] / 8 - 1).reshape(-1, 1, 8, 8)


def begun(name: str, count: int) -> Problem:
    """The problem, its truth still to be found unless it is known."""
    family, at, *rest = name.split("/")
    path, labels = PATHS[at], None
    model: Model
    if family == "relabelled":
        model = relabelled(fashion(), path)
        if rest != ["null"]:
            labels = torch.arange(count) % model.num_classes
        if rest == ["guided"]:
            model = Guided(model, GUIDANCE)
    elif family in DIGITS:
        model = GaussianMixture(digits(), DIGITS[family]).denoiser(path)
    elif family in FIELDS:
        model = GaussianField(FIELDS[family]).denoiser(path)
    else:
        means = GaussianField((1, 32, 32)).sample(6, seed=1)
        model = GaussianField((1, 32, 32), std=0.2, means=means).denoiser(path)
    return Problem(name, model, seeded_noise(range(count), model.shape), labels, torch.empty(0), 0.0)


def problem(name: str, count: int) -> Problem:
    """The problem, with its truth."""
    found = begun(name, count)
    if name.split("/")[0] in FIELDS:
        return _exact(found)
    truth, second = references(found)
    doubt = (truth - second).flatten(1).square().mean(1).sqrt().median()
    return Problem(name, found.model, found.noise, found.labels, truth, float(doubt))


def _exact(found: Problem) -> Problem:
    """A field's flow, from the largest sigma to the smallest, and the image that is predicted there."""
    family, at = found.name.split("/")
    path, field = PATHS[at], GaussianField(FIELDS[family])
    start = found.noise.double() * path.prior_std(f64(path.sigma_max))
    truth = field.denoise(field.flow(start, path.sigma_max, path.sigma_min), path.sigma_min)[0]
    return Problem(found.name, found.model, found.noise, found.labels, truth, 0.0)


def references(found: Problem) -> Iterator[Tensor]:
    """Two images of each sample, by solvers of two families on grids of two kinds."""
    steps = 160 if found.name.startswith("relabelled") else 600
    cost = found.model.evaluations(1.0)
    if math.isinf(found.model.sigma_max):
        raise ValueError(f"{found.name} has no largest sigma")
    for method, count in ((adams(3, "data", "log_snr"), steps), (adams(4, "angle"), steps * 4 // 5)):
        yield found.sample(method, nfe=(count + 3) * cost, grid="log_snr", dtype=torch.float64).x.double()
