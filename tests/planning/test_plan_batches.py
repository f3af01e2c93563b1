"""Plans: many samples in batches, what each is told and what waits for the last."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_ode import paths
from ddim_ode.inversion import decode, encode
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.plan import AdaptivePlan, GridPlan, prepare
from ddim_ode.sampling import sample
from tests.helpers.mixtures import labelled

LOW, HIGH = 0.02, 60.0
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Flow(LOW, HIGH))


def test_batches_are_slices_of_the_whole():
    plan = prepare(MODEL, SolveOptions(nfe=4, batch_size=3), 8)
    seen = []
    assert plan.each(8, lambda rows, watch: seen.append((rows, watch)) or rows.start, None) == [0, 3, 6]
    assert seen == [(slice(0, 3), None), (slice(3, 6), None), (slice(6, 8), None)]
    assert prepare(MODEL, SolveOptions(), 300).batch_size == DEFAULT_BATCH


def test_a_callback_is_told_of_the_batch():
    plan, told = prepare(MODEL, SolveOptions(nfe=4, batch_size=3), 5), []
    plan.each(5, lambda rows, watch: watch(2, 0.5, 1.5, torch.ones(rows.stop - rows.start)), told.append)
    assert [(now.samples, now.step, now.steps, now.share, now.sigma) for now in told] == [
        (range(3), 2, 4, 0.5, 1.5),
        (range(3, 5), 2, 4, 0.5, 1.5),
    ]
    assert [len(now.xbar) for now in told] == [3, 2]


@pytest.mark.parametrize(("start", "inside"), [(0, 0), (0, 2), (3, 1), (6, 1)])
def test_a_network_that_fails_names_the_sample_in_the_whole_run(start, inside):
    plan = prepare(MODEL, SolveOptions(nfe=4, batch_size=3), 8)

    def go(rows: slice, watch: object) -> None:
        if rows.start == start:
            raise NonFiniteError(1.0, inside)

    with pytest.raises(NonFiniteError) as caught:
        plan.each(8, go, None)
    assert caught.value.sample == start + inside


@pytest.mark.parametrize("method", ["ddim", "adaptive", "exact_heun"])
def test_sampling_and_encoding_name_the_sample_whose_network_fails(method):
    def net(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return torch.where(labels.reshape(-1, 1) == 2, math.nan, x)

    model = Denoiser(net, paths.Flow(LOW, HIGH), "noise", (2,), 3)
    labels = [0, 1, 0, 1, 0, 2, 2]
    steering: dict[str, Any] = {"tol": 0.1} if method == "adaptive" else {"nfe": 4}
    for call in (
        lambda: sample(model, method, seeds=range(7), labels=labels, batch_size=2, **steering),
        lambda: encode(model, torch.zeros(7, 2), method, labels=labels, batch_size=2, **steering),
    ):
        with pytest.raises(NonFiniteError) as caught:
            call()
        assert caught.value.sample == 5


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The batches that solutions are made of, as they come."""
    seen: list[Any] = []
    for kind in (GridPlan, AdaptivePlan):
        original = kind.solution

        def solution(self: Any, parts: Any, original: Any = original) -> Any:
            seen.extend(parts)
            return original(self, parts)

        monkeypatch.setattr(kind, "solution", solution)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact_heun", "leapfrog", "bdia", "ddim", "adaptive", "dopri5", "sde_euler"])
def test_what_waits_for_the_last_batch_is_the_state_alone(method, dtype, parts):
    sol = sample(MODEL, method, seeds=range(5), batch_size=2, dtype=dtype)
    assert len(parts) == 3
    for part in parts:
        assert part.kept == ()
        assert part.x.dtype == dtype
    assert sol.x.dtype == dtype
    assert torch.equal(sol.x, torch.cat([part.x for part in parts]))


@pytest.mark.parametrize("mode", ["direct", "adjoint", "reversible"])
def test_what_waits_for_the_last_batch_is_the_state_alone_with_a_gradient(mode, parts):
    method = "exact_heun" if mode == "reversible" else "rk4"
    noise = seeded_noise(range(5), MODEL.shape).requires_grad_()
    sol = sample(MODEL, method, nfe=8, noise=noise, batch_size=2, differentiable=mode)
    assert [(part.kept, part.x.dtype) for part in parts] == [((), torch.float32)] * 3
    sol.x.square().sum().backward()
    assert noise.grad.flatten(1).abs().amax(1).min() > 0


@pytest.mark.parametrize("method", ["exact_heun", "ddim"])
def test_what_waits_for_the_last_batch_of_a_decoding_is_the_state_alone(method, parts):
    x = MIXTURE.sample(5, seed=0, sigma=LOW).float()
    found = decode(MODEL, encode(MODEL, x, method, nfe=8, batch_size=2))
    assert [(part.kept, part.x.dtype) for part in parts] == [((), torch.float32)] * 3
    assert found.x.dtype == torch.float32
