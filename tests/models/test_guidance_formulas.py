"""Each guidance against its paper's formula, written out, on mixtures that are known in closed form; and its cost."""

import math
from itertools import pairwise

import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.classifier import Classifier
from ddim_ode.models.guidance import (
    Guided,
    GuidedByClassifier,
    GuidedByLoss,
    GuidedByProjection,
    GuidedByWeaker,
    Unconditional,
)
from ddim_ode.models.guidance.classifier_free import PlusPlus
from ddim_ode.sampling import sample
from tests.helpers.guiding import posterior
from tests.helpers.mixtures import labelled
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

PATH = PATHS["cosine"]
MIXTURE, OTHER = labelled(), labelled(seed=5)
MODEL = MIXTURE.denoiser(PATH)
WEAKER = OTHER.denoiser(paths.Flow(0.02, 60.0), "flow")
KNOWN = Classifier(posterior(MIXTURE, PATH), PATH, 3)
LABELS = torch.tensor([0, 1, 2, 1, 0])
TARGET = normal(2, 3, seed=9)
SIGMAS = [0.1, 1.0, 8.0]

each_sigma = pytest.mark.parametrize("sigma", SIGMAS)


def loss(data):
    return (data - TARGET).square().flatten(1).sum(1)


def states(sigma):
    return MIXTURE.sample(5, seed=0, sigma=sigma)


def near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def consistent(found, xbar, sigma):
    near(found.data + sigma * found.noise, xbar)


# --- each formula


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@each_sigma
def test_rescaling_is_that_of_the_velocity(sigma, share):
    """Lin et al. 2023, Eq. 15 and 16, of v = a eps - b x0 on the model's own path, a^2 + b^2 = 1."""
    xbar, a = states(sigma), PATH.scale(f64(sigma))
    b = a * sigma
    (data, noise), (data_null, noise_null) = MIXTURE.denoise(xbar, sigma, LABELS), MIXTURE.denoise(xbar, sigma)
    positive, negative = a * noise - b * data, a * noise_null - b * data_null
    guided = negative + 3.0 * (positive - negative)
    factor = positive.std(dim=(1, 2), keepdim=True) / guided.std(dim=(1, 2), keepdim=True)
    v = share * factor * guided + (1 - share) * guided
    found = Guided(MODEL, 3.0, rescale=share)(xbar, sigma, LABELS)
    near(found.data, a * a * xbar - b * v)
    near(found.noise, b * a * xbar + a * v)
    consistent(found, xbar, sigma)
    assert found.evaluations == 2


def test_a_scale_may_follow_sigma_sample_by_sample():
    sigmas, xbar = f64([0.1, 0.5, 1.0, 3.0, 9.0]), states(1.0)
    guided = Guided(MODEL, lambda sigma: 1.0 + sigma if sigma < 5 else 1.0)
    found = guided(xbar, sigmas, LABELS)
    (data, _), (null, _) = MIXTURE.denoise(xbar, sigmas, LABELS), MIXTURE.denoise(xbar, sigmas)
    scale = f64([1.1, 1.5, 2.0, 4.0, 1.0]).reshape(5, 1, 1)
    near(found.data, null + scale * (data - null))
    assert found.evaluations.tolist() == [2, 2, 2, 2, 1]
    assert [guided.evaluations(float(s)) for s in sigmas] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("scale", [0.0, 0.2, 0.6, 1.0])
def test_cfg_plus_plus_is_its_loop(scale):
    """Chung et al. 2024, Alg. 2: the guided image, and the noise of no condition to step with."""
    grid, z = [60.0, 20.0, 5.0, 3.0, 1.0, 0.3, 0.1, 0.0], normal(5, 2, 3, seed=3)
    xbar = 60.0 * z
    for sigma, after in pairwise(grid):
        (data, _), (null, noise_null) = MIXTURE.denoise(xbar, sigma, LABELS), MIXTURE.denoise(xbar, sigma)
        xbar = null + scale * (data - null) + after * noise_null
    model = Guided.plus_plus(MODEL, scale, grid)
    found = sample(model, "ddim", grid=grid, start=60.0 * z, labels=LABELS, dtype=torch.float64)
    near(found.x, xbar)
    plain = sample(Guided(MODEL, scale), "ddim", grid=grid, start=60.0 * z, labels=LABELS, dtype=torch.float64)
    assert (plain.x - xbar).abs().max() > (1e-3 if scale else -1)


def test_the_scale_of_cfg_plus_plus_between_sigmas_is_that_of_the_nearest_step():
    scale = PlusPlus(0.5, f64([8.0, 2.0, 0.5, 0.0]))
    assert [scale(s) for s in (8.0, 4.1, 3.9, 2.0, 0.5, 0.01, 0.0)] == pytest.approx(
        [2 / 3] * 2 + [2 / 3] * 2 + [0.5] * 3
    )
    assert scale(8.0 * (1 + 1e-12)) == 0.5 * 8 / 6
    assert PlusPlus(0.5, [8.0, 6.0, 0.5])(6.1) == 0.5 * 6 / 5.5


