"""Samples of a guided flow against exact samples of the tilted density, by a permutation test of the energy distance.

On a mixture the classifier of Bayes' rule is known, p(x) p(y | x) is the mixture of the class's components, and the
flow that its guidance makes is exact, so that nothing but the solver's error is between the two sets.
"""

import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.classifier import Classifier
from ddim_ode.models.guidance import GuidedByClassifier, GuidedByLoss, Unconditional
from ddim_ode.sampling import sample
from tests.helpers.guiding import posterior
from tests.helpers.tensors import f64

PATH = paths.Flow(0.002, 500.0)
MEANS = f64([[-1.0, 0.0], [0.2, 0.9], [0.8, -0.6], [0.1, 0.1]])
MIXTURE = GaussianMixture(MEANS, [0.3, 0.2, 0.4, 0.25], [1, 2, 3, 2], [0, 1, 0, 1])
MODEL = Unconditional(MIXTURE.denoiser(PATH, "flow"))
KNOWN = Classifier(posterior(MIXTURE, PATH), PATH, 2)
COUNT, PERMUTATIONS = 500, 400


def of_class(label: int) -> torch.Tensor:
    """Exact samples of a class: of the mixture of its components."""
    rows = MIXTURE.labels == label
    return GaussianMixture(MIXTURE.means[rows], MIXTURE.stds[rows], MIXTURE.weights[rows]).sample(
        COUNT, seed=10 + label
    )


def p_value(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of the hypothesis that two sets come from one distribution (Szekely & Rizzo 2004), by permutations."""
    distances = torch.cdist(both := torch.cat([a, b]), both)
    g = torch.Generator().manual_seed(0)

    def energy(order):
        sign = torch.ones(len(both), dtype=torch.float64)
        sign[order[len(a) :]] = -1
        return float(-sign @ distances @ sign)

    observed = energy(torch.arange(len(both)))
    larger = sum(energy(torch.randperm(len(both), generator=g)) >= observed for _ in range(PERMUTATIONS))
    return (1 + larger) / (1 + PERMUTATIONS)


def drawn(model, **options):
    found = sample(model, "adams3", nfe=80, seeds=range(COUNT), batch_size=COUNT, dtype=torch.float64, **options)
    return found.x


@pytest.mark.parametrize("label", [0, 1])
def test_samples_guided_by_the_known_classifier_are_those_of_its_class(label):
    assert p_value(drawn(GuidedByClassifier(MODEL, KNOWN), labels=label), of_class(label)) > 0.01


@pytest.mark.parametrize("label", [0, 1])
def test_the_test_rejects_samples_without_guidance_with_too_much_and_of_the_other_class(label):
    exact = of_class(label)
    assert p_value(drawn(MODEL), exact) < 0.01
    assert p_value(drawn(GuidedByClassifier(MODEL, KNOWN, 3.0), labels=label), exact) < 0.01
    assert p_value(of_class(1 - label), exact) < 0.01


def test_samples_guided_by_a_linear_loss_are_those_of_the_shifted_gaussian():
    """N(m, s^2) exp(-k c x) is N(m - k s^2 c, s^2).

    Here the loss of the predicted image is no guess: the gradient k c s^2 / (s^2 + sigma^2) is the noisy density's.
    """
    gaussian, slope = GaussianMixture(f64([[0.4, -0.2]]), 0.5), f64([1.0, -2.0])
    model = GuidedByLoss(gaussian.denoiser(PATH, "flow"), lambda data: data @ slope.to(data), 0.8)
    exact = GaussianMixture(gaussian.means - 0.8 * 0.25 * slope, 0.5).sample(COUNT, seed=3)
    assert p_value(drawn(model), exact) > 0.01
    assert p_value(drawn(gaussian.denoiser(PATH, "flow")), exact) < 0.01
