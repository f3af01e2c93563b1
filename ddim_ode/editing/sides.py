"""What an image is edited from and to, and models that tell a sample one or the other.

A solver tells its model one thing a sample. Here that is the sample's number, so that what is told in its place may
change with sigma, and by model.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ddim_ode.models.conditions import Conditions, Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.models.guidance import Around, Cost, cost
from ddim_ode.planning.inputs import Labels, asked
from ddim_ode.planning.plan import Plan


@dataclass(frozen=True)
class Side:
    """What images are encoded or decoded under: a condition, how strongly, and by which model.

    Args:
        labels: (B,) or one int for all, in 0..num_classes-1; None is the null class.
        conditions, null, guidance, guidance_range: as in `sample`.
        model: another than the one that edits, of the same data; to meet in the latent, both must reach its sigma.
    """

    labels: Labels = None
    _: KW_ONLY
    conditions: Mapping[str, Tensor] | None = None
    null: Mapping[str, Tensor] | None = None
    guidance: float = 1.0
    guidance_range: tuple[float, float] | None = None
    model: Model | None = None

    def told(self, model: Model) -> Labels | Conditions:
        """The labels and conditions in one value. Raises ConditionError, and SampleError, as `sample` does."""
        return asked(model, self.labels, self.conditions, self.null)


def side_of(given: "Side | Labels") -> Side:
    """A side, of labels alone where that is what there is."""
    return given if isinstance(given, Side) else Side(given)


@dataclass(frozen=True)
class Numbered(Around):
    """A model that is given the numbers of samples, and tells itself what `told` holds of each."""

    told: Told

    @classmethod
    def of(cls, plan: Plan, rows: Tensor) -> "Numbered":
        """The model of a plan, for samples that are told what those `rows` of the plan are."""
        told = plan.labels
        return cls(plan.model, None if told is None else told[rows].to(plan.model.device))

    def evaluations(self, sigma: float) -> int:
        return self.model.evaluations(sigma)

    def cost(self, sigma: float) -> Cost:
        """What a prediction at sigma costs, network passes and gradients apart."""
        return cost(self.model, sigma)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        assert isinstance(labels, Tensor)
        return self.model(xbar, sigma, None if self.told is None else self.told[labels])


@dataclass(frozen=True)
class Mixed(Around):
    """Two models at once: the prediction of sample i is (1 - shares[i]) of the one's, and shares[i] of the other's.

    Both are told the sample's number.
    """

    other: Model
    shares: Tensor  # (B,) float64

    def evaluations(self, sigma: float) -> int:
        return self.cost(sigma).evaluations

    def cost(self, sigma: float) -> Cost:
        """What a prediction at sigma costs, network passes and gradients apart."""
        return cost(self.model, sigma) + cost(self.other, sigma)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        assert isinstance(labels, Tensor)
        one, other = self.model(xbar, sigma, labels), self.other(xbar, sigma, labels)
        share = self.shares.to(xbar)[labels].reshape(-1, *[1] * len(self.shape))
        return Prediction(
            data=torch.lerp(one.data, other.data, share),
            noise=torch.lerp(one.noise, other.noise, share),
            evaluations=one.evaluations + other.evaluations,
        )
