"""`restore`: any solver, exact where it can be, one sample at a time."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ddim_ode
from ddim_ode.inverse import (
    AROUND_MODEL,
    METHODS,
    Blur,
    BoxDownsampling,
    Differentiable,
    Mask,
    MeasurementError,
    Physics,
    restore,
)
from ddim_ode.metrics.pairs import psnr
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.models.guidance import GuidanceError, Guided
from ddim_ode.planning.inputs import SampleError
from ddim_ode.support.checks import ArgumentError
from tests.helpers.gaussians import Gaussian
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal

SHAPE = (1, 4, 4)
PATH = ddim_ode.paths.DiscreteVP.linear()
MIXTURE = labelled(shape=SHAPE).denoiser(PATH)
HALF, DOWN = Mask.half((4, 4)), BoxDownsampling(2)
DOUBLE = {"dtype": torch.float64}


def truth(count=5):
    return labelled(shape=SHAPE).sample(count, seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_known_pixels_come_back_bit_for_bit(method):
    x = truth().float()
    anything = torch.where(HALF.known, x, torch.nan)
    found = restore(MIXTURE, anything, HALF, method=method, nfe=10)
    assert torch.equal(found.x[..., :2], x[..., :2])
    assert not torch.equal(found.x[..., 2:], x[..., 2:])
    assert found.residual.tolist() == [0] * 5
    assert int(found.nfe.max()) <= 10


@pytest.mark.parametrize("method", AROUND_MODEL)
@pytest.mark.parametrize("operator", [DOWN, Blur.gaussian(0.6)])
def test_without_noise_the_answer_agrees_with_the_measurement(method, operator):
    y = operator.apply(truth())
    found = restore(MIXTURE, y, operator, method=method, nfe=10, **DOUBLE)
    torch.testing.assert_close(operator.apply(found.x), y, rtol=0, atol=1e-10)
    assert float(found.residual.max()) < 1e-10


@pytest.mark.parametrize(
    ("method", "solver"), [*((method, "ddim") for method in METHODS), ("ddnm", "adaptive"), ("dps", "adaptive")]
)
def test_a_sample_does_not_depend_on_its_companions(method, solver):
    x = truth()
    y = x + 0.1 * normal(*x.shape, seed=2)
    labels, seeds = [0, 1, 2, 0, 1], [5, 1, 7, 3, 9]
    how = {"method": method, "solver": solver, "noise_std": 0.1, **DOUBLE}
    how |= {"tol": 1e-2} if solver == "adaptive" else {"nfe": 8}
    together = restore(MIXTURE, y, HALF, labels=labels, seeds=seeds, **how)
    pairs = restore(MIXTURE, y, HALF, labels=labels, seeds=seeds, batch_size=2, **how)
    torch.testing.assert_close(pairs.x, together.x, rtol=0, atol=1e-8)
    for i in (0, 3):
        alone = restore(MIXTURE, y[i : i + 1], HALF, labels=labels[i], seeds=[seeds[i]], **how)
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=0, atol=1e-8)
        assert int(alone.nfe[0]) == int(together.nfe[i])


@pytest.mark.parametrize("method", AROUND_MODEL)
def test_every_solver_goes_to_the_same_image(method):
    """On a single Gaussian, where every method's flow is smooth."""
    model = Gaussian(torch.zeros(SHAPE).double(), torch.eye(16).double() * 0.5).denoiser()
    y = DOWN.apply(truth(2)) + 0.2
    how = {"method": method, "noise_std": 0.3, **DOUBLE}
    exact = restore(model, y, DOWN, solver="adaptive", tol=1e-5, max_nfe=2000, **how)
    assert exact.converged.all()
    for solver, close in (("ddim", 0.05), ("adams3", 5e-3), ("dpmpp_2m", 0.01)):
        found = restore(model, y, DOWN, solver=solver, nfe=120, **how)
        torch.testing.assert_close(found.x, exact.x, rtol=0, atol=close)
    coarse, fine = (restore(model, y, DOWN, solver="adaptive", tol=tol, **how).x - exact.x for tol in (1e-1, 1e-3))
    assert float(fine.abs().max()) < min(5e-3, float(coarse.abs().max()))


