"""What a model tells of itself: the bundled one, one made by hand, one in closed form, and one around another."""

import dataclasses
import json

import pytest
import torch

import ddim_ode
from ddim_ode import paths
from ddim_ode.models.guidance import Guided
from ddim_ode.models.provenance import describe

FASHION = ddim_ode.load("fashion")


def test_the_bundled_model_tells_where_it_came_from():
    origin = FASHION.provenance
    assert (origin.kind, origin.ema, origin.dtype, origin.ignored) == ("ddim_ode", "not stated", "float16", ())
    assert origin.file == f"{origin.folder}/model.safetensors"
    assert origin.config.network.shape == FASHION.shape
    facts = describe(FASHION)
    assert facts["bytes"] == origin.bytes > 1_000_000
    assert facts["parameters"] == sum(p.numel() for p in FASHION.net.parameters())
    assert facts["weights"] == origin.file


def test_a_copy_keeps_it_and_it_does_not_make_models_differ():
    moved = FASHION.to(dtype=torch.float64)
    assert moved.provenance is FASHION.provenance
    assert dataclasses.replace(FASHION, provenance=None) == FASHION


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            ddim_ode.Denoiser(lambda x, t: x, paths.Noise(0.01, 50.0), "noise", (2, 3)),
            {"description": "function, Noise schedule", "parameters": None, "predicts": "noise", "timesteps": None},
        ),
        (
            ddim_ode.Denoiser(torch.nn.Linear(4, 4).eval(), paths.DiscreteVP.linear(), "velocity", (4,)),
            {"description": "Linear, DiscreteVP schedule", "parameters": 20, "timesteps": 1000, "zero_snr": False},
        ),
        (
            ddim_ode.GaussianMixture(torch.zeros(1, 2), 0.5).denoiser(paths.Flow(0.01, 99.0)),
            {"schedule": "Flow", "sigma_range": [0.01, 99.0], "classes": 0, "null_class": False},
        ),
        (Guided(FASHION, 2.0), {"kind": "ddim_ode", "classes": 10, "null_class": True, "predicts": FASHION.predicts}),
    ],
    ids=["a function", "a module", "a mixture", "around another"],
)
def test_any_model_can_be_described(model, expected):
    facts = describe(model)
    assert facts.keys() == describe(FASHION).keys()
    assert {name: facts[name] for name in expected} == expected
    json.dumps(facts, allow_nan=False)


def test_one_made_by_hand_has_no_files():
    facts = describe(ddim_ode.Denoiser(lambda x, t: x, paths.noise, "noise", (1,)))
    assert {name for name, value in facts.items() if value is None} >= {"kind", "weights", "sha256", "bytes", "ema"}
