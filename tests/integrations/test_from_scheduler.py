"""`ODEScheduler.from_scheduler`: what pipelines read, write and call, and adaptive methods inside of them."""

import json
import re
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from ddim_ode.checkpoints.scheduler_config import ScheduleError
from ddim_ode.errors import DDIMError
from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from ddim_ode.integrations.handed import SpentWarning
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import ZOO
from tests.helpers.pipelines.driving import run
from tests.helpers.pipelines.tiny import WARNINGS
from tests.helpers.tensors import normal

pytestmark = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in WARNINGS]

SHAPE = (2, 3, 8, 8)
STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def noise(seed: int = 0) -> Tensor:
    return normal(*SHAPE, seed=seed, dtype=torch.float32)


def net(x: Tensor, t: Any) -> Tensor:
    """A network of noise or of flow, smooth in both."""
    return torch.tanh(x) + 0.3 * torch.sin(torch.as_tensor(t) / 300)


def go(scheduler: Any, x: Tensor, times: Any = None) -> Tensor:
    for t in scheduler.timesteps if times is None else times:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(net(seen, t), t, x, return_dict=False)[0]
    return x


# --- the scheduler that it stands for


@pytest.mark.parametrize(
    "theirs", [EulerDiscreteScheduler(**STABLE, timestep_spacing="leading"), FlowMatchEulerDiscreteScheduler(shift=3.0)]
)
def test_samples_and_noise_are_in_the_words_of_theirs(theirs):
    ours = ODEScheduler.from_scheduler(theirs, "euler")
    theirs.set_timesteps(7)
    ours.set_timesteps(7)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=0, atol=2e-3)
    assert ours.init_noise_sigma == pytest.approx(float(getattr(theirs, "init_noise_sigma", 1.0)))
    add = "scale_noise" if hasattr(theirs, "scale_noise") else "add_noise"
    image, t = noise(1), theirs.timesteps[3:4].repeat(2)
    order = (image, t, noise(2)) if add == "scale_noise" else (image, noise(2), t)
    theirs.set_begin_index(3)
    torch.testing.assert_close(getattr(ours, add)(*order), getattr(theirs, add)(*order), rtol=1e-5, atol=1e-5)
    theirs.set_begin_index(0)
    x = ours.init_noise_sigma * noise()
    torch.testing.assert_close(go(ours, x), go(theirs, x), rtol=1e-4, atol=1e-4)


def test_heun_of_a_flow_is_theirs():
    theirs = FlowMatchHeunDiscreteScheduler(shift=3.0)
    ours = ODEScheduler.from_scheduler(theirs, "heun")
    theirs.set_timesteps(5)
    ours.set_timesteps(9)
    torch.testing.assert_close(go(ours, noise()), go(theirs, noise()), rtol=1e-4, atol=1e-4)


def test_its_facts_are_those_of_the_scheduler_and_can_be_changed():
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours = ODEScheduler.from_scheduler(theirs, "euler")
    assert (ours.config.shift, ours.config.base_shift, ours.config.get("beta_schedule")) == (3.0, 0.5, None)
    assert (ours.shift, ours.sigma_min) == (theirs.shift, theirs.sigma_min)
    ours.sigma_min = theirs.sigma_min = 0.0  # as Z-Image does
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(4)
    torch.testing.assert_close(ours.sigmas[:3], theirs.sigmas[:3], rtol=0, atol=2e-6)
    assert "has no model_outputs, which this pipeline" in one_line(AttributeError, lambda: ours.model_outputs)
    assert not hasattr(ours, "nothing_of_the_kind")


def test_shifts_are_those_of_the_pipeline():
    ours = ODEScheduler.from_scheduler(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "euler")
    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    shares = [1.0, 0.75, 0.5, 0.25]
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(sigmas=shares, mu=0.8)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=2e-6)
    assert "`mu` must be passed" in one_line(SchedulerError, ours.set_timesteps, 4)
    heun = ODEScheduler.from_scheduler(theirs, "heun")
    heun.set_timesteps(sigmas=[1 - k / 9 for k in range(9)], mu=0.8)
    assert len(heun.timesteps) == 9


def test_it_is_saved_and_loaded_and_made_of_another(tmp_path):
    ours = ODEScheduler.from_scheduler(
        UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
        "adaptive",
        tol=0.05,
    )
    ours.save_pretrained(tmp_path)
    again = ODEScheduler.from_pretrained(tmp_path)
    assert (again.config.tol, again.config.scheduler) == (0.05, "UniPCMultistepScheduler")
    assert again._original.config.flow_shift == 3.0
    found = []
    for scheduler in (ours, again):
        scheduler.set_timesteps(30)
        found.append(go(scheduler, noise()))
    assert torch.equal(*found)
    other = ODEScheduler.from_scheduler(again, "dpmpp_2m")
    assert (other.config.tol, other._original.config.flow_shift) == (None, 3.0)
    plain = ODEScheduler.from_scheduler(ODEScheduler(method="heun", beta_end=0.03), "ddim")
    assert (plain.config.method, plain.config.beta_end) == ("ddim", 0.03)


class Mine(FlowMatchEulerDiscreteScheduler):
    """A class that diffusers has not."""


def test_a_class_of_ones_own_is_known_as_long_as_the_process_has_it(tmp_path):
    ours = ODEScheduler.from_scheduler(Mine(shift=2.0), "euler")
    assert ours.config.scheduler == f"{__name__}.Mine"
    ours.save_pretrained(tmp_path)
    assert type(ODEScheduler.from_pretrained(tmp_path)._original) is Mine
    text = (tmp_path / "scheduler_config.json").read_text().replace(".Mine", ".Yours")
    (tmp_path / "scheduler_config.json").write_text(text)
    assert "give the object to ODEScheduler.from_scheduler" in one_line(
        SchedulerError, ODEScheduler.from_pretrained, tmp_path
    )


