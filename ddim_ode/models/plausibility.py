"""Does a network predict what it is said to? A few passes tell, without any data.

A denoiser that is right about what its network predicts gives D = E[x0 | xbar] and N = E[eps | xbar]. For known noise
eps and images in [-1, 1], whatever their distribution, since the derivative of D is Var[x0 | xbar] / sigma^2
(Efron 2011, Sec. 2) and a conditional mean is the best guess:

    leak = <D, eps> / <eps, eps> ~ tr Var[x0 | xbar] / (d sigma)    is in [0, min(sigma, 1 / sigma)]
    miss = |N - eps|^2 / d       ~ tr Var[x0 | xbar] / (d sigma^2)  is at most 1
    size = rms D                                                    is at most 1

A wrong kind mixes noise into D and the image into N, and breaks these bounds by far at one sigma or another. The image
that is noised begins at 0 and is what the kind itself finds at the sigma before: at large sigma it hardly matters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.equations import PREDICTS
from ddim_ode.paths import f64
from ddim_ode.support.checks import whole
from ddim_ode.support.seeds import generator

SIGMAS = (5.0, 1.5, 0.4, 0.15)
SLACK = 0.15  # of leak: at sigma = 5 a network that predicts noise may be wrong by 3 % of it
MOST_MISS, MOST_SIZE = 2.0, 1.5  # with room for images that are not of the distribution, as those found on the way are
GOOD_MISS, FAR = 0.6, 4.0  # what is good at the last sigma, and what is worse by too much
VALUES = 2048  # at least so many make the estimates of leak and miss good to 0.03


class PredictionWarning(UserWarning):
    """A network that does not seem to predict what its checkpoint says."""


@dataclass(frozen=True)
class Probe:
    """What a network may predict.

    Args:
        declared: what it is said to predict.
        faults: of each kind that it cannot be, why not.
        likely: the kind that fits best where the declared one does not fit and another one does well, or None.
    """

    declared: str
    faults: Mapping[str, str]
    likely: str | None

    @property
    def plausible(self) -> tuple[str, ...]:
        """The kinds that it may predict; more than one where the data do not tell them apart."""
        return tuple(kind for kind in PREDICTS if kind not in self.faults)

    def __str__(self) -> str:
        if self.declared not in self.faults:
            return f"predicts {self.declared}: plausible"
        likely = "nothing else is" if self.likely is None else f"{self.likely} is likely"
        return f"predicts {self.declared}: implausible ({self.faults[self.declared]}); {likely}"


@torch.no_grad()
def probe(model: Denoiser, seed: int = 0) -> Probe:
    """Compare what a network says with each kind of `PREDICTS`, at four sigmas from 5 to 0.15.

    It costs 2 passes at the first and at most 10 at each other sigma for images of 1024 values and more, typically 8 in
    all, and more passes for smaller arrays. Images are taken to be in [-1, 1].

    Raises:
        DDIMError: the model is not a `Denoiser`, so that nobody knows what its network says.
        NonFiniteError: the network returned NaN or infinity.
    """
    if not isinstance(model, Denoiser):
        raise DDIMError(f"only a Denoiser can be probed, and this is a {type(model).__name__}; give the one inside")
    seed = whole("seed", seed, DDIMError, least=None)
    count = max(2, math.ceil(VALUES / math.prod(model.shape)))
    labels = None
    if model.num_classes and not model.null_class:
        labels = torch.arange(count, device=model.device) % model.num_classes
    random = generator(seed)
    images = {kind: torch.zeros(count, *model.shape, dtype=torch.float64) for kind in PREDICTS}
    faults: dict[str, str] = {}
    misses: dict[str, float] = {}
    for sigma in SIGMAS:
        sigma = min(max(sigma, model.sigma_min), model.sigma_max)
        eps = torch.randn(count, *model.shape, dtype=torch.float64, generator=random)
        outputs: list[tuple[Tensor, Tensor]] = []  # of inputs that kinds have in common
        for kind in [kind for kind in PREDICTS if kind not in faults]:
            xbar = images[kind] + sigma * eps
            out = next((out for seen, out in outputs if torch.equal(seen, xbar)), None)
            if out is None:
                out = _output(model, xbar, sigma, labels)
                outputs.append((xbar, out))
            data, noise = _parts(model, kind, xbar, out, sigma)
            misses[kind] = float((noise - eps).square().mean())
            if fault := _fault(data, misses[kind], eps, sigma):
                faults[kind] = f"{fault} at sigma={sigma:g}"
            images[kind] = data
    best = _best(faults, misses, images)
    for kind in [kind for kind in PREDICTS if kind not in faults]:
        if best is not None and misses[kind] > FAR * misses[best]:
            faults[kind] = (
                f"the noise would be missed by {misses[kind]:.2f} of its variance, and {misses[best]:.2f} can be"
            )
    return Probe(model.predicts, faults, best if model.predicts in faults else None)


def _output(model: Denoiser, xbar: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
    """What the network said, from what the model made of it."""
    found = model(xbar.to(model.device, torch.float32), sigma, labels)
    a = model.path.scale(f64(sigma))
    p, q = PREDICTS[model.predicts](a, a * sigma)
    return p * found.data.double().cpu() + q * found.noise.double().cpu()


def _parts(model: Denoiser, kind: str, xbar: Tensor, out: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The image and the noise, if it is of that kind."""
    a = model.path.scale(f64(sigma))
    b = a * sigma
    p, q = PREDICTS[kind](a, b)
    det = a * q - b * p
    return (q * a * xbar - b * out) / det, (a * out - p * a * xbar) / det


def _fault(data: Tensor, miss: float, eps: Tensor, sigma: float) -> str | None:
    leak = float((data * eps).sum() / eps.square().sum())
    size = float(data.square().mean().sqrt())
    most = min(sigma, 1 / sigma)
    if not -SLACK <= leak <= most + SLACK:
        return f"the image would hold {leak:.2f} of the noise, where 0 to {most:.2f} can be"
    if size > MOST_SIZE:
        return f"the image would be {size:.2f} large, where 1 can be"
    if miss > MOST_MISS:
        return f"the noise would be missed by {miss:.2f} of its variance, where 1 can be"
    return None


def _best(faults: Mapping[str, str], misses: Mapping[str, float], images: Mapping[str, Tensor]) -> str | None:
    """The plausible kind that finds the largest images, if it denoises them well and they are not all alike.

    A network that predicts noise also passes for one of flow, whose images it shrinks by 1 / (1 + sigma), and such a
    thing holds for other pairs. A constant passes for one that predicts data, always the same.
    """
    sizes = {kind: float(images[kind].square().mean().sqrt()) for kind in PREDICTS if kind not in faults}
    best = max(sizes, key=lambda kind: sizes[kind], default=None)
    if best is None or misses[best] > GOOD_MISS or sizes[best] < 0.2 or float(images[best].std(0).mean()) < 0.1:
        return None
    return best