def test_a_function_that_is_not_linear():
    operator = Differentiable(lambda x: torch.tanh(2 * x).flatten(1)[:, :8])
    y = operator.apply(truth())
    plain = operator.residual(ddim_ode.sample(MIXTURE, "ddim", 40, seeds=range(5), **DOUBLE).x, y)
    found = restore(MIXTURE, y, operator, noise_std=0.05, nfe=40, **DOUBLE)
    assert found.x.shape == (5, *SHAPE)
    assert float(found.residual.mean()) < 0.3 * float(plain.mean())


def test_an_operator_of_another_library():
    class Stub:
        A, A_adjoint, A_dagger = DOWN.apply, DOWN.adjoint, DOWN.pseudo_inverse

    y = DOWN.apply(truth())
    for noise in (0.0, 0.1):
        ours, theirs = (restore(MIXTURE, y, one, noise_std=noise, nfe=10, **DOUBLE) for one in (DOWN, Physics(Stub)))
        torch.testing.assert_close(theirs.x, ours.x, rtol=0, atol=1e-8)


def test_guidance_is_inside_and_counted():
    y, labels = HALF.apply(truth()), [0, 1, 2, 0, 1]
    plain = restore(MIXTURE, y, HALF, labels=labels, nfe=20, **DOUBLE)
    guided = restore(MIXTURE, y, HALF, labels=labels, nfe=20, guidance=2.0, **DOUBLE)
    assert plain.nfe.tolist() == guided.nfe.tolist() == [20] * 5
    assert (int(plain.steps[0]), int(guided.steps[0])) == (10, 5)


def test_guidance_in_a_range_is_that_of_the_model_inside():
    y, labels = HALF.apply(truth()), [0, 1, 2, 0, 1]
    how = {"labels": labels, "method": "ddnm", "solver": "ddim", "grid": [2.0, 1.0, 0.5, 0.0], **DOUBLE}
    found = restore(MIXTURE, y, HALF, guidance=2.0, guidance_range=(0.7, None), **how)
    inside = restore(Guided(MIXTURE, 2.0, (0.7, math.inf)), y, HALF, **how)
    assert torch.equal(found.x, inside.x)
    assert found.nfe.tolist() == [5] * 5  # two, two, one


def test_guidance_away_from_no_condition():
    """Of a network that is told a tensor: without its null value there is nothing to guide to."""

    def net(x, t, tint):
        return 0.5 * x + tint

    model, y = ddim_ode.Denoiser(net, PATH, "noise", SHAPE), HALF.apply(truth().float())
    told = {"conditions": {"tint": normal(5, *SHAPE, seed=4).float()}, "method": "ddnm", "nfe": 8}
    null = {"tint": torch.zeros(SHAPE)}
    found = restore(model, y, HALF, guidance=2.0, null=null, **told)
    plain = restore(model, y, HALF, null=null, **told)
    assert not torch.allclose(found.x, plain.x)
    twice = {**told, "conditions": {"tint": 2 * told["conditions"]["tint"]}}
    exact = restore(model, y, HALF, **{**twice, "nfe": 4})  # linear in the tint, and a pass less each
    torch.testing.assert_close(found.x, exact.x, rtol=1e-4, atol=1e-4)
    with pytest.raises(GuidanceError, match="null"):
        restore(model, y, HALF, guidance=2.0, **told)


@pytest.mark.parametrize("method", METHODS)
def test_inference_mode_changes_nothing(method):
    y = HALF.apply(truth())
    how = {"method": method, "noise_std": 0.1, "labels": [0, 1, 2, 0, 1], "nfe": 8, **DOUBLE}
    plain = restore(MIXTURE, y, HALF, **how)
    with torch.inference_mode():
        found = restore(MIXTURE, y, HALF, **how)
        fresh = restore(MIXTURE, y.clone(), Mask.half((4, 4)), **how)
        if method != "repaint":
            restore(MIXTURE, y.clone(), Blur.gaussian(0.6), **how)
    assert torch.equal(found.x, plain.x)
    assert torch.equal(fresh.x, plain.x)


