"""Translation: closed forms, the same bits on the way back, windows, what is in between, and mistakes in one line."""

import math
from dataclasses import replace

import pytest
import torch

import ddim_ode
from ddim_ode import paths
from ddim_ode.data import bundled_images, to_float
from ddim_ode.editing import EditError, Side, between_edits, decode_under, translate
from ddim_ode.errors import DDIMError
from ddim_ode.grids import GridError
from ddim_ode.inversion import encode
from ddim_ode.latents import LatentError
from ddim_ode.models.conditions import Conditions
from ddim_ode.planning.inputs import SampleError
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import gaussians, labelled
from tests.helpers.tensors import f64, normal

PATH = paths.Flow(0.02, 60.0)
MODEL = labelled().denoiser(PATH)
EXACT = ("exact_heun", "leapfrog")


@pytest.mark.parametrize("method", ["exact_heun", "rk4", "adaptive"])
def test_between_two_gaussians_a_translation_is_the_known_map(method):
    """Each way keeps (x - m) / sqrt(s^2 + sigma^2), so that the images move by the difference of the means, at the
    largest sigma all but."""
    model = gaussians(0.5, -0.7, path=paths.Noise(0.01, 500.0))
    x = f64([[0.2], [0.9], [0.5]])
    budget = {"tol": 1e-6} if method == "adaptive" else {"nfe": 300}
    found = translate(model, x, 0, 1, method, dtype=torch.float64, **budget)
    r = math.sqrt((0.3**2 + 0.01**2) / (0.3**2 + 500**2))  # from the top to the bottom
    expected = x - (0.5 + 0.7) * (1 - r)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("nfe", [6, 13])
@pytest.mark.parametrize("window", [None, (0.3, 5.0), (1.0, None)])
def test_there_and_back_are_the_same_bits(method, nfe, window):
    x = normal(7, 2, 3, seed=3).float().clamp(-1, 1)
    source, target = torch.tensor([0, 1, 2, 0, 1, 2, 0]), Side([1, 2, 0, 1, 2, 0, 1], guidance=2.0)
    found = translate(MODEL, x, source, target, method, nfe, window=window, batch_size=3)
    assert (found.x - x).abs().max() > 0.01
    latent = found.encode()
    assert all(torch.equal(a, b) for a, b in zip(latent.states, found.latent.states, strict=True))
    back = found.back()
    assert torch.equal(back.x, x)
    assert torch.equal(ddim_ode.decode(MODEL, found.latent).x, x)


@pytest.mark.parametrize("method", EXACT)
def test_float64_images_come_back_as_nearly_as_encode_says(method):
    x = normal(7, 2, 3, seed=3).clamp(-1, 1)
    found = translate(MODEL, x, 0, Side(1, guidance=2.0), method, 6, dtype=torch.float64)
    torch.testing.assert_close(found.back().x, x, rtol=0, atol=3e-16)


def test_with_a_network_there_and_back_are_the_same_bytes():
    model = ddim_ode.load("fashion")
    x, labels = (values[:3] for values in bundled_images())
    found = translate(model, x, labels, (labels + 3) % 10, nfe=5)
    assert torch.equal(found.back().x, to_float(x))
    assert found.nfe.tolist() == [10] * 3
    lossy = translate(model, x, labels, (labels + 3) % 10, "ddim", nfe=5).back().x
    assert (lossy - to_float(x)).square().mean().sqrt() > 0.05


def test_methods_in_floats_come_back_up_to_their_error():
    model, x = gaussians(0.5, -0.7, path=PATH), f64([[0.2], [0.9]])

    def error(nfe: int) -> float:
        back = translate(model, x, 0, 1, "rk4", nfe, dtype=torch.float64).back()
        assert back.nfe.tolist() == [2 * nfe] * 2
        return float((back.x - x).abs().max())

    assert error(160) < error(80) / 8
    assert error(160) < 1e-3


