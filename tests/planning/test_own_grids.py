"""Methods that bring grids of their own: the largest that a budget allows, and what they refuse, with the remedy."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ddim_ode import decode, encode, interpolate, load, log_likelihood, paths, sample
from ddim_ode.inversion import encode_with
from ddim_ode.latents import Latent
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.budget import grid_for, priced
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import prepare
from ddim_ode.planning.tuned_files import TunedError, tuned_to
from ddim_ode.solvers import MethodError
from ddim_ode.solvers.eta import EtaError
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal
from tests.helpers.tuned import FIVE, THREE, grids_for, model_with_tables, tables_for

MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Noise(0.01, 50.0))
TABLES, GRIDS = tables_for(MODEL), grids_for(MODEL, "adams2")
BOTH = pytest.mark.parametrize("method", [TABLES, GRIDS], ids=["tables", "grids"])


@BOTH
@pytest.mark.parametrize(("nfe", "cost"), [(3, 3), (4, 3), (5, 5), (6, 5), (100, 5), (None, 5)])
def test_the_largest_grid_that_the_budget_allows(method, nfe, cost):
    sol = sample(MODEL, method, nfe)
    assert sol.nfe.tolist() == [cost]
    assert sol.sigmas.tolist() == [*(FIVE if cost == 5 else THREE), 0.0]


@BOTH
@pytest.mark.parametrize("nfe", [1, 2])
def test_a_budget_below_the_smallest_names_those_that_there_are(method, nfe):
    said = one_line(SampleError, sample, MODEL, method, nfe)
    assert said.startswith(f"nfe={nfe} is too small: a tuned method has grids for 3, 5 evaluations")
    assert "use nfe >= 3" in said


@BOTH
def test_guidance_makes_them_dearer(method):
    guided = Guided(MODEL, 2.0, (0.5, 100.0))
    method = replace(method, origin=None)
    assert [cost for cost, _ in priced(guided, SolveOptions(method=method))] == [5, 9]
    assert len(grid_for(guided, SolveOptions(method=method, nfe=8))) == 4


def test_one_of_its_own_grids_may_be_given():
    found = sample(MODEL, TABLES, grid=[*THREE, 0.0])
    assert torch.equal(found.x, sample(MODEL, TABLES, 3).x)
    assert "contradicts" in one_line(SampleError, sample, MODEL, TABLES, 5, grid=[*THREE, 0.0])


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"grid": "karras"}, SampleError, "grid='karras' is not one that a tuned method has numbers for"),
        ({"grid": "auto"}, SampleError, "leave grid out"),
        ({"grid": [10.0, 1.0, 0.0]}, SampleError, "leave grid out"),
        ({"final": "sigma_min"}, SampleError, "use another method, such as 'adams3'"),
        ({"eta": 1.0}, EtaError, "use one of ddim"),
        ({"tol": 0.01}, SampleError, "a tuned method takes nfe"),
        ({"start": normal(1, *MIXTURE.shape, seed=0)}, SampleError, "give noise or seeds"),
        ({"differentiable": "adjoint"}, ValueError, "use differentiable='direct'"),
    ],
)
def test_tables_refuse_what_they_have_no_numbers_for(how: dict[str, Any], error, words):
    assert words in one_line(error, sample, MODEL, TABLES, **how)


def test_tables_do_not_encode():
    x = normal(1, *MIXTURE.shape, seed=0)
    assert "does not encode" in one_line(SampleError, encode, MODEL, x, TABLES)
    options = SolveOptions(method=TABLES)
    assert "from noise to the image alone" in one_line(MethodError, prepare, MODEL, options, 1, upward=True)
    assert "from noise to the image alone" in one_line(MethodError, encode_with, MODEL, x, options)
    assert "cannot carry a density" in one_line(ValueError, log_likelihood, MODEL, x, method=TABLES)


def test_tuned_grids_do(tmp_path):
    x = 0.1 * normal(2, *MIXTURE.shape, seed=0)
    latent = encode(MODEL, x, GRIDS, 5, labels=[0, 1], dtype=torch.float64)
    assert latent.sigmas.tolist() == [*FIVE, MODEL.sigma_min]
    assert latent.nfe.tolist() == [5, 5]
    expected = encode(MODEL, x, "adams2", grid=latent.sigmas, labels=[0, 1], dtype=torch.float64)
    assert torch.equal(latent.states[0], expected.states[0])
    assert torch.equal(decode(MODEL, latent).x, decode(MODEL, expected).x)
    latent.save(tmp_path / "z.safetensors")
    again = Latent.load(tmp_path / "z.safetensors")
    assert again.options.method == "adams2"
    assert torch.equal(decode(MODEL, again).x, decode(MODEL, latent).x)


def test_tuned_grids_keep_what_their_method_can():
    noise = normal(2, *MIXTURE.shape, seed=0)
    ends = interpolate(MODEL, noise, 3, method=TABLES, nfe=5)
    assert torch.equal(ends.x[:1], sample(MODEL, TABLES, 5, noise=noise[:1]).x)
    stop = sample(MODEL, GRIDS, 4, final="sigma_min")
    assert stop.sigmas.tolist() == [*THREE, MODEL.sigma_min]
    assert sample(MODEL, GRIDS, 5, grid="karras").nfe.tolist() == [5]
    state = 50 * normal(1, *MIXTURE.shape, seed=1)
    plain = sample(MODEL, "adams2", grid=[*FIVE, 0.0], start=state)
    assert torch.equal(sample(MODEL, GRIDS, 5, start=state).x, plain.x)
    noisy = grids_for(MODEL, "ddim")
    assert not torch.equal(sample(MODEL, noisy, 5, eta=1.0).x, sample(MODEL, noisy, 5).x)


def test_beside_a_model_it_is_called_tuned(tmp_path):
    folder = model_with_tables(tmp_path / "tiny")
    model = load(folder)
    method = tuned_to(model)
    assert torch.equal(sample(model, "tuned", 5, range(2)).x, sample(model, method, 5, range(2)).x)
    assert torch.equal(
        sample(Guided(model, 1.0), "tuned", 5, range(2), labels=0).x, sample(model, method, 5, range(2), labels=0).x
    )
    assert "guidance=2" in one_line(MethodError, sample, model, "tuned", 10, labels=0, guidance=2.0)
    assert "does not encode" in one_line(SampleError, encode, model, normal(1, 1, 8, 8, seed=0).clamp(-1, 1), "tuned")
    assert "model is the str" in one_line(ValueError, sample, "fashion", "tuned")


def test_without_a_file_it_says_how_to_make_one(tmp_path):
    folder = model_with_tables(tmp_path / "tiny")
    (folder / "tuned.json").unlink()
    said = one_line(TunedError, sample, load(folder), "tuned", 5)
    assert f"make one with ddim-ode tune {folder} --nfe 5,8,10 --out {folder}/tuned.json" in said
    assert "not loaded from a folder" in one_line(TunedError, sample, MODEL, "tuned", 5)
    (folder / "tuned.json").mkdir()
    assert "is a folder" in one_line(TunedError, sample, load(folder), "tuned", 5)
    assert "sample, compare and encode" in one_line(MethodError, SolveOptions, method="tuned")
