"""`ODEScheduler` with a tuned method: the samples of `sample`, the budgets of its file, no start but noise."""

import json
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler

from ddim_ode import METHODS, paths, sample, save_tuned, tune
from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from ddim_ode.integrations.pipelines import from_pipeline
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.tuned_files import TunedError
from ddim_ode.solvers import MethodError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import NET, SHAPE, pictures, pipeline, stable
from tests.helpers.tables import linear_table
from tests.helpers.tensors import normal
from tests.helpers.tuned import FIVE, THREE, grids_for, tables_for

MODEL = Denoiser(lambda x, t: NET(x, t).sample, paths.DiscreteVP(linear_table()), "noise", SHAPE, dtype=torch.float32)


@pytest.fixture
def file(tmp_path):
    """Of tables that begin with the noise as it is, as pipelines that never ask for a scale can take them."""
    save_tuned(tables_for(MODEL), tmp_path / "tuned.json")
    return tmp_path / "tuned.json"


@pytest.fixture
def scaled(tmp_path):
    save_tuned(tables_for(MODEL, scale=0.9), tmp_path / "scaled.json")
    return tmp_path / "scaled.json"


def noise() -> torch.Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", [DDPMPipeline, DDIMPipeline])
@pytest.mark.parametrize("n", [3, 5])
def test_a_pipeline_makes_the_samples_of_sample(file, kind, n):
    pipe, before = pipeline(ODEScheduler(method="tuned", tuned=file), kind=kind), NET.calls
    found = pictures(pipe, n)
    assert NET.calls - before == len(pipe.scheduler.timesteps) == n
    expected = (sample(MODEL, tables_for(MODEL), n, noise=noise()).x / 2 + 0.5).clamp(0, 1)
    assert 0.05 < expected.mean() < 0.95
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(pictures(pipe, n), found)


def test_tuned_grids_too(tmp_path):
    method = grids_for(MODEL, "adams2")
    save_tuned(method, tmp_path / "grids.json")
    found = pictures(pipeline(ODEScheduler(method="tuned", tuned=tmp_path / "grids.json")), 5)
    expected = (sample(MODEL, "adams2", grid=[*FIVE, 0.0], noise=noise()).x / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("twice", [False, True])
def test_the_scale_of_a_table_is_put_into_the_first_question(scaled, twice):
    scheduler = ODEScheduler(method="tuned", tuned=scaled)
    for _ in range(2):  # a run, and another with the same scheduler
        scheduler.set_timesteps(5)
        x = noise()
        for t in scheduler.timesteps:
            if twice:  # as with another network beside
                scheduler.scale_model_input(x, t)
            out = NET(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(out, t, x).prev_sample
        torch.testing.assert_close(
            x, sample(MODEL, tables_for(MODEL, scale=0.9), 5, noise=noise()).x, rtol=0, atol=1e-5
        )
    assert "does not ask scale_model_input" in one_line(SchedulerError, pictures, pipeline(scheduler), 5)


@pytest.mark.parametrize("by", ["hand", "tune"])
def test_stable_diffusion_makes_the_samples_of_sample(tmp_path, by):
    prompts, latents = normal(1, 5, 8, seed=4, dtype=torch.float32), normal(1, 2, 8, 8, seed=5, dtype=torch.float32)
    pipe = stable()
    model = from_pipeline(pipe, prompts, torch.zeros(1, 5, 8))
    method = tables_for(model, [12.0, *FIVE[1:]], scale=0.97, guidance=2.0)
    if by == "tune":
        few = {"seeds": range(1000, 1008), "held_out": range(2)}
        method = tune(model, 10, guidance=2.0, refine=False, **few)
    save_tuned(method, tmp_path / "tuned.json")
    changes = {"method": "tuned", "tuned": str(tmp_path / "tuned.json")}
    pipe.scheduler = ODEScheduler.from_config(pipe.scheduler.config, **changes)
    pipe.set_progress_bar_config(disable=True)
    found = pipe(
        prompt_embeds=prompts,
        negative_prompt_embeds=torch.zeros(1, 5, 8),
        guidance_scale=2.0,
        num_inference_steps=5,
        latents=latents,
        output_type="latent",
    ).images
    expected = sample(model, method, noise=latents, labels=0, guidance=2.0)
    assert expected.nfe.tolist() == [10]
    torch.testing.assert_close(found, expected.x, rtol=1e-5, atol=1e-5)  # latents of this network are up to 40


def test_the_config_holds_the_path(file, tmp_path):
    scheduler = ODEScheduler(method="tuned", tuned=file)
    scheduler.save_pretrained(tmp_path / "scheduler")
    told = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert (told["method"], told["tuned"]) == ("tuned", str(file))
    again = ODEScheduler.from_pretrained(tmp_path / "scheduler")
    assert torch.equal(pictures(pipeline(again), 3), pictures(pipeline(scheduler), 3))
    other = ODEScheduler.from_config(scheduler.config, method="ddim", tuned=None)
    assert torch.equal(pictures(pipeline(other), 3), pictures(pipeline(ODEScheduler(method="ddim")), 3))
    DDPMScheduler.from_config(scheduler.config)
    file.unlink()
    assert "cannot be read" in one_line(TunedError, ODEScheduler.from_pretrained, tmp_path / "scheduler")


def test_only_what_it_was_tuned_for(file):
    scheduler = ODEScheduler(method="tuned", tuned=file)
    for n in (1, 4, 50):
        said = one_line(SchedulerError, scheduler.set_timesteps, n)
        assert said == f"num_inference_steps={n} is none that this method was tuned for; use one of 3, 5"
    scheduler.set_timesteps()
    assert len(scheduler.timesteps) == 5
    scheduler.set_timesteps(sigmas=[*THREE, 0.0])
    assert len(scheduler.timesteps) == 3
    assert "leave grid out" in one_line(SampleError, scheduler.set_timesteps, sigmas=[10.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"tuned": None}, SchedulerError, "needs its file; give tuned=FILE"),
        ({"method": "ddim"}, SchedulerError, "does nothing with method='ddim'"),
        ({"grid": "karras"}, SampleError, "leave grid out"),
        ({"final": "sigma_min"}, SampleError, "use another method"),
        ({"beta_start": 0.1, "beta_end": 0.2}, MethodError, "steps to sigma=20, and the model knows 0.333333"),
        ({"method": "nothing", "tuned": None}, MethodError, "unknown method 'nothing'"),
    ],
)
def test_what_it_cannot_be(file, how: dict[str, Any], error, words):
    if "beta_start" in how:
        how = {**how, "num_train_timesteps": 10}
    assert words in one_line(error, ODEScheduler, **{"method": "tuned", "tuned": file, **how})


