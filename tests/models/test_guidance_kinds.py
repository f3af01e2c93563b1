"""What every guidance keeps: a scale at which it does nothing, its range, its precision, its cost, its latents."""

from dataclasses import replace

import pytest
import torch

from ddim_ode import paths
from ddim_ode.inversion import decode, encode
from ddim_ode.models.classifier import Classifier
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import (
    Cost,
    Guided,
    GuidedByClassifier,
    GuidedByLoss,
    GuidedByProjection,
    GuidedByWeaker,
    Unconditional,
    cost,
)
from ddim_ode.sampling import sample
from tests.helpers.guiding import Tallied, posterior
from tests.helpers.mixtures import labelled
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

PATH = PATHS["cosine"]
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(PATH)
WEAKER = labelled(seed=5).denoiser(paths.Flow(0.02, 60.0), "flow")
KNOWN = Classifier(posterior(MIXTURE, PATH), PATH, 3)
LABELS = torch.tensor([0, 1, 2, 1, 0])
TARGET = normal(2, 3, seed=9)

each_sigma = pytest.mark.parametrize("sigma", [0.1, 1.0, 8.0])


def loss(data):
    return (data - TARGET).square().flatten(1).sum(1)


def states(sigma):
    return MIXTURE.sample(5, seed=0, sigma=sigma)


def near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def kinds(model: Denoiser = MODEL, **options):
    """Every guidance around a model, and the scale at which it is the model itself."""
    return {
        "classifier-free": lambda scale: Guided(model, scale, **options),
        "rescaled": lambda scale: Guided(model, scale, rescale=0.7, **options),
        "projected": lambda scale: GuidedByProjection(model, scale, norm=1.0, **options),
        "weaker": lambda scale: GuidedByWeaker(model, WEAKER, scale, **options),
        "classifier": lambda scale: GuidedByClassifier(model, KNOWN, scale, **options),
        "loss": lambda scale: GuidedByLoss(model, loss, scale, **options),
    }


NEUTRAL = {name: 0 if name in ("classifier", "loss") else 1 for name in kinds()}
each_kind = pytest.mark.parametrize("name", NEUTRAL)


@each_kind
@each_sigma
def test_there_is_a_scale_at_which_it_is_the_model_itself(name, sigma):
    found, plain = kinds()[name](NEUTRAL[name])(states(sigma), sigma, LABELS), MODEL(states(sigma), sigma, LABELS)
    assert torch.equal(found.data, plain.data)
    assert torch.equal(found.noise, plain.noise)
    assert found.evaluations == 1
    function = kinds()[name](lambda sigma: NEUTRAL[name])
    assert torch.equal(function(states(sigma), sigma, LABELS).data, plain.data)
    assert function.evaluations(sigma) == 1


