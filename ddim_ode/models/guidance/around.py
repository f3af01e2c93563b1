"""A Model around a Model, in an interval of sigma (Kynkaanniemi et al. 2024): what every guidance has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.arguments import check_state, noise_level
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, NonFiniteError, Prediction
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.paths import Path
from ddim_ode.support.checks import ArgumentError, described
from ddim_ode.support.scalars import sigma_range
from ddim_ode.support.waiting import sent


class GuidanceError(DDIMError):
    """Guidance that a model cannot give."""


@dataclass(frozen=True)
class Around:
    """Around another model, whose path, shape, classes and device are its own. Raises ArgumentError for no model."""

    model: Model

    def __post_init__(self) -> None:
        check_inner(self.model)

    @property
    def facts(self) -> tuple[object, ...]:
        """What tells it from another of its kind around the same model, for `fingerprint`."""
        return ()

    @property
    def path(self) -> Path:
        return self.model.path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.model.shape

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def sigma_min(self) -> float:
        return self.model.sigma_min

    @property
    def sigma_max(self) -> float:
        return self.model.sigma_max

    @property
    def device(self) -> torch.device:
        return self.model.device


class Guidance(Around, ABC):
    """A model whose predictions are changed at the sigmas in a range, and left as they are outside."""

    sigma_range: tuple[float, float]  # (low, high), where it is in force: a field of every guidance, in its own place

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sigma_range", sigma_range("the guidance range ", self.sigma_range, GuidanceError))

    @property
    @abstractmethod
    def facts(self) -> tuple[object, ...]:
        """What tells it from another of its kind around the same model, for `fingerprint`."""

    @abstractmethod
    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        """The changed prediction, at sigmas, () or (B,) float64, that are all in the range."""

    @abstractmethod
    def guided_cost(self, sigma: float) -> Cost:
        """What one costs."""

    def check_told(self, told: Told, count: int) -> Told:
        """What it is told, checked for as many samples; raises GuidanceError where that says nothing to guide to."""
        return told

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        low, high = self.sigma_range
        return low <= sigma <= high

    def cost(self, sigma: float) -> Cost:
        """What a prediction at sigma costs, network passes and gradients apart."""
        return self.guided_cost(sigma) if self.acts(sigma) else cost(self.model, sigma)

    def evaluations(self, sigma: float) -> int:
        return self.cost(sigma).evaluations

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        """Predict as a `Denoiser` does, changed where sigma is in the range."""
        check_state(xbar, self.shape, GuidanceError)
        sigma = noise_level(sigma, len(xbar), GuidanceError, zero=True)  # which of them the model takes, it says itself
        if sigma.ndim:
            sigma = sigma.expand(len(xbar))
        told = self.check_told(labels, len(xbar))
        return outside_inference(self._where_it_acts, xbar, sigma, told)

    def _where_it_acts(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        within = torch.tensor([self.acts(s) for s in sigma.reshape(-1).tolist()])
        if within.all():
            return self.guided(xbar, sigma, told)
        if not within.any():
            return self.model(xbar, sigma, told)
        return self._split(xbar, sigma, told, within)

    def _split(self, xbar: Tensor, sigma: Tensor, told: Told, within: Tensor) -> Prediction:
        """Sigma is (B,), and some of the samples are in the range, the others not."""
        data, noise = torch.empty_like(xbar), torch.empty_like(xbar)
        evaluations = torch.empty(len(xbar), dtype=torch.int64)
        ways: tuple[tuple[Callable[[Tensor, Tensor, Told], Prediction], Tensor], ...]
        ways = ((self.guided, within), (self.model, ~within))
        for predict, chosen in ways:
            rows = chosen.nonzero().flatten()
            on_device = sent(rows, xbar.device)
            try:
                found = predict(xbar[on_device], sigma[rows], None if told is None else told[on_device])
            except NonFiniteError as error:
                error.sample = int(rows[error.sample])
                raise
            data[on_device], noise[on_device], evaluations[rows] = found
        return Prediction(data, noise, evaluations)


def outside_inference(
    call: Callable[[Tensor, Tensor, Told], Prediction], xbar: Tensor, sigma: Tensor, told: Told
) -> Prediction:
    """call(xbar, sigma, told), out of inference mode: on copies, since autograd refuses the tensors made in it."""
    if not torch.is_inference_mode_enabled():
        return call(xbar, sigma, told)
    with torch.inference_mode(False), torch.no_grad():
        return call(xbar.clone(), sigma.clone(), None if told is None else told.clone())


def check_inner(model: object, name: str = "model") -> None:
    """Raise ArgumentError for what is no `Model` to be around."""
    for part in ("num_classes", "path", "__call__"):
        if isinstance(model, type) or not hasattr(model, part):
            raise ArgumentError(f"{name} is {described(model)}; give a Denoiser, or something around one")


def layers(model: Model) -> Iterator[Model]:
    """The model, and those inside it, outermost first."""
    yield model
    while isinstance(model, Around):
        yield (model := model.model)