def test_no_start_but_noise(file):
    scheduler = ODEScheduler(method="tuned", tuned=file)
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(0)
    assert "begins at timesteps[2]" in one_line(SchedulerError, scheduler.set_begin_index, 2)
    x, (first, t) = noise(), scheduler.timesteps[:2]
    x = scheduler.step(NET(x, first).sample, first, x).prev_sample
    said = one_line(SchedulerError, scheduler.step, NET(x, t).sample, t, x + 0.1)
    assert "changed in between, where this method cannot take it up" in said


def test_every_method_but_those_is_as_before():
    assert "tuned" not in METHODS
    assert ODEScheduler(method="ddim").config["tuned"] is None


def test_other_prompts_are_the_same_model():
    pipe, blank = stable(), torch.zeros(1, 5, 8)
    method = tables_for(from_pipeline(pipe, torch.ones(1, 5, 8), blank), (12.0, 2.0, 0.3), guidance=2.0)
    three = from_pipeline(pipe, normal(3, 5, 8, seed=1, dtype=torch.float32), blank)
    assert sample(three, method, 6, range(3), labels=[0, 1, 2], guidance=2.0).nfe.tolist() == [6] * 3
    with torch.no_grad():
        next(pipe.unet.parameters()).add_(1.0)
    assert "another model" in one_line(MethodError, sample, three, method, 6, labels=0, guidance=2.0)


def test_the_network_of_a_flow_is_sampled_with_tables():
    path = paths.Flow(0.005, 200.0)
    model = Denoiser(lambda x, t: NET(x, 1000 * t).sample, path, "flow", SHAPE, dtype=torch.float32)
    begin = float(path.prior_std(torch.tensor(FIVE[0])) * paths.angle.scale(torch.tensor(FIVE[0])))
    found = sample(model, tables_for(model, FIVE, scale=begin), 5, noise=noise()).x
    expected = sample(model, "ddim", grid=[*FIVE, 0.0], noise=noise()).x
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
