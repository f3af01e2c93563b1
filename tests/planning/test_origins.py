"""A tuned method runs on the model that it was tuned to, however that is dressed, and on others only if forced."""

from dataclasses import replace

import pytest
import torch

from ddim_ode import METHODS, paths, recommend, sample
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.fast import Fast
from ddim_ode.models.guidance import Guided
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning import origins
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.origins import check_origin, digest_of
from ddim_ode.planning.plan import prepare
from ddim_ode.solvers import MethodError
from ddim_ode.study.meter import Meter
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import random_network
from tests.helpers.tuned import grids_for, tables_for

MODEL = random_network()
METHOD = tables_for(MODEL)


def changed(net: torch.nn.Module) -> None:
    with torch.no_grad():
        next(net.parameters()).mul_(1.5)


def test_of_a_plain_model_it_is_the_fingerprint():
    assert digest_of(MODEL) == fingerprint(MODEL) == digest_of(Guided(MODEL, 3.0))


def dressed() -> dict[str, Denoiser]:
    """The model in other precisions and around, none of which is asked anything."""
    fast = object.__new__(Fast)  # without what it compiles
    torch.nn.Module.__init__(fast)
    fast.net = random_network().net
    return {
        "float64": MODEL.to(dtype=torch.float64),
        "fast": replace(MODEL, net=fast),
        "compiled": replace(MODEL, net=torch.compile(random_network().net)),
        "watched": Meter().watch(MODEL),
        "watched and guided": Meter().watch(Guided(MODEL, 2.0)),
        "loaded twice": random_network(),
    }


@pytest.mark.parametrize("how", dressed())
def test_the_same_weights_are_the_same_model(how):
    assert digest_of(dressed()[how]) == digest_of(MODEL)


def test_a_float64_network_and_a_guided_twin_sample_with_it():
    wide = MODEL.to(dtype=torch.float64)
    found = sample(wide, METHOD, 5, range(2), labels=0, dtype=torch.float64).x
    torch.testing.assert_close(found.float(), sample(MODEL, METHOD, 5, range(2), labels=0).x, rtol=0, atol=1e-4)
    sample(Guided(MODEL, 1.0), METHOD, 5, labels=0)


@pytest.mark.parametrize("other", ["weights", "path", "predicts", "shape"])
def test_another_model_is_refused_and_forced(other):
    net = random_network().net
    changed(net)
    model = {
        "weights": replace(MODEL, net=net),
        "path": replace(MODEL, path=paths.DiscreteVP.cosine()),
        "predicts": replace(MODEL, predicts="velocity"),
        "shape": replace(MODEL, shape=(1, 16, 16)),
    }[other]
    said = one_line(MethodError, sample, model, METHOD, 5)
    assert "tuned to another model (1 x 8 x 8, 3 classes, sigma 0.01 to" in said
    assert "force" in said
    forced = replace(METHOD, origin=replace(METHOD.origin, forced=True))
    assert sample(model, forced, 5).nfe.tolist() == [5]


def test_weights_that_change_in_place_are_noticed():
    model = random_network()
    check_origin(model, METHOD)
    changed(model.net)
    assert "another model" in one_line(MethodError, check_origin, model, METHOD)
    model.net.load_state_dict(MODEL.net.state_dict())
    check_origin(model, METHOD)
    model.net.load_state_dict({name: 2 * value for name, value in MODEL.net.state_dict().items()}, assign=True)
    assert "another model" in one_line(MethodError, check_origin, model, METHOD)


def test_a_network_is_read_once(monkeypatch):
    model, seen = random_network(), []
    monkeypatch.setattr(origins, "fingerprint", lambda *given: seen.append(given) or fingerprint(*given))
    for _ in range(3):
        sample(model, METHOD, 3)
    assert len(seen) == 1
    sample(replace(model, num_classes=0, net=lambda x, t: x), replace(METHOD, origin=None), 3)
    assert len(seen) == 1  # a method without an origin asks nothing


def test_of_inference_tensors_every_time():
    with torch.inference_mode():
        model = random_network()
    assert digest_of(model) == digest_of(MODEL)


@pytest.mark.parametrize(
    ("tuned", "asked", "words"),
    [
        ({}, {"guidance": 3.0}, "tuned without guidance, and is to run with guidance=3"),
        ({"guidance": 3.0}, {}, "tuned with guidance=3, and is to run without guidance"),
        ({"guidance": 3.0}, {"guidance": 2.0}, "tuned with guidance=3, and is to run with guidance=2"),
        (
            {"guidance": 3.0, "guidance_range": (0.1, 10.0)},
            {"guidance": 3.0},
            "tuned with guidance=3 at sigmas 0.1 to 10, and is to run with guidance=3",
        ),
        (
            {"guidance": 3.0},
            {"guidance": 3.0, "guidance_range": (0.1, None)},
            "is to run with guidance=3 at sigmas 0.1 to inf",
        ),
    ],
)
def test_other_guidance_is_refused_and_forced(tuned, asked, words):
    method = tables_for(MODEL, **tuned)
    said = one_line(MethodError, sample, MODEL, method, 10, labels=0, **asked)
    assert words in said
    assert "tune it anew" in said
    sample(MODEL, replace(method, origin=replace(method.origin, forced=True)), 10, labels=0, **asked)


def test_the_same_guidance_however_it_is_given():
    method = tables_for(MODEL, guidance=3.0, guidance_range=(0.1, 10.0))
    by_options = sample(MODEL, method, labels=0, guidance=3.0, guidance_range=(0.1, 10.0))
    assert torch.equal(by_options.x, sample(Guided(MODEL, 3.0, (0.1, 10.0)), method, labels=0).x)
    everywhere = tables_for(MODEL, guidance=3.0)
    sample(MODEL, everywhere, labels=0, guidance=3.0, guidance_range=(None, None))


@pytest.mark.parametrize("first", [1e6, 1e-4])
def test_a_first_sigma_that_the_model_does_not_know_is_refused_even_if_forced(first):
    grid = [first, first / 2]
    for method in (tables_for(MODEL, grid, forced=True), grids_for(MODEL, "adams3", grid, forced=True)):
        assert f"steps to sigma={first:.6g}" in one_line(MethodError, sample, MODEL, method)


def test_grids_that_were_tuned_are_not_asked_about_where_another_is_given():
    other = labelled().denoiser(paths.Noise(0.01, 50.0))
    method = grids_for(MODEL, "adams3")
    assert "another model" in one_line(MethodError, sample, other, method)
    found = sample(other, method, 6, grid="karras")
    assert torch.equal(found.x, sample(other, METHODS["adams3"], 6, grid="karras").x)


def test_it_is_asked_where_plans_are_made():
    options = SolveOptions(method=METHOD)
    prepare(MODEL, options, 1)
    assert "another model" in one_line(MethodError, prepare, labelled().denoiser(MODEL.path), options, 1)
    assert "tuned" not in {row.method for row in recommend(MODEL, nfe=3, seeds=range(1)).study.rows}
