"""Classifier-free guidance (Ho & Salimans 2022, Eq. 6): a denoiser around a denoiser.

guided = null + scale (conditional - null),        inside an interval of sigma (Kynkaanniemi et al. 2024)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.arguments import check_state, label_numbers, noise_level
from ddim_ode.models.denoiser import Model, NonFiniteError, Prediction
from ddim_ode.paths import Path
from ddim_ode.support.checks import ArgumentError, described, shown
from ddim_ode.support.scalars import number, sigma_range

#: the largest batch whose two passes run as one of twice the size; beyond it a CPU is busy with one
TOGETHER = 16


class GuidanceError(DDIMError):
    """Guidance that a model cannot give."""


@dataclass(frozen=True)
class Guided:
    """A `Model` whose predictions for a label are pushed away from those for the null class.

    Args:
        model: a class-conditional denoiser.
        scale: 1 is the model itself, 0 ignores the label, more than 1 exaggerates it.
        sigma_range: (low, high): outside it the model is evaluated once, without guidance.

    Inside the range a prediction costs two evaluations.

    Raises:
        GuidanceError: the model has no classes, the scale is not finite or the range is empty.
        ArgumentError: what is no model.
    """

    model: Model
    scale: float
    sigma_range: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        for part in ("num_classes", "path", "__call__"):
            if isinstance(self.model, type) or not hasattr(self.model, part):
                raise ArgumentError(f"model is {described(self.model)}; give a Denoiser, or something around one")
        if not math.isfinite(scale := number(self.scale)):
            raise GuidanceError(f"guidance={shown(self.scale)} is not finite; use a number such as 2.0")
        if not isinstance(self.scale, int | float):  # one of NumPy's or torch's
            object.__setattr__(self, "scale", scale)
        if not self.model.num_classes:
            raise GuidanceError(f"guidance={self.scale:g} needs a class-conditional model; use guidance=1")
        object.__setattr__(self, "sigma_range", sigma_range("the guidance range ", self.sigma_range, GuidanceError))

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

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        low, high = self.sigma_range
        return self.scale != 1 and low <= sigma <= high

    def evaluations(self, sigma: float) -> int:
        return self.model.evaluations(sigma) * (2 if self.acts(sigma) else 1)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Prediction:
        """Predict as a `Denoiser` does, pushed away from the null class. Raises GuidanceError without labels."""
        if labels is None:
            raise GuidanceError(f"guidance={self.scale:g} has no labels to guide to; give labels, or use guidance=1")
        check_state(xbar, self.shape, GuidanceError)
        sigma = noise_level(sigma, len(xbar), GuidanceError, zero=True)  # which of them the model takes, it says itself
        if sigma.ndim:
            sigma = sigma.expand(len(xbar))
        labels = label_numbers(labels, len(xbar), self.num_classes, GuidanceError)
        guided = torch.tensor([self.acts(s) for s in sigma.reshape(-1).tolist()])
        if guided.all():
            return self._both(xbar, sigma, labels)
        if not guided.any():
            return self.model(xbar, sigma, labels)
        return self._split(xbar, sigma, labels, guided)

    def _both(self, xbar: Tensor, sigma: Tensor, labels: Tensor) -> Prediction:
        null = torch.full_like(labels, self.num_classes)
        if len(xbar) <= TOGETHER:
            twice = torch.cat([sigma, sigma]) if sigma.ndim else sigma
            try:
                both = self.model(torch.cat([xbar, xbar]), twice, torch.cat([labels, null]))
            except NonFiniteError as error:
                error.sample %= len(xbar)
                raise
            (data, data_null), (noise, noise_null) = both.data.chunk(2), both.noise.chunk(2)
            spent = torch.as_tensor(both.evaluations).expand(2 * len(xbar)).reshape(2, -1).sum(0)
            evaluations: int | Tensor = spent if isinstance(both.evaluations, Tensor) else 2 * both.evaluations
        else:
            one, other = self.model(xbar, sigma, labels), self.model(xbar, sigma, null)
            data, data_null, noise, noise_null = one.data, other.data, one.noise, other.noise
            evaluations = one.evaluations + other.evaluations
        return Prediction(
            data=torch.lerp(data_null, data, self.scale),
            noise=torch.lerp(noise_null, noise, self.scale),
            evaluations=evaluations,
        )

    def _split(self, xbar: Tensor, sigma: Tensor, labels: Tensor, guided: Tensor) -> Prediction:
        """Sigma is (B,), and some of the samples are in the range: those cost two evaluations, the others one."""
        data, noise = torch.empty_like(xbar), torch.empty_like(xbar)
        evaluations = torch.empty(len(xbar), dtype=torch.int64)
        for predict, chosen in ((self._both, guided), (self.model, ~guided)):
            rows = chosen.nonzero().flatten()
            on_device = rows.to(xbar.device)
            try:
                found = predict(xbar[on_device], sigma[rows], labels[on_device])
            except NonFiniteError as error:
                error.sample = int(rows[error.sample])
                raise
            data[on_device], noise[on_device], evaluations[rows] = found
        return Prediction(data, noise, evaluations)
