"""Guidance against its formula on a labelled mixture, where both halves are known."""

import dataclasses
import math

import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.guidance import GuidanceError, Guided, classifier_free
from ddim_ode.planning.inputs import SampleError
from ddim_ode.sampling import sample
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting, tiny_unet
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64

CHART = paths.Noise(0.01, 100.0)
MIXTURE = labelled()
LABELS = torch.tensor([0, 1, 2, 1, 0])
SCALES = [0.0, 0.5, 1.0, 1.5, 3.0, 7.5, -1.0]


@pytest.mark.parametrize("together", [1, 16], ids=["two passes", "one pass"])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["noise", "linear", "flow"])
def test_it_is_the_formula(name, scale, sigma, together, monkeypatch):
    monkeypatch.setattr(classifier_free, "TOGETHER", together)
    xbar = MIXTURE.sample(5, seed=0, sigma=sigma)
    parts = MIXTURE.denoise(xbar, sigma, LABELS), MIXTURE.denoise(xbar, sigma, None)
    guided = Guided(MIXTURE.denoiser(PATHS[name]), scale)
    prediction = guided(xbar, sigma, LABELS)
    for got, conditional, null in zip(prediction[:2], *parts, strict=True):
        torch.testing.assert_close(got, null + scale * (conditional - null), rtol=0, atol=1e-10)
    torch.testing.assert_close(prediction.data + sigma * prediction.noise, xbar, rtol=1e-11, atol=1e-11)
    assert prediction.evaluations == guided.evaluations(sigma) == (1 if scale == 1 else 2)


@pytest.mark.parametrize("together", [1, 16])
def test_scale_one_is_the_model_itself(together, monkeypatch):
    monkeypatch.setattr(classifier_free, "TOGETHER", together)
    model = MIXTURE.denoiser(CHART)
    xbar = MIXTURE.sample(5, seed=0, sigma=1.0)
    expected, got = model(xbar, 1.0, LABELS), Guided(model, 1.0)(xbar, 1.0, LABELS)
    assert torch.equal(got.data, expected.data)
    assert torch.equal(got.noise, expected.noise)


@pytest.mark.parametrize(("sigma", "inside"), [(0.49, False), (0.5, True), (1.0, True), (2.0, True), (2.01, False)])
def test_outside_the_interval_it_is_the_model_itself(sigma, inside):
    counting = Counting(MIXTURE.denoiser(CHART).net)
    model = Denoiser(counting, CHART, "noise", MIXTURE.shape, 3)
    guided = Guided(model, 3.0, sigma_range=(0.5, 2.0))
    xbar = MIXTURE.sample(5, seed=0, sigma=sigma)
    prediction = guided(xbar, sigma, LABELS)
    assert guided.acts(sigma) is inside
    assert counting.rows == 5 * prediction.evaluations == 5 * guided.evaluations(sigma) == 5 * (2 if inside else 1)
    data, null = MIXTURE.denoise(xbar, sigma, LABELS)[0], MIXTURE.denoise(xbar, sigma)[0]
    expected = null + 3.0 * (data - null) if inside else data
    torch.testing.assert_close(prediction.data, expected, rtol=0, atol=1e-10)