@pytest.mark.parametrize(
    "change", [{"shift": "no"}, {"scheduler": "DDIMScheduler", "beta_schedule": "none"}, {"num_train_timesteps": 0}]
)
def test_a_damaged_config_is_one_line(tmp_path, change):
    flow("adaptive", tol=0.02).save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert "diffusers cannot make it of this config" in one_line(ScheduleError, ODEScheduler.from_pretrained, tmp_path)


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (SchedulerError, lambda: ODEScheduler.from_scheduler(DDIMScheduler), "give that of a pipeline"),
        (SchedulerError, lambda: ODEScheduler.from_scheduler(None), "scheduler is None"),
        (SchedulerError, lambda: ODEScheduler(scheduler="Karras"), "scheduler='Karras' is no scheduler of diffusers"),
        (ScheduleError, lambda: ODEScheduler.from_config({"use_flow_sigmas": True}), "does not say whose it is"),
        (DDIMError, lambda: flow("adaptive").set_timesteps(0), "num_inference_steps=0 must be"),
        (SchedulerError, lambda: flow("rk4", tol=None).set_timesteps(None), "num_inference_steps=None must be"),
        (SchedulerError, lambda: flow("dpmpp_2m").set_timesteps(5, warp=3), "takes no warp"),
        (SchedulerError, lambda: flow("dpmpp_2m").set_timesteps(sigmas="1, 0"), "sigmas is the str"),
        (SchedulerError, lambda: flow("ddim", shift=2.0), "shift=2.0 is of the pipeline's scheduler"),
        (SchedulerError, lambda: flow("ddim", final="sigma_min").set_timesteps(5), "final='sigma_min' is of our grids"),
        (SchedulerError, lambda: flow("ddim", grid="logistic").set_timesteps(sigmas=[1.0]), "leave sigmas"),
    ],
)
def test_what_cannot_be_is_one_line(error, call, words):
    assert re.search(words, one_line(error, call))


def flow(method: str, **options: Any) -> ODEScheduler:
    return ODEScheduler.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0), method, **options)


# --- adaptive


def test_the_loop_ends_with_the_solver_and_no_call_is_wasted():
    scheduler = flow("adaptive", tol=0.01)
    scheduler.set_timesteps(50)
    calls, x, told = 0, noise(), []
    for t in scheduler.timesteps:
        assert torch.equal(t, scheduler.timesteps[calls])
        assert float(scheduler.sigmas[calls]) == pytest.approx(float(t) / 1000, abs=1e-5)
        told.append(float(t))
        x = scheduler.step(net(x, t), t, x).prev_sample
        calls += 1
    assert 5 < calls < 30
    assert (scheduler.converged, scheduler.step_index) == (True, calls)
    assert told[0] == pytest.approx(1000, abs=0.01)
    fine = flow("adaptive", tol=1e-5)
    fine.set_timesteps(500)
    assert float((x - go(fine, noise())).square().mean().sqrt()) < 0.01


def test_the_largest_number_of_calls_is_kept_to_and_said():
    scheduler = flow("adaptive", tol=1e-5)
    scheduler.set_timesteps(6)
    with pytest.warns(SpentWarning, match="6 network calls did not do"):
        x = go(scheduler, noise())
    assert (scheduler.step_index, scheduler.converged) == (6, False)
    assert torch.equal(scheduler.step(net(x, 0), 0.0, x).prev_sample, x)  # of a loop that goes on all the same
    assert "call set_timesteps before another run" in one_line(SchedulerError, scheduler.step, x, 0.0, x + 1)


def test_a_batch_shares_its_steps_and_its_worst_member_decides():
    def calls(x: Tensor) -> int:
        scheduler = flow("adaptive", tol=0.003)
        scheduler.set_timesteps(200)
        for t in scheduler.timesteps:
            bend = torch.tensor([1.0, 0.0]).reshape(-1, 1, 1, 1)[: len(x)]
            out = torch.tanh(x) + bend * torch.sin(8 * x)
            x = scheduler.step(out, t, x).prev_sample
        return int(scheduler.step_index)

    one = calls(noise()[:1])
    assert one <= calls(noise()) <= 1.3 * one + 3
    assert one > 1.3 * calls(noise()[1:] * 0 + 0.5)


@pytest.mark.parametrize("name", ["sd15", "sd3", "wan21"])
def test_it_begins_later_in_image_to_image(name):
    scheduler = ODEScheduler.from_scheduler(ZOO[name]().pipe.scheduler, "adaptive", tol=0.01)
    scheduler.set_timesteps(20)
    scheduler.set_begin_index(8)
    t = scheduler.timesteps[8:][:1]
    x = scheduler.add_noise(noise(1), noise(2), t)
    calls = 0
    for t in scheduler.timesteps[8:]:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t), t, x).prev_sample
        calls += 1
    assert scheduler.converged
    assert calls <= 12


def test_the_bar_of_the_pipeline_ends_where_the_method_does(capfd):
    tiny = ZOO["sd15"]()
    tiny.pipe.set_progress_bar_config(disable=False)
    scheduler = ODEScheduler.from_scheduler(tiny.pipe.scheduler, "adaptive", tol=0.1)
    run(tiny, scheduler, 40)
    calls = scheduler.step_index
    assert "100%" in (last := capfd.readouterr().err.split("\r")[-1])
    assert f" {calls}/{calls} " in last
