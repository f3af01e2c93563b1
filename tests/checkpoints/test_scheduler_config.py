"""What a scheduler's configuration of diffusers means, and every value that it cannot have."""

import inspect
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler, SchedulerMixin

from ddim_ode.checkpoints.files import CheckpointWarning
from ddim_ode.checkpoints.scheduler_config import (
    CLASSES,
    SAMPLING,
    ScheduleError,
    Scheduler,
    ignored_in,
    read_scheduler,
)
from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.models.config import ScheduleConfig
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import ddim

# Some schedulers of diffusers give tensors to numpy in a way that it will not take any more.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{words}:DeprecationWarning") for words in ("__array", ".*copy keyword")
]


def schedulers() -> dict[str, type]:
    """Every scheduler of the installed diffusers."""
    found = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and hasattr(kind, "config_name")}


def defaults(kind: type) -> dict[str, Any]:
    """What a scheduler's config says where nobody gave anything."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}


ALL = schedulers()
WITH_BETAS = sorted(set(CLASSES) & set(ALL))


def assert_like(schedule: ScheduleConfig, scheduler: Any) -> None:
    """The path of a schedule has a scheduler's own table, which is of float32."""
    path = schedule.path()
    found = torch.tensor([*path.alphas_cumprod, *[0.0] * path.zero_terminal_snr], dtype=torch.float64)
    torch.testing.assert_close(found, scheduler.alphas_cumprod.double(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta_start": "x"}, "beta_start: Input should be a valid number"),
        ({"num_train_timesteps": -5}, "num_train_timesteps: Input should be greater than 0"),
        ({"trained_betas": "abc"}, "trained_betas: Input should be a valid tuple"),
        ({"trained_betas": [[0.1]]}, "trained_betas.0: Input should be a valid number"),
        ({"snr_shift_scale": 0}, "snr_shift_scale: Input should be greater than 0"),
    ],
)
def test_a_schedulers_values_are_checked(values, message):
    with pytest.raises(ConfigError, match=f"DDIMScheduler: {message}"):
        read_scheduler({"_class_name": "DDIMScheduler", "beta_schedule": "linear", **values})


def test_trained_betas_may_be_an_array():
    config = {"beta_schedule": "linear", "trained_betas": np.array([0.1, 0.2])}
    assert read_scheduler(config)[0].path().num_timesteps == 2


# --- the table of all schedulers of diffusers


def test_every_scheduler_with_a_table_is_known_here():
    with_table = {name for name in ALL if "alphas_cumprod" in inspect.getsource(inspect.getmodule(ALL[name]))}
    own = {name for name in with_table if "self.alphas_cumprod" in inspect.getsource(ALL[name])}
    assert own == set(CLASSES) - {"ODEScheduler"}
    assert len(own) > 20


@pytest.mark.parametrize("name", WITH_BETAS)
def test_the_schedule_of_every_class_is_its_own_table(name):
    scheduler = ALL[name]()
    said, _ = read_scheduler(scheduler.config, table=scheduler.alphas_cumprod)
    unsaid, predicts = read_scheduler({"_class_name": name})
    assert_like(said, scheduler)
    assert said == unsaid
    assert predicts == "noise"


@pytest.mark.parametrize("name", WITH_BETAS)
def test_the_defaults_of_every_class_are_those_of_its_signature(name):
    given = defaults(ALL[name])
    for key, value in CLASSES[name].items():
        assert given[key] == value
    # Whatever else it can be told is of the schedule, of sampling, or refused unless it is as usual.
    assert set(given) - set(Scheduler.model_fields) - SAMPLING <= {"use_flow_sigmas", "timestep_type"}
    assert ("clip_sample" in ignored_in({"_class_name": name})) == given.get("clip_sample", False)


@pytest.mark.parametrize("name", sorted(set(ALL) - set(CLASSES)))
def test_every_other_class_is_refused_by_name(name):
    text = one_line(ScheduleError, read_scheduler, {"_class_name": name, **defaults(ALL[name])})
    assert f"{name} has no beta_schedule; the model's schedule must be of DDPM's kind" in text


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"trained_betas": [0.1, 0.2, 0.3], "prediction_type": "v_prediction"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
    ],
)
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "CogVideoXDPMScheduler", "LCMScheduler"])
def test_what_a_config_says_is_its_table(name, config):
    scheduler = ALL[name](**config)
    assert_like(read_scheduler({"_class_name": name, **config})[0], scheduler)
    assert_like(read_scheduler(scheduler.config, table=scheduler.alphas_cumprod)[0], scheduler)


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("end", [False, True])
def test_a_shifted_ratio_of_signal_and_noise(scale, end):
    values = {"snr_shift_scale": scale, "rescale_betas_zero_snr": end, "prediction_type": "v_prediction"}
    scheduler = diffusers.CogVideoXDDIMScheduler(**values)
    assert_like(read_scheduler(scheduler.config)[0], scheduler)
    assert_like(read_scheduler({"_class_name": "CogVideoXDDIMScheduler", **values})[0], scheduler)


@pytest.mark.parametrize("scheduler", [DDPMScheduler(beta_schedule="sigmoid"), DDPMScheduler(beta_schedule="laplace")])
def test_a_schedule_without_a_name_here_is_its_table_in_memory(scheduler):
    assert_like(read_scheduler(scheduler.config, table=scheduler.alphas_cumprod)[0], scheduler)
    text = one_line(ScheduleError, read_scheduler, scheduler.config)
    assert f"unknown beta_schedule '{scheduler.config.beta_schedule}'" in text