def test_one_pass_of_twice_the_batch_is_two_passes(monkeypatch):
    net = tiny_unet()
    model = Denoiser(net.double(), PATHS["linear"], "noise", (1, 8, 8), 3)
    xbar = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(classifier_free, "TOGETHER", 5)
    one = Guided(model, 2.5)(xbar, 1.0, LABELS)
    monkeypatch.setattr(classifier_free, "TOGETHER", 4)
    two = Guided(model, 2.5)(xbar, 1.0, LABELS)
    torch.testing.assert_close(one.data, two.data, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(one.noise, two.noise, rtol=1e-11, atol=1e-11)
    plain = model(xbar, 1.0, LABELS)
    assert (one.noise - plain.noise).abs().max() > 1e-3  # the label means something to this net


@pytest.mark.parametrize("size", [1, 4, 5, 16])
def test_passes_run_together_up_to_the_limit(size, monkeypatch):
    monkeypatch.setattr(classifier_free, "TOGETHER", 4)
    batches = []

    def net(x, t, labels):
        batches.append(labels.tolist())
        return torch.zeros_like(x)

    guided = Guided(Denoiser(net, CHART, "noise", (2,), 3), 2.0)
    guided(torch.zeros(size, 2), 1.0, torch.ones(size, dtype=torch.int64))
    one, null = [1] * size, [3] * size
    assert batches == ([one + null] if size <= 4 else [one, null])


@pytest.mark.parametrize("together", [4, 16])
@pytest.mark.parametrize("sigmas", [[0.1, 0.5, 1.0, 3.0, 9.0], [0.5, 0.6, 0.7, 0.8, 0.9], [0.1, 0.2, 3.0, 4.0, 5.0]])
def test_every_sample_may_have_a_sigma_of_its_own(sigmas, together, monkeypatch):
    monkeypatch.setattr(classifier_free, "TOGETHER", together)
    counting = Counting(MIXTURE.denoiser(CHART).net)
    model = Guided(Denoiser(counting, CHART, "noise", MIXTURE.shape, 3), 2.0, sigma_range=(0.4, 2.0))
    xbar = MIXTURE.sample(5, seed=0, sigma=1.0)
    whole = model(xbar, f64(sigmas), LABELS)
    passes = counting.rows
    alone = [model(xbar[i : i + 1], sigmas[i], LABELS[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(whole.data, torch.cat([p.data for p in alone]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.noise, torch.cat([p.noise for p in alone]), rtol=1e-12, atol=1e-12)
    spent = torch.as_tensor(whole.evaluations).expand(5)
    assert spent.tolist() == [p.evaluations for p in alone]
    assert passes == spent.sum()


@pytest.mark.parametrize("count", [1, 2, 16, 17])
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_one_sigma_in_a_list_is_that_of_all(sigma, count):
    model = Guided(MIXTURE.denoiser(CHART), 2.0, sigma_range=(0.4, 2.0))
    xbar, labels = MIXTURE.sample(count, seed=0, sigma=sigma), torch.arange(count) % 3
    found, expected = model(xbar, f64([sigma]), labels), model(xbar, sigma, labels)
    torch.testing.assert_close(found.data, expected.data, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.noise, expected.noise, rtol=1e-12, atol=1e-12)
    assert found.evaluations == expected.evaluations


def test_a_broken_network_names_the_sample_with_a_sigma_of_its_own():
    def net(x, t, labels):
        return torch.where(labels.reshape(-1, 1) == 2, math.nan, x)

    model = Guided(Denoiser(net, paths.noise, "noise", (2,), 3), 2.0, sigma_range=(0.4, 2.0))
    labels = torch.tensor([0, 0, 1, 2, 0])
    for sigmas in ([0.1, 0.5, 0.1, 0.5, 0.1], [0.5, 0.1, 0.5, 0.1, 0.5]):
        with pytest.raises(NonFiniteError) as caught:
            model(torch.zeros(5, 2), f64(sigmas), labels)
        assert caught.value.sample == 3
        assert caught.value.sigma == pytest.approx(sigmas[3])


def test_guidance_of_a_guided_model_is_refused():
    with pytest.raises(SampleError, match="guided already, at scale 2; leave guidance=3 out"):
        sample(Guided(MIXTURE.denoiser(CHART), 2.0), labels=1, guidance=3.0)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_without_labels_it_is_refused(scale):
    model = MIXTURE.denoiser(CHART)
    with pytest.raises(GuidanceError, match="has no labels to guide to; give labels, or use guidance=1"):
        Guided(model, scale)(MIXTURE.sample(5, seed=0, sigma=1.0), 1.0)
    with pytest.raises(GuidanceError, match="has no labels"):
        sample(model, nfe=10, seeds=range(3), guidance=scale)


def test_guided_sampling_leads_to_the_class():
    # far from the boundary between classes a guided sample is a sample of its own class
    model = MIXTURE.denoiser(CHART)
    labels = torch.tensor([0, 1, 2] * 4)
    x = sample(model, nfe=200, grid="log_snr", seeds=range(12), labels=labels, guidance=1.5, dtype=torch.float64).x
    logits = torch.stack([MIXTURE.log_density(x, 0.1, torch.full((12,), c)) for c in range(3)], dim=1)
    assert torch.equal(logits.argmax(1), labels)


def test_it_stands_in_for_its_model():
    model = Denoiser(tiny_unet(), PATHS["cosine"], "noise", (1, 8, 8), 3)
    guided = Guided(model, 2.0)
    assert (guided.path, guided.shape, guided.num_classes) == (model.path, (1, 8, 8), 3)
    assert guided.device == model.device
    with pytest.raises(dataclasses.FrozenInstanceError):
        guided.scale = 1.0


def test_guidance_of_guidance_at_sigmas_of_their_own():
    guided = Guided(Guided(MIXTURE.denoiser(CHART), 2.0, sigma_range=(0.3, 6.0)), 1.5)
    found = guided(MIXTURE.sample(3, seed=0, sigma=1.0), f64([0.1, 1.0, 9.0]), torch.tensor([0, 1, 2]))
    assert torch.as_tensor(found.evaluations).tolist() == [2, 4, 2]


def test_guidance_of_guidance_costs_the_product():
    guided = Guided(Guided(MIXTURE.denoiser(CHART), 2.0), 1.5, sigma_range=(0.0, 1.0))
    assert [guided.evaluations(sigma) for sigma in (0.5, 2.0)] == [4, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": math.nan}, "guidance=nan is not finite; use a number"),
        ({"scale": math.inf}, "guidance=inf is not finite"),
        ({"scale": 2.0, "sigma_range": (2.0, 1.0)}, "range 2:1 is empty; give 0 <= low < high"),
        ({"scale": 2.0, "sigma_range": (1.0, 1.0)}, "range 1:1 is empty"),
        ({"scale": 2.0, "sigma_range": (-1.0, 1.0)}, "range -1:1 is empty"),
        ({"scale": 2.0, "sigma_range": (math.nan, 1.0)}, r"range \(nan, 1.0\) is no range"),
    ],
)
def test_bad_guidance_is_refused(arguments, message):
    with pytest.raises(GuidanceError, match=message):
        Guided(MIXTURE.denoiser(CHART), **arguments)


def test_a_model_without_classes_cannot_be_guided():
    mixture = labelled()
    mixture.labels = None
    with pytest.raises(GuidanceError, match="guidance=2 needs a class-conditional model; use guidance=1"):
        Guided(mixture.denoiser(CHART), 2.0)(mixture.sample(3, seed=0, sigma=1.0), 1.0)
