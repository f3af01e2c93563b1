"""Guidance by gradients: right against finite differences, recorded where asked, and one line where it goes wrong."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ddim_ode import paths
from ddim_ode.errors import DDIMError
from ddim_ode.models.classifier import Classifier, ClassifierError, NonFiniteLogitsError
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.guidance import GuidanceError, Guided, GuidedByClassifier, GuidedByLoss, Unconditional
from ddim_ode.models.guidance.by_classifier import NonFiniteClassifierError
from ddim_ode.models.guidance.gradient import NonFiniteLossError, with_gradient
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.guiding import posterior
from tests.helpers.mixtures import labelled
from tests.helpers.networks import tiny_unet
from tests.helpers.tensors import f64, normal

PATH = paths.Flow(0.02, 60.0)
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(PATH, "flow")
KNOWN = Classifier(posterior(MIXTURE, PATH), PATH, 3)
LABELS = torch.tensor([0, 1, 2, 1])
STEP = 1e-5


def loss(data):
    return (data - 0.3).square().flatten(1).sum(1) + data.flatten(1).sin().sum(1)


def slope(function, x, direction):
    """The derivative of a number along a direction, by a central difference."""
    return float(function(x + STEP * direction) - function(x - STEP * direction)) / (2 * STEP)


# --- right


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0, f64([0.1, 0.5, 2.0, 30.0])], ids=str)
def test_the_gradient_of_a_loss_is_its_finite_difference(sigma):
    sigma, xbar, direction = f64(sigma), MIXTURE.sample(4, seed=0, sigma=1.0), normal(4, 2, 3, seed=1)
    found, gradient = with_gradient(MODEL, xbar, sigma, LABELS, loss)
    expected = slope(lambda x: loss(MODEL(x, sigma, LABELS).data).sum(), xbar, direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert torch.equal(found.data, MODEL(xbar, sigma, LABELS).data)
    assert found.evaluations == 2


def test_the_gradient_through_a_network_is_its_finite_difference():
    model = Denoiser(tiny_unet().double(), paths.DiscreteVP.cosine(), "velocity", (1, 8, 8), 3)
    xbar, direction = normal(3, 1, 8, 8, seed=0), normal(3, 1, 8, 8, seed=1)
    _, gradient = with_gradient(model, xbar, f64(0.7), LABELS[:3], loss)
    expected = slope(lambda x: loss(model(x, 0.7, LABELS[:3]).data).sum(), xbar, direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0, f64([0.1, 0.5, 2.0, 30.0])], ids=str)
def test_the_gradient_of_a_classifier_is_its_finite_difference(sigma):
    sigma, xbar, direction = f64(sigma), MIXTURE.sample(4, seed=0, sigma=1.0), normal(4, 2, 3, seed=1)
    gradient = GuidedByClassifier(MODEL, KNOWN).gradient(xbar, sigma, LABELS)
    expected = slope(lambda x: -KNOWN(x, sigma).log_softmax(1)[range(4), LABELS].sum(), xbar, direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def guided(model=MODEL):
    return {
        "loss": GuidedByLoss(model, loss, 0.02),
        "classifier": GuidedByClassifier(model, KNOWN, 1.5),
        "both": GuidedByLoss(GuidedByClassifier(model, KNOWN, 1.5), loss, 0.02),
    }


each_kind = pytest.mark.parametrize("kind", guided())


@each_kind
@pytest.mark.parametrize(("way", "method"), [("direct", "ddim"), ("direct", "dpmpp_2m"), ("reversible", "leapfrog")])
def test_sampling_can_be_differentiated(kind, way, method):
    z, direction, weights = (normal(4, 2, 3, seed=n) for n in (1, 2, 3))
    steering = {"nfe": 24, "labels": LABELS, "dtype": torch.float64}

    def end(noise):
        return (sample(guided()[kind], method, noise=noise, **steering).x * weights).sum()

    noise = z.clone().requires_grad_()
    found = sample(guided()[kind], method, noise=noise, differentiable=way, **steering)
    (found.x * weights).sum().backward()
    assert float((noise.grad * direction).sum()) == pytest.approx(slope(end, z, direction), rel=1e-3)
    assert torch.equal(found.nfe, sample(guided()[kind], method, noise=z, **steering).nfe)


# --- recorded where asked


@each_kind
def test_a_frozen_model_keeps_no_graph_and_needs_no_grad_mode(kind):
    xbar = MIXTURE.sample(4, seed=0, sigma=1.0)
    plain = guided()[kind](xbar, 1.0, LABELS)
    assert not plain.data.requires_grad
    assert not plain.noise.requires_grad
    with torch.no_grad():
        found = guided()[kind](xbar, 1.0, LABELS)
    with torch.inference_mode():
        inferred = guided()[kind](xbar.clone(), 1.0, LABELS.clone())
    for other in (found, inferred):
        assert torch.equal(other.data, plain.data)
        assert not other.data.requires_grad


@pytest.mark.parametrize("method", ["ddim", "adaptive"])
def test_sampling_in_inference_mode_is_the_same(method):
    steering = {"tol": 0.05} if method == "adaptive" else {"nfe": 20}
    plain = sample(guided()["both"], method, labels=[0, 1], seeds=[0, 1], **steering)
    with torch.inference_mode():
        assert torch.equal(sample(guided()["both"], method, labels=[0, 1], seeds=[0, 1], **steering).x, plain.x)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(f64(0.7))

    def forward(self, x, t):
        return self.weight * x.tanh()


def test_the_networks_weights_get_their_gradient_through_the_guidance():
    model = Denoiser(net := Scaled(), paths.angle, "velocity", (2,))
    xbar, weights = normal(3, 2, seed=0), normal(3, 2, seed=1)

    def value(weight):
        with torch.no_grad():
            net.weight.copy_(f64(weight))
            return float((GuidedByLoss(model, loss, 0.1)(xbar, 0.8).data * weights).sum())

    (GuidedByLoss(model, loss, 0.1)(xbar, 0.8).data * weights).sum().backward()
    found = float(net.weight.grad)
    assert found == pytest.approx((value(0.7 + STEP) - value(0.7 - STEP)) / (2 * STEP), rel=1e-7)


def test_a_loss_may_have_weights_of_its_own():
    target = f64([0.5, -0.5]).requires_grad_()
    model = Denoiser(lambda x, t: x.tanh(), paths.angle, "velocity", (2,))
    GuidedByLoss(model, lambda data: (data - target).square().sum(1))(normal(3, 2, seed=0), 0.8).data.sum().backward()
    assert target.grad.abs().min() > 1e-3


# --- wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda data: data.square().sum(), r"the loss of 4 images is torch.float64 \(\); it must return one float"),
        (lambda data: data.square(), r"the loss of 4 images is torch.float64 \(4, 2, 3\)"),
        (lambda data: 3.0, "the loss of 4 images is float"),
        (lambda data: torch.zeros(4), "does not depend on the predicted image; compute it from its argument"),
        (lambda data: data.detach().square().flatten(1).sum(1), "does not depend on the predicted image"),
    ],
)
def test_a_loss_of_another_kind_is_one_line(wrong, message):
    xbar = MIXTURE.sample(4, seed=0, sigma=1.0)
    with pytest.raises(GuidanceError, match=message):
        GuidedByLoss(MODEL, wrong)(xbar, 1.0, LABELS)


def test_a_loss_without_a_number_names_sigma_and_the_sample_of_the_run():
    def of_large_ones(data):
        first = data.flatten(1)[:, 0]
        return torch.where(first > 0.5, math.nan, 1.0) * first

    model, steering = GuidedByLoss(MODEL, of_large_ones, 1e-9), {"nfe": 20, "batch_size": 2}
    alone = [seed for seed in range(5) if _fails(model, seed, steering)]
    assert 0 < len(alone) < 5  # so that the name of one means something
    line = one_line(NonFiniteLossError, sample, model, "ddim", seeds=range(5), **steering)
    assert line.startswith("the loss or its gradient is not finite at sigma=")
    assert f"for sample {alone[0]} in step" in line
    assert line.endswith("; give a loss that is smooth on every image")


def _fails(model, seed, steering):
    try:
        sample(model, "ddim", seeds=[seed], **steering)
    except NonFiniteError:
        return True
    return False


def test_a_gradient_without_a_number_is_one_line():
    with pytest.raises(NonFiniteLossError, match=r"not finite at sigma=0\.5 for sample 1"):
        GuidedByLoss(MODEL, _rooted)(MIXTURE.sample(4, seed=0, sigma=1.0), 0.5, LABELS)


def _rooted(data):
    """Finite everywhere, with a gradient that is not for the second sample."""
    zero = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=data.dtype)
    return (zero * data.square().flatten(1).sum(1)).sqrt()


def broken(x, t):
    return torch.where(x.flatten(1).sum(1, keepdim=True) > 0, math.nan, 1.0) * x.flatten(1)[:, :3]


def test_a_classifier_without_a_number_names_sigma_and_the_sample():
    model = GuidedByClassifier(Unconditional(MODEL), Classifier(broken, PATH, 3))
    xbar = torch.stack([-torch.ones(2, 3), -torch.ones(2, 3), torch.ones(2, 3)]).double()
    line = one_line(NonFiniteLogitsError, model, xbar, 0.5, torch.tensor([0, 1, 2]))
    assert line == "the classifier's output is not finite at sigma=0.5 for sample 2; check its weights and precision"
    start = 60 * xbar[[0, 1, 0, 2]]
    with pytest.raises(NonFiniteLogitsError) as caught:  # one of the second batch is named by its place in the run
        sample(model, "ddim", grid=[60.0, 1.0, 0.0], start=start, labels=0, batch_size=2)
    assert caught.value.sample == 3


def test_a_classifiers_gradient_without_a_number_is_told_from_its_output():
    def steep(x, t):
        return (0 * x.flatten(1)[:, :3]).abs().sqrt() * x.flatten(1)[:, :3]

    model = GuidedByClassifier(Unconditional(MODEL), Classifier(steep, PATH, 3))
    with pytest.raises(
        NonFiniteClassifierError, match="the classifier's gradient is not finite at sigma=2 for sample 0"
    ):
        model(MIXTURE.sample(4, seed=0, sigma=1.0), 2.0, LABELS)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda x, t: x.flatten(1)[:, :2], r"shape \(4, 2\)"),
        (lambda x, t: x.flatten(1)[:2, :3], r"shape \(2, 3\)"),
        (lambda x, t: x, r"shape \(4, 2, 3\)"),
        (lambda x, t: (x,), "tuple"),
    ],
)
def test_logits_of_another_shape_are_one_line(answer, found):
    model = GuidedByClassifier(Unconditional(MODEL), Classifier(answer, PATH, 3))
    with pytest.raises(
        ClassifierError, match=rf"returned {found} at sigma=2, for 4 samples; it must return logits \(4, 3\)"
    ):
        model(MIXTURE.sample(4, seed=0, sigma=1.0), 2.0, LABELS)


def test_a_classifier_in_training_mode_is_refused():
    net = nn.Sequential(nn.Dropout(0.5))
    with pytest.raises(ClassifierError, match="training mode"):
        Classifier(net, PATH, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuidedByClassifier(MODEL, replace(KNOWN, num_classes=5)), "knows 5 classes, and the model 3"),
        (lambda: GuidedByClassifier(Unconditional(MODEL), KNOWN.net), "does not say how many it knows"),
        (lambda: GuidedByClassifier(MODEL, KNOWN, math.nan), "guidance=nan is not finite"),
        (lambda: GuidedByLoss(MODEL, loss, math.inf), "guidance=inf is not finite"),
        (lambda: GuidedByLoss(MODEL, loss, 1.0, (2.0, 1.0)), "range 2:1 is empty"),
        (lambda: GuidedByLoss(MODEL, 3.0), "loss is the float 3.0; give a module or a function"),
        (lambda: GuidedByClassifier(MODEL, "fashion"), "classifier is the str 'fashion'; give a module or a function"),
        (lambda: Classifier(broken, PATH, 1), "num_classes=1 must be a whole number >= 2"),
        (lambda: Classifier(broken, "cosine", 3), "path is the str 'cosine'"),
    ],
)
def test_guidance_that_cannot_be_is_one_line(make, message):
    assert message in one_line(DDIMError, make)


def test_guidance_by_a_classifier_needs_labels():
    model = GuidedByClassifier(Unconditional(MODEL), KNOWN, 2.0)
    line = "guidance=2 by a classifier has no labels to guide to; give labels"
    assert one_line(GuidanceError, sample, model, nfe=10) == line
    assert "label 7 does not exist" in one_line(DDIMError, sample, model, nfe=10, labels=7)


def test_guidance_at_a_scale_that_is_no_number_somewhere():
    model = Guided(MODEL, lambda sigma: math.nan if sigma < 1 else 2.0)
    with pytest.raises(GuidanceError, match=r"the guidance at sigma=0\.5 is nan; give a function to finite numbers"):
        model(MIXTURE.sample(4, seed=0, sigma=1.0), 0.5, LABELS)
