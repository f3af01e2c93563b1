"""What `sample` asks of its arguments before it draws anything, and that noise is drawn as it is needed."""

import math

import pytest
import torch

from ddim_ode import paths, sampling
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Recording
from tests.helpers.tables import PATHS
from tests.helpers.tensors import normal

VP = PATHS["linear"]
MODEL = labelled().denoiser(VP)


def drawn(monkeypatch):
    """The seeds of every draw."""
    found = []
    monkeypatch.setattr(
        sampling, "seeded_noise", lambda seeds, shape: found.append(seeds) or seeded_noise(seeds, shape)
    )
    return found


def test_the_noise_of_a_batch_is_drawn_when_its_turn_comes(monkeypatch):
    batches, seen = drawn(monkeypatch), []
    whole = sample(
        MODEL, nfe=2, seeds=[5, 1, 7, 3, 2], batch_size=2, callback=lambda p: seen.append((p.samples, len(batches)))
    ).x
    assert batches == [(5, 1), (7, 3), (2,)]
    assert [count for _, count in seen] == [1, 1, 2, 2, 3, 3]
    assert torch.equal(whole, sample(MODEL, nfe=2, noise=seeded_noise([5, 1, 7, 3, 2], MODEL.shape), batch_size=2).x)


@pytest.mark.parametrize(
    "choices",
    [
        {"labels": 7},
        {"grid": [1e9, 1]},
        {"callback": 3},
        {"differentiable": 3},
        {"differentiable": "adjoint"},
        {"guidance": 1e39},
        {"guidance": "2"},
        {"dtype": "float32"},
        {"nfe": 10**9},
        {"method": "sde_euler", "eta": 1e200},
        {"eta": int},
        {"noise": torch.zeros(1, 2, 3)},
    ],
    ids=str,
)
def test_nothing_is_drawn_or_asked_for_what_cannot_be(monkeypatch, choices):
    batches, net = drawn(monkeypatch), Recording()
    model = Denoiser(net, VP, "noise", (2, 3), 3)
    one_line(DDIMError, sample, model, **{"seeds": range(3), **choices})
    assert batches == net.calls == []


def test_more_samples_than_there_is_room_for_are_refused_before_any_is_drawn(monkeypatch):
    batches = drawn(monkeypatch)
    monkeypatch.setenv("DDIM_ODE_MEMORY", "48k")
    assert len(sample(MODEL, nfe=1, seeds=range(1000)).x) == 1000
    del batches[:]
    line = one_line(DDIMError, sample, MODEL, nfe=1, seeds=range(1200))
    assert line.startswith("x of 1,200 samples of shape (2, 3) would take 57.6 kB of memory, and 48 kB are allowed")
    assert batches == []


@pytest.mark.parametrize("argument", ["noise", "start"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(argument, dtype):
    given = normal(2, 2, 3, seed=0).to(dtype)
    found = sample(MODEL, grid=[5.0, 1.0, 0.0], **{argument: given}).x
    assert found.dtype == torch.float32
    assert torch.equal(found, sample(MODEL, grid=[5.0, 1.0, 0.0], **{argument: given.float()}).x)


PICTURES = Denoiser(Recording(), VP, "noise", (1, 2, 3))


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"noise": torch.full((1, 1, 2, 3), 255.0)}, "noise reaches 255, and standard normals stay below 50"),
        (
            {"start": torch.full((1, 1, 2, 3), 255.0)},
            "start reaches 255, and images plus noise at sigma=1 stay below 60",
        ),
        ({"start": torch.full((1, 1, 2, 3), 1e30)}, "start reaches 1e+30"),
        ({"start": torch.zeros(1, 1, 2, 3).byte()}, "start is torch.uint8; give floats, states x0 + sigma eps"),
    ],
)
def test_values_that_no_state_of_a_picture_has_are_refused(choices, line):
    assert line in one_line(DDIMError, sample, PICTURES, grid=[1.0, 0.5, 0.0], **choices)


def test_what_is_no_picture_may_be_of_any_size():
    x = torch.full((1, 2, 3), 20.0)
    model = Denoiser(lambda x, t: torch.zeros_like(x), VP, "noise", (2, 3))
    torch.testing.assert_close(sample(model, start=x, grid=[0.1, 0.05, 0.0]).x, x)  # without noise nothing moves


def test_an_expanded_start_is_what_it_is_in_full():
    given = normal(1, 2, 3, seed=0).expand(3, 2, 3)
    assert torch.equal(sample(MODEL, nfe=2, start=given).x, sample(MODEL, nfe=2, start=given.clone()).x)


@pytest.mark.parametrize("where", ["callback", "net"])
def test_somebodys_error_stays_theirs(where):
    error = KeyError("mine")

    def fail(*_):
        raise error

    model = Denoiser(fail if where == "net" else Recording(), VP, "noise", (2, 3))
    with pytest.raises(KeyError) as caught:
        sample(model, nfe=2, callback=fail if where == "callback" else None)
    assert caught.value is error
    assert caught.traceback[-1].name == "fail"


def test_sigmas_of_float32_begin_at_the_models_largest():
    model = Denoiser(Recording(), paths.Noise(0.01, 50.0), "noise", (2, 3))
    grid = torch.linspace(math.log(50), math.log(0.02), 4).exp()
    assert float(grid[0]) > 50
    for method in ("ddim", "sde_srk", "heun"):
        assert float(sample(model, method, grid=grid).sigmas[0]) == 50.0
