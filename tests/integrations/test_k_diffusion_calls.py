"""Sampler functions of k-diffusion, ComfyUI and Forge: all that they are called with, and what they call back."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_ode import paths
from ddim_ode.integrations.k_diffusion import sampler
from tests.helpers.k_models import EDM, FLOW, OURS, Inpainting, begun, grid, solved
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

BOTH = pytest.mark.parametrize("flow", [False, True], ids=["edm", "flow"])


@BOTH
@pytest.mark.parametrize("name", ["euler", "heun", "lms", "dpmpp_2m", "ipndm", *OURS])
def test_what_inpainting_keeps_stays(name, flow):
    model, _ = begun(flow)
    image, noise = labelled().sample(3, seed=5).float(), normal(3, 2, 3, seed=6).float()
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]).expand(3, 2, 3)
    s = grid(flow).float()
    start = (model.noisy(image, noise, s[0]) * (1.0 if flow else 1.005)).float()  # ComfyUI begins with a little more
    around = Inpainting(model, image, noise)
    found = sampler(name)(around, start, s, {"denoise_mask": mask, "seed": 1}, disable=True)
    assert (found - image)[mask == 0].abs().max() < 1e-6
    assert (found - image)[mask > 0].abs().max() > 0.01


@BOTH
@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "rk4", "adams4", "adaptive"])
def test_rising_sigmas_encode(name, flow):
    model, _ = begun(flow)
    image = labelled().sample(3, seed=5)
    way = paths.Flow(0.05, 3.0) if flow else paths.Noise(0.05, 3.0)
    s = way.sigma(torch.linspace(float(way.u(f64(0.05))), float(way.u(f64(3.0))), 80, dtype=torch.float64))
    s = s / (1 + s) if flow else s
    start = model.noisy(image, 0 * image, s[0])
    options = {"tol": 1e-5} if name == "adaptive" else {}
    latent = sampler(name, **options)(model, start, s, disable=True)
    most = {"dpmpp_2m": 0.15, "heun": 0.05}.get(name, 0.01)
    assert (latent - solved(model, start, float(s[0]), float(s[-1]))).abs().max() < most
    back = sampler(name, **options)(model, latent, s.flip(0), disable=True)
    assert (back - start).abs().max() < most


def test_an_image_is_encoded_from_a_little_above_0():
    model, _ = begun(False)
    image = labelled().sample(3, seed=5)
    latent = sampler("heun")(model, image, EDM.flip(0), disable=True)
    assert float(model.asked[0][0]) == pytest.approx(1e-4)
    assert torch.equal(latent, sampler("heun")(model, image, torch.cat([f64([1e-4]), EDM.flip(0)[1:]]), disable=True))


def test_a_flow_s_end_is_told_as_it_is_and_begun_from_what_it_is():
    for name in ("adams3", "rk4", "sde_dpmpp_2m", "dpmpp_2m", "dopri5"):
        model, x = begun(True)
        sampler(name)(model, x.float(), FLOW.float(), {"seed": 0}, disable=True)
        assert float(model.asked[0][0]) == 1.0, name
        assert torch.allclose(model.handed[0], x.float(), rtol=1e-6), name


@pytest.mark.parametrize("name", ["adams3", "adaptive", "sde_dpmpp_2m", "sde_heun", "dpmpp_2m"])
def test_a_flow_may_have_steps_next_to_its_end(name):
    model, x = begun(True, n=64)
    s = torch.cat([f64([1.0, 0.9999999, 0.9997, 0.999, 0.99]), FLOW[1:]])
    found = sampler(name)(model, x, s, {"seed": 2}, disable=True)
    assert float(model.asked[-1][0]) == pytest.approx(0.1)
    assert torch.isfinite(found).all()
    assert float(found.std()) == pytest.approx(float(labelled().sample(64, seed=1).std()), rel=0.3)


@BOTH
@pytest.mark.parametrize("name", ["euler", "heun", "adams3", "adaptive", "sde_dpmpp_2m"])
def test_duplicates_count_once(name, flow):
    model, x = begun(flow)
    s, seen = grid(flow), []
    twice = s[[0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 9, 10, 10]]
    found = sampler(name)(model, x, twice, {"seed": 1}, callback=lambda said: seen.append(said["i"]), disable=True)
    assert torch.equal(found, sampler(name)(model, x, s, {"seed": 1}, disable=True))
    if name != "adaptive":
        assert seen == [1, 2, 3, 4, 7, 8, 9, 10, 11, 13]


@BOTH
@pytest.mark.parametrize("name", ["euler", "heun", "adams3", "adaptive", "dopri5", "sde_heun"])
def test_one_interval_to_0_is_what_the_network_says(name, flow):
    model, x = begun(flow)
    s = f64([0.5, 0.0])
    found = sampler(name)(model, x, s, {"seed": 1}, disable=True)
    assert torch.allclose(found, model(x, s[:1].expand(3)), rtol=1e-12)
    assert len(model.asked) == 2


@pytest.mark.parametrize("sigmas", [[], [3.0], [3.0, 3.0]])
def test_no_step_is_no_change(sigmas):
    model, x = begun(False)
    assert torch.equal(sampler("heun")(model, x, f64(sigmas), disable=True), x)
    assert model.asked == []


def test_the_model_s_arguments_are_handed_on():
    told = []

    def model(x: Tensor, sigma: Tensor, **arguments: Any) -> Tensor:
        told.append(arguments)
        return x

    sampler("euler")(model, torch.ones(1, 2), EDM, {"cond": 1, "model_options": {"a": 2}}, disable=True)
    assert told == [{"cond": 1, "model_options": {"a": 2}}] * 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_state_is_finer_than_what_is_handed_over(dtype):
    given = []

    def nothing(x: Tensor, sigma: Tensor) -> Tensor:
        given.append((x.dtype, sigma.dtype))
        return torch.zeros_like(x)

    x = normal(2, 3, seed=0).to(dtype)
    s = torch.logspace(0, -2, 101, dtype=torch.float64)
    found = sampler("euler")(nothing, x, s, disable=True)
    assert found.dtype == dtype
    assert set(given) == {(dtype, torch.float64 if dtype == torch.float64 else torch.float32)}
    assert torch.allclose(
        found.double(),
        x.double() / 100,
        rtol=max(100 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps, torch.finfo(dtype).eps),
        atol=0,
    )


@BOTH
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_solver_3", "adams3", "unipc_3", "sde_dpmpp_2m"])
def test_the_callback_is_told_of_each_step_once(name, flow):
    model, x = begun(flow)
    seen: list[dict[str, Any]] = []
    sampler(name)(model, x, grid(flow), {"seed": 1}, callback=seen.append, disable=True)
    assert [said["i"] for said in seen] == list(range(10))
    assert set(seen[0]) == {"x", "i", "sigma", "sigma_hat", "denoised"}
    for said, sigma in zip(seen, grid(flow), strict=False):
        assert said["x"].shape == said["denoised"].shape == x.shape
        assert float(said["sigma"]) == float(said["sigma_hat"]) == pytest.approx(float(sigma), rel=1e-6)
        assert torch.equal(said["denoised"], model(said["x"], said["sigma"].expand(3)))


@BOTH
@pytest.mark.parametrize("name", ["adaptive", "dopri5", "sde_adaptive"])
def test_an_adaptive_method_tells_how_far_it_is(name, flow):
    model, x = begun(flow)
    seen: list[int] = []
    run = sampler(name, tol=1e-2, max_nfe=4000)
    run(model, x, grid(flow), {"seed": 1}, callback=lambda said: seen.append(said["i"]), disable=True)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 9)
    assert len(set(seen)) > 3


def test_an_interruption_is_the_caller_s():
    def stop(said: dict[str, Any]) -> None:
        if said["i"] == 3:
            raise KeyboardInterrupt

    model, x = begun(False)
    with pytest.raises(KeyboardInterrupt):
        sampler("heun")(model, x, EDM, callback=stop, disable=True)
    assert len(model.asked) == 7


class Bar:
    made: tuple["Bar", ...] = ()

    def __init__(self, total: int, disable: bool | None):
        self.total, self.disable, self.n, self.closed = total, disable, 0, False
        Bar.made = (*Bar.made, self)

    def update(self, n: int) -> None:
        assert n >= 0
        self.n += n

    def close(self) -> None:
        self.closed = True


def test_a_bar_is_there_unless_it_is_not_wanted(monkeypatch):
    monkeypatch.setattr(Bar, "made", ())
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    model, x = begun(False)
    for name in ("heun", "adaptive"):
        sampler(name)(model, x, EDM)
        sampler(name)(model, x, EDM, disable=True)
    assert [(bar.n, bar.total, bar.closed) for bar in Bar.made] == [(10, 10, True)] * 2
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    sampler("heun")(model, x, EDM)