def test_a_window_holds_the_target_inside_and_the_source_outside():
    x = normal(4, 2, 3, seed=4).float()
    told = {"nfe": 12, "batch_size": 3}
    nowhere = translate(MODEL, x, 0, 2, window=(PATH.sigma_max - 1e-9, None), **told)
    everywhere = translate(MODEL, x, 0, 2, window=(0.0, None), **told)
    assert torch.equal(everywhere.x, translate(MODEL, x, 0, 2, **told).x)
    assert (nowhere.x - x).abs().max() < (everywhere.x - x).abs().max() / 3
    asked = []

    def net(x, t, labels):
        asked.append((float(PATH.sigma(t.double())[0]), set(labels.tolist())))
        return MODEL.net(x, t, labels)

    heard = replace(MODEL, net=net)
    translate(heard, x, 0, 2, window=(0.5, 5.0), **told)
    down = asked[len(asked) // 2 :]
    assert {sigma for sigma, labels in down if labels == {2}} == {sigma for sigma, _ in down if 0.5 <= sigma <= 5.0}
    assert {sigma for sigma, labels in down if labels == {0}} == {s for s, _ in down if not 0.5 <= s <= 5.0} != set()


def test_guidance_in_a_window_costs_twice_there():
    x = normal(2, 2, 3, seed=4)
    found = translate(MODEL, x, 0, Side(2, guidance=3.0), nfe=12, window=(0.5, 5.0))
    inside = int(((found.latent.sigmas >= 0.5) & (found.latent.sigmas <= 5.0)).sum())
    assert found.nfe.tolist() == [24 + inside] * 2
    assert translate(MODEL, x, 0, Side(2, guidance=3.0), nfe=12).nfe.tolist() == [12 + 24] * 2


def test_an_adaptive_method_translates_sample_by_sample():
    x = normal(5, 2, 3, seed=5).float()
    whole = translate(MODEL, x, 0, [0, 1, 2, 1, 0], "adaptive", tol=1e-3, window=(0.2, 9.0))
    one = translate(MODEL, x[2:3], 0, 2, "adaptive", tol=1e-3, window=(0.2, 9.0))
    torch.testing.assert_close(one.x, whole.x[2:3], rtol=0, atol=1e-4)
    assert one.nfe.tolist() == whole.nfe[2:3].tolist()


def test_into_another_model_and_back():
    other = labelled(seed=9).denoiser(PATH)
    x = normal(3, 2, 3, seed=6).float()
    found = translate(MODEL, x, 0, Side(1, model=other), nfe=9)
    assert torch.equal(found.back().x, x)
    assert torch.equal(found.x, decode_under(MODEL, found.latent, Side(1, model=other)).x)
    assert torch.equal(translate(MODEL, x, Side(1, model=other), 0, nfe=9).back().x, x)
    further = labelled(seed=9).denoiser(paths.DiscreteVP.linear())  # of another schedule, which reaches further
    assert torch.equal(translate(MODEL, x, 0, Side(1, model=further), nfe=9).back().x, x)


def tilted(x, t, labels, tilt):
    return MODEL.net(x, t, labels) + tilt.reshape(-1, 1, 1)


def test_a_latent_from_a_file_is_told_its_conditions_again(tmp_path):
    model, x = replace(MODEL, net=tilted), normal(3, 2, 3, seed=7).float()
    one, other = ({"tilt": torch.full((3,), value)} for value in (0.0, 0.3))
    null = {"tilt": torch.tensor(0.1)}
    side, target = Side(0, conditions=one, null=null, guidance=1.5), Side(1, conditions=other)
    expected = translate(model, x, side, target, nfe=8, window=(0.3, None))
    expected.latent.save(tmp_path / "z.safetensors")
    latent = ddim_ode.Latent.load(tmp_path / "z.safetensors")
    found = decode_under(model, latent, target, conditions=one, null=null, window=(0.3, None))
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.back().x, x)
    for wrong in ({"conditions": other, "null": null}, {"conditions": one}, {}):
        one_line(LatentError, decode_under, model, latent, target, window=(0.3, None), **wrong)


def test_conditions_take_part_in_a_translation():
    model = replace(MODEL, net=tilted)
    x = normal(4, 2, 3, seed=7).float()
    one, other = ({"tilt": torch.full((4,), value)} for value in (0.0, 0.3))
    found = translate(model, x, Side(0, conditions=one), Side(0, conditions=other), nfe=7, batch_size=3)
    assert isinstance(found.down.labels, Conditions)
    assert torch.equal(found.back().x, x)
    assert not torch.equal(found.x, translate(model, x, Side(0, conditions=one), Side(0, conditions=one), nfe=7).x)
    inside = translate(model, x, Side(0, conditions=one), Side(1, conditions=other), nfe=7, window=(0.3, None))
    assert torch.equal(inside.back().x, x)