@pytest.mark.parametrize(("eta", "norm"), [(0.0, math.inf), (0.3, math.inf), (0.0, 0.5), (1.0, 0.2), (-0.5, 3.0)])
@each_sigma
def test_projection_is_its_algorithm(sigma, eta, norm):
    """Sadat et al. 2024, Alg. 1 without momentum."""
    xbar = states(sigma)
    data, null = MIXTURE.denoise(xbar, sigma, LABELS)[0], MIXTURE.denoise(xbar, sigma)[0]
    difference = data - null
    length = difference.square().sum((1, 2), keepdim=True).sqrt()
    difference = difference * torch.minimum(torch.ones_like(length), norm / length)
    unit = data / data.square().sum((1, 2), keepdim=True).sqrt()
    parallel = (difference * unit).sum((1, 2), keepdim=True) * unit
    expected = data + (4.0 - 1) * (difference - parallel + eta * parallel)
    found = GuidedByProjection(MODEL, 4.0, eta=eta, norm=norm)(xbar, sigma, LABELS)
    near(found.data, expected)
    consistent(found, xbar, sigma)
    assert found.evaluations == 2


@each_sigma
def test_all_of_the_change_and_no_bound_is_classifier_free_guidance(sigma):
    xbar = states(sigma)
    found = GuidedByProjection(MODEL, 2.5, eta=1.0)(xbar, sigma, LABELS)
    expected = Guided(MODEL, 2.5)(xbar, sigma, LABELS)
    near(found.data, expected.data)
    near(found.noise, expected.noise)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 3.0])
@each_sigma
def test_autoguidance_is_its_formula(sigma, scale):
    """Karras et al. 2024, Eq. 3: w D1 + (1 - w) D0."""
    xbar = states(sigma)
    found = GuidedByWeaker(MODEL, WEAKER, scale)(xbar, sigma, LABELS)
    one, other = MIXTURE.denoise(xbar, sigma, LABELS), OTHER.denoise(xbar, sigma, LABELS)
    near(found.data, scale * one[0] + (1 - scale) * other[0])
    near(found.noise, scale * one[1] + (1 - scale) * other[1])
    assert found.evaluations == 2


@each_sigma
def test_a_weaker_model_without_labels_makes_classifier_free_guidance(sigma):
    xbar = states(sigma)
    found, expected = (
        model(xbar, sigma, LABELS) for model in (GuidedByWeaker(MODEL, Unconditional(MODEL), 2.5), Guided(MODEL, 2.5))
    )
    near(found.data, expected.data)
    assert found.evaluations == expected.evaluations == 2


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
@each_sigma
def test_classifier_guidance_is_its_algorithm(sigma, scale):
    """Dhariwal & Nichol 2021, Alg. 2: eps - sqrt(1 - abar) grad_x log p(y | x), and Eq. 12's image from it."""
    xbar, a = states(sigma), PATH.scale(f64(sigma))
    b = a * sigma
    x = (a * xbar).requires_grad_()
    logits = KNOWN.net(x, PATH.u(f64(sigma)).expand(5))
    logits.log_softmax(1)[range(5), LABELS].sum().backward()
    eps = MIXTURE.denoise(xbar, sigma)[1] - scale * b * x.grad
    found = GuidedByClassifier(Unconditional(MODEL), KNOWN, scale)(xbar, sigma, LABELS)
    near(found.noise, eps)
    near(found.data, (x.detach() - b * eps) / a)
    assert found.evaluations == 2


@each_sigma
def test_a_perfect_classifier_makes_the_conditional_model(sigma):
    """grad log p(y | x) = grad log p(x | y) - grad log p(x), so it is guidance without one."""
    xbar = states(sigma)
    for scale in (1.0, 2.5):
        found = GuidedByClassifier(Unconditional(MODEL), KNOWN, scale)(xbar, sigma, LABELS)
        expected = Guided(MODEL, scale)(xbar, sigma, LABELS)
        torch.testing.assert_close(found.data, expected.data, rtol=0, atol=1e-10)


@each_sigma
def test_a_classifier_on_another_path_is_asked_there(sigma):
    elsewhere = paths.Flow(0.001, 1000.0)
    twin = Classifier(posterior(MIXTURE, elsewhere), elsewhere, 3)
    one, other = (
        GuidedByClassifier(Unconditional(MODEL), classifier, 2.0)(states(sigma), sigma, LABELS)
        for classifier in (KNOWN, twin)
    )
    torch.testing.assert_close(one.data, other.data, rtol=0, atol=1e-10)


def test_a_function_is_a_classifier_on_the_models_path_with_its_classes():
    found = GuidedByClassifier(MODEL, KNOWN.net, 2.0)
    assert found.known == KNOWN
    near(found(states(1.0), 1.0, LABELS).data, GuidedByClassifier(MODEL, KNOWN, 2.0)(states(1.0), 1.0, LABELS).data)


def test_samples_of_the_null_class_are_left_to_the_model():
    xbar, labels = states(1.0), torch.tensor([0, 3, 2, 3, 1])
    found = GuidedByClassifier(MODEL, KNOWN, 3.0)(xbar, 1.0, labels)
    plain = MODEL(xbar, 1.0, labels)
    assert torch.equal(found.data[[1, 3]], plain.data[[1, 3]])
    assert (found.data - plain.data)[[0, 2, 4]].abs().amax((1, 2)).min() > 1e-4


@pytest.mark.parametrize("scale", [0.3, -1.0])
@each_sigma
def test_guidance_by_a_loss_is_its_formula(sigma, scale):
    xbar = states(sigma)
    jacobian = torch.autograd.functional.jacobian(lambda x: MIXTURE.denoise(x, sigma, LABELS)[0], xbar)
    data, noise = MIXTURE.denoise(xbar, sigma, LABELS)
    gradient = torch.einsum("bij,bijbkl->bkl", 2 * (data - TARGET), jacobian)
    found = GuidedByLoss(MODEL, loss, scale)(xbar, sigma, LABELS)
    near(found.data, data - scale * sigma**2 * gradient)
    near(found.noise, noise + scale * sigma * gradient)
    assert found.evaluations == 2