@each_kind
def test_it_holds_in_its_range_and_each_sample_has_its_own_sigma(name):
    model = kinds(sigma_range=(0.4, 2.0))[name](0.4)
    everywhere = kinds()[name](0.4)
    sigmas, xbar = f64([0.1, 0.5, 1.0, 3.0, 9.0]), states(1.0)
    found = model(xbar, sigmas, LABELS)
    for i, sigma in enumerate(sigmas.tolist()):
        inside = 0.4 <= sigma <= 2.0
        expected = (everywhere if inside else MODEL)(xbar[i : i + 1], sigma, LABELS[i : i + 1])
        torch.testing.assert_close(found.data[i : i + 1], expected.data, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(found.noise[i : i + 1], expected.noise, rtol=1e-11, atol=1e-11)
        assert int(found.evaluations[i]) == expected.evaluations == model.evaluations(sigma) == 1 + inside
    assert (found.data - MODEL(xbar, sigmas, LABELS).data)[1:3].abs().max() > 1e-3


@each_kind
def test_it_keeps_the_precision_and_stands_in_for_its_model(name):
    model = kinds()[name](0.4)
    found = model(states(1.0).float(), 1.0, LABELS)
    assert (found.data.dtype, found.noise.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(found.data.double(), model(states(1.0), 1.0, LABELS).data, rtol=0, atol=1e-4)
    assert (model.path, model.shape, model.num_classes, model.device) == (PATH, (2, 3), 3, MODEL.device)
    assert (model.sigma_min, model.sigma_max) == (MODEL.sigma_min, MODEL.sigma_max)


GRID = [60.0, 20.0, 5.0, 1.0, 0.3, 0.0]


def nested(model, classifier):
    """Guidance around guidance, and what a prediction of it costs inside all ranges (passes, gradients)."""
    inside = {"sigma_range": (0.5, 10.0)}
    by = Unconditional(model)
    return {
        "loss around classifier-free": (GuidedByLoss(Guided(model, 2.0), loss, 0.1, **inside), (2, 2)),
        "classifier-free around loss": (Guided(GuidedByLoss(model, loss, 0.1), 2.0, **inside), (2, 2)),
        "classifier around classifier-free": (GuidedByClassifier(Guided(model, 2.0), classifier, **inside), (2, 1)),
        "classifier-free around classifier": (Guided(GuidedByClassifier(model, classifier), 2.0, **inside), (2, 2)),
        "loss around classifier": (GuidedByLoss(GuidedByClassifier(by, classifier), loss, 0.1, **inside), (1, 3)),
        "weaker of two guided": (GuidedByWeaker(Guided(model, 2.0), Guided(model, 0.5), 1.5, **inside), (4, 0)),
        "projection around loss": (GuidedByProjection(GuidedByLoss(model, loss, 0.1), 2.0, **inside), (2, 2)),
    }


@pytest.mark.parametrize("name", nested(MODEL, KNOWN))
def test_they_go_around_each_other_and_every_pass_is_counted(name):
    net, classifier = Tallied(MODEL.net), Tallied(KNOWN.net)
    model, (passes, gradients) = nested(replace(MODEL, net=net), replace(KNOWN, net=classifier))[name]
    assert cost(model, 1.0) == model.cost(1.0) == Cost(passes, gradients)
    assert cost(model, 1.0).evaluations == model.evaluations(1.0) == passes + gradients
    found = sample(model, "ddim", grid=GRID, seeds=range(3), labels=[0, 1, 2], dtype=torch.float64)
    expected = sum(model.evaluations(sigma) for sigma in GRID[:-1])
    assert found.nfe.tolist() == [expected] * 3
    apart = [cost(model, sigma) for sigma in GRID[:-1]]
    assert net.forward == 3 * sum(each.passes for each in apart)
    # a classifier's gradient is one evaluation, forward and back; a product through it counts as one more of those
    backward = net.backward + classifier.backward
    assert backward == 3 * sum(each.gradients for each in apart)


@pytest.mark.parametrize("name", nested(MODEL, KNOWN))
def test_an_adaptive_method_counts_what_each_sample_has_cost(name):
    net, classifier = Tallied(MODEL.net), Tallied(KNOWN.net)
    model, _ = nested(replace(MODEL, net=net), replace(KNOWN, net=classifier))[name]
    found = sample(model, "adaptive", tol=0.1, seeds=range(4), labels=[0, 1, 2, 0])
    assert net.forward + net.backward + classifier.backward == int(found.nfe.sum())
    assert len(set(found.nfe.tolist())) > 1


@each_kind
def test_it_has_a_derivative_even_where_the_condition_changes_nothing(name):
    """At sigma = 0.02 all mass is at one component, whose class the label is, so that D is D0 to the last bit."""
    xbar = MIXTURE.means[[0]].repeat(2, 1, 1).requires_grad_()
    labels = MIXTURE.labels[[0, 0]]
    assert torch.equal(MODEL(xbar, 0.02, labels).data, MODEL(xbar, 0.02).data)
    kinds()[name](2.0)(xbar, 0.02, labels).data.sum().backward()
    assert torch.isfinite(xbar.grad).all()


@each_kind
def test_a_latent_leads_back_to_the_same_bytes(name):
    model, x = kinds()[name](0.4), MIXTURE.sample(4, seed=0, sigma=0.02).float()
    latent = encode(model, x, "exact_heun", nfe=40, labels=[0, 1, 2, 1])
    assert torch.equal(decode(model, latent).x, x)
    plain = encode(MODEL, x, "exact_heun", nfe=20, labels=[0, 1, 2, 1])
    assert (latent.noise - plain.noise).abs().max() > 1e-3


def test_around_each_other_they_are_the_formulas_one_after_the_other():
    sigma, xbar = 1.0, states(1.0)
    inner = Guided(MODEL, 2.0)
    found = GuidedByClassifier(inner, KNOWN, 0.5)(xbar, sigma, LABELS)
    x = xbar.clone().requires_grad_()
    KNOWN(x, f64(sigma)).log_softmax(1)[range(5), LABELS].sum().backward()
    near(found.data, inner(xbar, sigma, LABELS).data + 0.5 * sigma**2 * x.grad)
    # guidance of guidance is guidance at the product of the scales
    near(Guided(inner, 1.5)(xbar, sigma, LABELS).data, Guided(MODEL, 3.0)(xbar, sigma, LABELS).data)
