"""A profile tells trajectories and what errors on them count, of models whose flow is known."""

import math
from pathlib import Path

import pytest
import torch

from ddim_ode import paths, sample
from ddim_ode.errors import DDIMError
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.fields import GaussianField
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.profile import Profile, ProfileError, measure, profile_of
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Recording

NOISE, FLOW = paths.Noise(0.01, 50.0), paths.Flow(0.005, 200.0)
FIELD = GaussianField((3, 8, 8), std=0.4)


@pytest.mark.parametrize("path", [NOISE, FLOW, paths.DiscreteVP.linear()])
def test_trajectories_are_those_of_the_flow(path):
    found = measure(FIELD.denoiser(path), seeds=range(3))
    begin = seeded_noise(range(3), FIELD.shape).double() * path.prior_std(torch.tensor(path.sigma_max).double())
    end = FIELD.denoise(FIELD.flow(begin, path.sigma_max, path.sigma_min), path.sigma_min)[0]
    size = found.end.shape[1]
    assert size == math.prod(FIELD.shape)  # all of them, in another order
    torch.testing.assert_close(found.end.sort().values, end.flatten(1).sort().values, rtol=0, atol=2e-3)
    for sigma in (0.03, 0.2, 1.0, 7.0):
        state, image = found.at(sigma)
        expected = FIELD.flow(begin, path.sigma_max, sigma)
        torch.testing.assert_close(state.sort().values, expected.flatten(1).sort().values, rtol=5e-3, atol=5e-3)
        there = FIELD.denoise(expected, sigma)[0].flatten(1)
        torch.testing.assert_close(image.sort().values, there.sort().values, rtol=0, atol=1e-2)


@pytest.mark.parametrize("std", [0.05, 0.5])
def test_an_error_counts_what_the_flow_makes_of_it(std):
    """Of one Gaussian every error of a state at sigma shrinks by the same factor, and J = s^2 / (s^2 + sigma^2)."""
    model = GaussianMixture(torch.zeros(1, 40), std).denoiser(NOISE)
    found = measure(model)
    for n in range(8, len(found.sigmas), 7):
        sigma, least = float(found.sigmas[n]), NOISE.sigma_min
        image = std**2 / (std**2 + least**2)
        expected = math.sqrt((std**2 + least**2) / (std**2 + sigma**2)) * image
        assert float(found.weights[n]) == pytest.approx(expected, rel=0.1)
        assert found.leak(sigma) == pytest.approx(std**2 / (std**2 + sigma**2), abs=0.1)


def test_what_it_costs_is_counted():
    net = Recording()
    model = Denoiser(net, FLOW, "noise", (2, 3))
    found = measure(model, seeds=range(2))
    assert found.evaluations == sum(len(x) for x, *_ in net.calls)
    assert 150 < found.evaluations / 2 < 250


def test_classes_take_turns_and_guidance_costs_twice():
    model = labelled().denoiser(FLOW)
    plain, each = measure(model, seeds=range(3)), measure(model, True, seeds=range(3))
    guided = measure(Guided(model, 2.0), True, seeds=range(3))
    assert not torch.allclose(plain.end, each.end)
    assert not torch.allclose(guided.end, each.end)
    assert guided.evaluations == 2 * each.evaluations == 2 * plain.evaluations


def test_it_is_measured_once_for_a_network():
    net = Recording()
    model = Denoiser(net, FLOW, "noise", (2, 3))
    first = profile_of(model, False)
    asked = len(net.calls)
    assert profile_of(Denoiser(net, FLOW, "noise", (2, 3)), False) is first
    assert profile_of(model, True) is first  # it has no classes
    assert len(net.calls) == asked
    assert profile_of(Denoiser(net, NOISE, "noise", (2, 3)), False) is not first
    assert profile_of(Denoiser(Recording(), FLOW, "noise", (2, 3)), False) is not first


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4, 5)])
def test_samples_of_any_shape(shape):
    model = Denoiser(lambda x, t: 0.5 * torch.tanh(x), FLOW, "noise", shape)
    found = measure(model, seeds=range(3))
    assert found.end.shape == (3, math.prod(shape))
    assert sample(model, "dpmpp_2m", 8, range(2), grid=found).x.shape == (2, *shape)


def test_of_a_large_sample_some_numbers_are_kept():
    found = measure(GaussianField((3, 32, 32)).denoiser(NOISE), seeds=range(2))
    assert found.states.shape == found.images.shape == (64, 2, 512)


def test_a_file_gives_it_back(tmp_path: Path):
    found = measure(FIELD.denoiser(NOISE), seeds=range(2))
    found.save(tmp_path / "a.safetensors")
    back = Profile.load(tmp_path / "a.safetensors")
    assert (back.evaluations, back.labelled) == (found.evaluations, found.labelled)
    for name in ("sigmas", "states", "images", "weights", "seeds"):
        assert torch.equal(getattr(back, name), getattr(found, name))


def test_a_file_that_is_damaged_or_of_something_else_is_refused(tmp_path: Path):
    file = tmp_path / "a.safetensors"
    measure(FIELD.denoiser(NOISE), seeds=range(2)).save(file)
    content = file.read_bytes()
    file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    assert "damaged" in one_line(ProfileError, Profile.load, file)
    from ddim_ode.support.tensors import write_tensors

    write_tensors(file, {"x": torch.zeros(3)})
    assert "holds no profile of a model" in one_line(ProfileError, Profile.load, file)


def test_a_profile_of_another_range_is_refused():
    found = measure(FIELD.denoiser(NOISE), seeds=range(2))
    assert "the profile is of a model from sigma=0.01 to 50" in one_line(
        ProfileError, found.check, FIELD.denoiser(paths.Noise(0.01, 80.0))
    )


@pytest.mark.parametrize("shape", [(2, 3), (3, 32, 32)])
def test_a_profile_of_other_samples_is_refused(shape):
    found = measure(FIELD.denoiser(NOISE), seeds=range(2))
    model = Denoiser(Recording(), NOISE, "noise", shape)
    assert "the profile is of a model with 192 numbers a sample and no classes" in one_line(
        ProfileError, lambda: sample(model, "dpmpp_2m", 8, range(2), grid=found)
    )


def test_a_profile_with_labels_is_not_for_a_model_without():
    found = measure(labelled().denoiser(FLOW), True, seeds=range(3))
    assert "and classes, and this one has 6 and 0 classes" in one_line(
        ProfileError, found.check, Denoiser(Recording(), FLOW, "noise", (2, 3))
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: measure(3), "model is the int 3"),
        (lambda: measure(FIELD.denoiser(NOISE), seeds=3), "seeds"),
        (lambda: measure(FIELD.denoiser(NOISE), seeds=[]), "seeds is empty"),
        (lambda: measure(FIELD.denoiser(NOISE), labelled="x"), "labelled"),
        (lambda: Profile.load(3), "file"),
        (lambda: Profile.load("/nowhere/a.safetensors"), "/nowhere/a.safetensors"),
        (lambda: measure(FIELD.denoiser(NOISE), seeds=[0]).save(3), "file"),
    ],
)
def test_what_cannot_be_is_named(call, words):
    assert words in one_line(DDIMError, call)


def test_a_model_without_a_range_is_refused():
    model = Denoiser(Recording(), paths.Flow(), "noise", (2, 3))
    assert "needs a finite range of sigma" in one_line(ProfileError, measure, model)