def test_one_s_own_condition_brings_the_image_itself():
    x = normal(3, 2, 3, seed=8).float()
    found = translate(MODEL, x, 1, 1, nfe=6)
    assert torch.equal(found.x, x)
    assert torch.equal(translate(MODEL, x, None, None, nfe=6).x, x)


# --- between edits


def test_between_two_edits_are_both_and_something_else():
    x = normal(2, 2, 3, seed=9)
    first, second = (translate(MODEL, x, 0, label, nfe=40, dtype=torch.float64) for label in (1, 2))
    found = between_edits(first, second, [0.0, 0.5, 1.0])
    frames = found.x.reshape(2, 3, 2, 3)
    torch.testing.assert_close(frames[:, 0], first.x, rtol=0, atol=0.02)
    torch.testing.assert_close(frames[:, 2], second.x, rtol=0, atol=0.02)
    assert (frames[:, 1] - first.x).abs().max() > 0.05
    assert found.nfe.tolist() == [80] * 6  # both conditions at every step
    torch.testing.assert_close(between_edits(first, second, [0.5]).x, frames[:, 1], rtol=0, atol=1e-12)


def test_edits_of_different_numbers_have_nothing_in_between():
    x = normal(2, 2, 3, seed=9)
    first, second = translate(MODEL, x, 0, 1, nfe=4), translate(MODEL, x[:1], 0, 1, nfe=4)
    assert "2 edits and 1 have no pairs" in one_line(EditError, between_edits, first, second, [0.5])
    lower = translate(MODEL, x, 0, 1, grid=[30.0, 1.0, 0.02])
    assert "latents at sigma=60 and 30 have nothing in between" in one_line(
        EditError, between_edits, first, lower, [0.5]
    )


# --- mistakes


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"target": 3}, SampleError, "label 3 does not exist; this model has labels 0..2"),
        ({"source": -1}, SampleError, "label -1 does not exist"),
        ({"target": [0, 1, 2]}, SampleError, "labels have shape (3,)"),
        ({"window": (5.0, 1.0)}, EditError, "the window 5:1 is empty; give 0 <= low < high"),
        ({"window": (100.0, None)}, EditError, "the window 100:inf holds no sigma of the way, 0.02 to 60; widen it"),
        ({"window": "wide"}, EditError, "the window 'wide' is no range"),
        ({"method": "sde_heun"}, DDIMError, "draws noise on its way"),
        ({"method": "adaptive", "nfe": 10}, SampleError, "give tol"),
        ({"grid": "no"}, GridError, "unknown grid 'no'"),
        (
            {"target": Side(1, model=gaussians(0.0, path=PATH))},
            LatentError,
            "the latent has shape (2, 3), and the target's model takes (1,); use another",
        ),
        (
            {"target": Side(1, model=labelled().denoiser(paths.Noise(0.02, 30.0)))},
            LatentError,
            "the latent is noise of sigma=60, and the target's model begins at 30",
        ),
    ],
)
def test_what_cannot_be_translated_is_one_line(options, error, line):
    told = {"source": 0, "target": 1, "nfe": 4, **options}
    if told.get("method") == "adaptive":
        told["nfe"] = 10
    assert line in one_line(error, translate, MODEL, normal(2, 2, 3, seed=0), **told)


def test_a_latent_of_another_model_is_one_line():
    other = labelled(seed=9, components=6).denoiser(paths.Flow(0.01, 50.0))
    latent = encode(MODEL, normal(2, 2, 3, seed=0), nfe=4, labels=0)
    assert "encoded by a model with digest" in one_line(LatentError, decode_under, other, latent, 1)
    assert "the latent has shape (2, 3)" in one_line(LatentError, decode_under, gaussians(0.0, path=PATH), latent, 0)
    assert "nothing to decode" in one_line(LatentError, decode_under, MODEL, "z.safetensors", 0)


def test_edits_are_the_same_by_any_callback():
    seen = []
    x = normal(2, 2, 3, seed=0)
    found = translate(MODEL, x, 0, 1, nfe=4, callback=seen.append)
    assert [now.share for now in seen].count(1.0) == 2
    assert torch.equal(found.x, translate(MODEL, x, 0, 1, nfe=4).x)
