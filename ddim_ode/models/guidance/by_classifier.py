"""Classifier guidance (Dhariwal & Nichol 2021, arXiv:2105.05233, Eq. 14 and Alg. 2): up the log-probability of a class.

    noise - scale b grad_x log p(y | x),        x = a xbar on the classifier's path, so b grad_x = sigma grad_xbar

The classifier knows noisy images, so that no guess is made: at scale 1, with a perfect classifier and an unconditional
model, samples are those of the class. The gradient does not pass the model's network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ddim_ode.models.arguments import class_labels
from ddim_ode.models.classifier import Classifier
from ddim_ode.models.conditions import Told, labels_of, with_labels
from ddim_ode.models.denoiser import NonFiniteError, Prediction
from ddim_ode.models.failures import check_finite
from ddim_ode.models.guidance.around import Around, Guidance, GuidanceError
from ddim_ode.models.guidance.cost import Cost, cost
from ddim_ode.models.guidance.gradient import differentiated
from ddim_ode.models.guidance.scales import Scale, checked_scale, facts_of, scale_at, scales_at, tilted, words


class NonFiniteClassifierError(NonFiniteError):
    """A classifier's gradient is NaN or infinity."""

    what, remedy = "the classifier's gradient", "check its weights and precision"


@dataclass(frozen=True)
class Unconditional(Around):
    """A model that is told no label, whatever it is told: one without classes, made of a conditional one."""

    @property
    def num_classes(self) -> int:
        return 0

    def evaluations(self, sigma: float) -> int:
        return self.model.evaluations(sigma)

    def cost(self, sigma: float) -> Cost:
        """What a prediction at sigma costs, network passes and gradients apart."""
        return cost(self.model, sigma)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        """Predict as the model does of the null class; tensors among the conditions stay."""
        return self.model(xbar, sigma, with_labels(labels, None))


@dataclass(frozen=True)
class GuidedByClassifier(Guidance):
    """A model whose samples are led to a class by a classifier of noisy images.

    Args:
        model: an unconditional denoiser, or one with the classifier's classes, which is told the label as well;
            `Unconditional(model)` tells it none.
        classifier: a `Classifier`; or a function (x, t) -> logits (B, K) on the model's own path, x = a x0 + b eps and
            t its time, with as many classes as the model has.
        scale: 0 is the model itself; 1 the class, as the classifier has it; more than 1 exaggerates. Or a function of
            sigma.
        sigma_range: (low, high): outside it there is no guidance.

    Inside the range a prediction costs one evaluation more, the classifier's gradient: see `cost`, which keeps it
    apart. Samples of the null class are left to the model.

    Raises:
        GuidanceError: numbers of classes that differ, a scale that is not finite, an empty range; when called, no
            labels.
        ClassifierError: when called, logits of another shape.
        NonFiniteError: when called, logits or a gradient that are not finite; it names sigma and the sample.
        ArgumentError: what is no model, or no function.
    """

    classifier: Classifier | Callable[[Tensor, Tensor], Tensor]
    scale: Scale = 1.0
    sigma_range: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", checked_scale(self.scale))
        classes = self.model.num_classes
        if not isinstance(self.classifier, Classifier):
            if not classes:
                raise GuidanceError(
                    "the model has no classes, so that a function does not say how many it knows; give"
                    " Classifier(function, path, num_classes)"
                )
            object.__setattr__(self, "classifier", Classifier(self.classifier, self.model.path, classes))
        if (here := self.known.device) not in (None, self.model.device):
            where = self.model.device
            raise GuidanceError(f"the classifier is on {here}, and the model on {where}; give classifier.to('{where}')")
        if classes not in (0, self.known.num_classes):
            raise GuidanceError(
                f"the classifier knows {self.known.num_classes} classes, and the model {classes}; give one of these"
                " classes, or Unconditional(model)"
            )

    @property
    def known(self) -> Classifier:
        """The classifier, on its path."""
        assert isinstance(self.classifier, Classifier)
        return self.classifier

    @property
    def num_classes(self) -> int:
        return self.known.num_classes

    @property
    def facts(self) -> tuple[object, ...]:
        return facts_of(self.scale, self.model), self.sigma_range, self.known

    def acts(self, sigma: float) -> bool:
        """Whether guidance is in force at sigma."""
        return super().acts(sigma) and scale_at(self.scale, sigma) != 0

    def guided_cost(self, sigma: float) -> Cost:
        return cost(self.model, sigma) + Cost(0, 1)

    def check_told(self, told: Told, count: int) -> Told:
        if (labels := labels_of(told)) is None:
            raise GuidanceError(f"guidance={words(self.scale)} by a classifier has no labels to guide to; give labels")
        return with_labels(told, class_labels(labels, count, self.num_classes, GuidanceError))

    def guided(self, xbar: Tensor, sigma: Tensor, told: Told) -> Prediction:
        labels = labels_of(told)
        assert labels is not None
        prediction = self.model(xbar, sigma, told if self.model.num_classes else with_labels(told, None))
        gradient = self.gradient(xbar, sigma, labels)
        found = tilted(prediction, gradient, sigma, scales_at(self.scale, sigma))
        return found._replace(evaluations=prediction.evaluations + 1)

    def gradient(self, xbar: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The gradient in xbar of -log p(label | xbar), (B, *shape); zero for the null class."""

        def losses(x: Tensor) -> tuple[None, Tensor]:
            found = F.cross_entropy(self.known(x, sigma), labels, reduction="none", ignore_index=self.num_classes)
            return None, found

        _, gradient = differentiated(losses, xbar)
        check_finite(gradient.detach(), sigma, NonFiniteClassifierError)
        return gradient