def changed(scheduler: SchedulerMixin, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(scheduler, name, value)
    return scheduler


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (
            changed(ddim(), alphas_cumprod=ddim(beta_end=0.03).alphas_cumprod),
            r"alphas_cumprod\[\d+\]=.* its config means",
        ),
        (
            changed(ddim(), alphas_cumprod=torch.linspace(0.9, 0.1, 10)),
            "it has 10 alphas_cumprod, and its config means 1000",
        ),
        # A config that was made for another class, whose words the class at hand does not know.
        (
            DDIMScheduler.from_config(diffusers.CogVideoXDDIMScheduler(snr_shift_scale=2.0).config),
            "alphas_cumprod",
        ),
        (PNDMScheduler.from_config({"rescale_betas_zero_snr": True}), "alphas_cumprod"),
    ],
)
def test_a_table_that_its_config_does_not_mean_is_refused(scheduler, words):
    with pytest.raises(ScheduleError, match=words) as caught:
        read_scheduler(scheduler.config, table=scheduler.alphas_cumprod)
    assert "trained_betas" in str(caught.value)


# --- keys


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "use_flow_sigmas=True .* Denoiser.from_flow"),
        ({"prediction_type": "flow_prediction"}, "unknown prediction_type 'flow_prediction'"),
        ({"timestep_type": "continuous"}, "timestep_type='continuous' is another model"),
        (
            {"predict_epsilon": False, "prediction_type": "epsilon"},
            "predict_epsilon=False .* write prediction_type='sample'",
        ),
        ({"shift": 3.0}, "shift=3.0 is another model than one with betas; its model is a flow"),
        ({"sigma_data": 0.5}, "sigma_data=0.5 is another model than one with betas; its model is of EDM"),
        ({"timesteps": 500}, "timesteps=500 is not known here, and might change the schedule"),
        ({"scale_betas_for_timesteps": True}, "scale_betas_for_timesteps=True is not known here"),
        ({"sigma_schedule": "karras"}, "sigma_schedule='karras' is not known"),
        ({"shift_factor": [1, 2]}, r"shift_factor=\[1, 2\] is not known"),
        ({"beta_schedule": "cubic"}, "unknown beta_schedule 'cubic'"),
        ({"beta_schedule": None}, "has no beta_schedule"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler has no beta_schedule"),
        ({"_class_name": "Mine"}, "the default of num_train_timesteps in a 'Mine' is not known here"),
    ],
)
def test_what_might_change_the_schedule_is_refused_by_name(values, words):
    with pytest.raises(ScheduleError, match=words) as caught:
        read_scheduler({"_class_name": "DDIMScheduler", "beta_schedule": "linear", **values})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"use_karras_sigmas": True, "use_beta_sigmas": False, "timestep_spacing": "trailing", "steps_offset": 1},
        {"clip_sample": True, "thresholding": True, "variance_type": "learned_range", "set_alpha_to_one": False},
        {"use_flow_sigmas": False, "flow_shift": 3.0, "timestep_type": "discrete", "predict_epsilon": True},
        {"shift": None, "_diffusers_version": "0.6.0", "_note": 3},
        {"set_alpha_to_zero": False, "num_inference_steps": 50, "tensor_format": "pt", "clip_sample_range": 1.0},
        {"timestep_values": None, "skip_prk_steps": True, "solver_p": None, "use_lu_lambdas": False},
        {"clip_predicted_sample": True, "clip_alpha_at_one": True, "s_churn": 0.0, "denoise_final": True},
    ],
)
def test_what_is_of_sampling_changes_nothing(values):
    plain = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "linear"}
    assert read_scheduler({**plain, **values}) == read_scheduler(plain)


@pytest.mark.parametrize("said", [{}, {"prediction_type": None}, {"prediction_type": "sample"}])
def test_the_old_word_for_a_prediction_of_the_sample(said):
    values = {"_class_name": "DDPMScheduler", "predict_epsilon": False, "beta_schedule": "linear", **said}
    assert read_scheduler(values) == read_scheduler({"_class_name": "DDPMScheduler", "prediction_type": "sample"})
    assert ODEScheduler.from_config(values).config["prediction_type"] == "sample"


def test_a_key_that_is_not_known_hurts_no_table():
    scheduler = DDIMScheduler()
    config = {"_class_name": "DDIMScheduler", **scheduler.config, "somebodys_key": 3}
    assert "somebodys_key=3 is not known here, and might" in one_line(ScheduleError, read_scheduler, config)
    with pytest.warns(CheckpointWarning, match="^DDIMScheduler: somebodys_key=3 is not known here$"):
        found = read_scheduler(config, table=scheduler.alphas_cumprod)
    assert found == read_scheduler(scheduler.config)
    table = DDIMScheduler(beta_end=0.03).alphas_cumprod
    assert "alphas_cumprod[" in one_line(ScheduleError, read_scheduler, config, table=table)


def test_a_class_of_ones_own_is_read_where_it_says_everything():
    values = {"beta_schedule": "linear", "beta_start": 1e-3, "beta_end": 0.01, "num_train_timesteps": 10}
    mine = {"_class_name": "Mine", "prediction_type": "sample", **values}
    schedule, predicts = read_scheduler(mine)
    assert_like(schedule, EulerDiscreteScheduler(**values))
    assert predicts == "data"