def test_a_function_of_steps_is_one_line():
    operator = Differentiable(lambda x: x.round())
    with pytest.raises(MeasurementError, match="derivative is 0 on every image") as caught:
        restore(MIXTURE, operator.apply(truth()), operator, nfe=4)
    assert "\n" not in str(caught.value)


def test_the_callback_hears_of_every_step():
    for method, steps in (("mmps", 5), ("repaint", 3)):
        heard = []
        restore(MIXTURE, HALF.apply(truth()), HALF, method=method, nfe=10, callback=heard.append)
        assert [(now.step, now.steps) for now in heard] == [(n + 1, steps) for n in range(steps)]
        assert heard[-1].share == 1


@pytest.mark.parametrize("method", ["ddnm", "repaint"])
def test_a_network_that_fails_says_where(method):
    def net(x, t):
        return torch.where((torch.arange(len(x)) == 1).reshape(-1, 1, 1, 1), torch.nan, x)

    model = ddim_ode.Denoiser(net, PATH, "noise", SHAPE)
    with pytest.raises(NonFiniteError) as caught:
        restore(model, HALF.apply(truth().float()), HALF, method=method, nfe=10)
    assert (caught.value.sample, caught.value.step) == (1, 1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"y": torch.zeros(2, 1, 3, 3)}, MeasurementError, "y has shape (2, 1, 3, 3); of images (1, 4, 4)"),
        ({"operator": Mask.half((5, 5))}, MeasurementError, "a mask of 1 x 5 x 5 does not fit images of 1 x 4 x 4"),
        ({"operator": BoxDownsampling(3)}, MeasurementError, "give a divisor"),
        ({"operator": "half"}, ArgumentError, "operator is the str 'half'"),
        ({"method": "magic"}, MeasurementError, "unknown method 'magic'"),
        ({"method": 3}, ArgumentError, "method is"),
        ({"noise_std": -0.1}, MeasurementError, "noise_std=-0.1"),
        ({"noise_std": "loud"}, MeasurementError, "noise_std='loud'"),
        ({"scale": 2.0}, MeasurementError, "scale is no setting of 'mmps'; it has prior_std"),
        ({"method": "repaint", "times": 0}, MeasurementError, "times=0"),
        ({"method": "repaint", "noise_std": -1.0}, MeasurementError, "noise_std=-1.0"),
        ({"method": "repaint", "solver": "sde_euler"}, MeasurementError, "repaint adds noise of its own"),
        ({"seeds": [1]}, MeasurementError, "1 seeds are given for 2 measurements"),
        ({"labels": 7}, SampleError, "label 7 does not exist"),
        ({"labels": [0, 1, 2]}, SampleError, "labels have shape"),
        ({"conditions": {"measurement": torch.zeros(2, 1)}}, MeasurementError, "give the condition another name"),
        ({"solver": "adaptive", "nfe": 20}, SampleError, "give tol"),
    ],
)
def test_bad_input_is_one_line(change, error, words):
    arguments = {"y": torch.zeros(2, *SHAPE), "operator": HALF, **change}
    with pytest.raises(error) as caught:
        restore(MIXTURE, **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_function_is_refused_by_methods_that_need_an_adjoint():
    for method in ("ddnm", "pigdm", "repaint"):
        with pytest.raises(MeasurementError, match="use method='mmps'"):
            restore(MIXTURE, truth(), Differentiable(torch.tanh), method=method)


def test_the_example_of_the_page_runs():
    page = Path(__file__).parents[2] / "docs" / "restoring.md"
    [code] = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    known = names["operator"].known.expand(4, 1, 28, 28)
    assert torch.equal(names["found"].x[known], names["x"][known])
    assert names["found"].nfe.tolist() == [20] * 4
    assert float(psnr(names["found"].x.clamp(-1, 1), names["x"]).mean()) > 18
