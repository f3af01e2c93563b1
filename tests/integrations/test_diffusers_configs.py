"""`ODEScheduler` from and to configurations of diffusers, and the schedules that those mean."""

import importlib
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DPMSolverMultistepScheduler, UNet2DModel

from ddim_ode.checkpoints.scheduler_config import read_scheduler
from ddim_ode.integrations.diffusers import ODEScheduler
from tests.helpers.denoising import LAYOUT, SHAPE, pictures, pipeline
from tests.helpers.tensors import normal


def test_a_config_comes_from_and_goes_to_other_schedulers(tmp_path):
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample_range=2.0)
    scheduler = ODEScheduler.from_config(theirs.config, method="unipc_2", grid="log_snr")
    assert (scheduler.config.method, scheduler.config.grid) == ("unipc_2", "log_snr")
    assert (scheduler.config.beta_schedule, scheduler.config.prediction_type) == ("squaredcos_cap_v2", "v_prediction")
    scheduler.save_pretrained(tmp_path)
    again = ODEScheduler.from_pretrained(tmp_path)
    assert again.config.method == "unipc_2"
    assert again._model.path == scheduler._model.path
    back = DPMSolverMultistepScheduler.from_config(DDIMScheduler.from_config(again.config).config)
    assert (back.config.beta_schedule, back.config.prediction_type) == ("squaredcos_cap_v2", "v_prediction")
    assert DDIMScheduler.from_config(again.config).config.clip_sample_range == 2.0
    assert len(again) == 1000
    assert "unipc_2" in repr(again)


def test_a_pipeline_is_saved_with_it(tmp_path):
    pipe = pipeline(ODEScheduler(method="heun", grid="karras"), UNet2DModel(**LAYOUT, out_channels=1).eval())
    pipe.save_pretrained(tmp_path)
    again = DDPMPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is ODEScheduler
    assert torch.equal(pictures(again, 7), pictures(pipe, 7))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
        {"trained_betas": [0.1, 0.2, 0.3, 0.4]},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
    ],
)
def test_schedules_and_noise_are_those_of_diffusers(config):
    theirs = DDIMScheduler(**config, prediction_type="v_prediction")
    path = read_scheduler(theirs.config)[0].path()
    table = theirs.alphas_cumprod.double().numpy()[: len(path.alphas_cumprod)]
    assert path.zero_terminal_snr == bool(config.get("rescale_betas_zero_snr"))
    torch.testing.assert_close(torch.tensor(path.alphas_cumprod), torch.tensor(table), rtol=1e-4, atol=1e-7)
    image, noise = normal(3, *SHAPE, seed=0, dtype=torch.float32), normal(3, *SHAPE, seed=1, dtype=torch.float32)
    t = torch.tensor([0, 1, 3])
    scheduler = ODEScheduler.from_config(theirs.config)
    expected = theirs.add_noise(image, noise, t)  # from a table in float32
    torch.testing.assert_close(scheduler.add_noise(image, noise, t), expected, rtol=0, atol=3e-5)
    assert scheduler.scale_model_input(image, t) is image


def test_without_diffusers_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.configuration_utils", None)
    monkeypatch.delitem(sys.modules, "ddim_ode.integrations.diffusers")
    with pytest.raises(ImportError, match=r"pip install 'ddim_ode\[diffusers\]'"):
        importlib.import_module("ddim_ode.integrations.diffusers")


def test_importing_the_library_does_not_import_diffusers():
    names = "sys, ddim_ode; ddim_ode.sample, ddim_ode.load, ddim_ode.Denoiser"
    code = f"import {names}; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
