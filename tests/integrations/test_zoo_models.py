"""Every pipeline of the zoo as a model: its own answers, there and back, every pass counted, and nothing dropped."""

from typing import Any

import pytest
import torch
from torch import Tensor

import ddim_ode
from ddim_ode.checkpoints.scheduler_config import ScheduleError
from ddim_ode.integrations.diffusers import ODEScheduler
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import ZOO, parts
from tests.helpers.pipelines.driving import Counted, Followed, as_model, run
from tests.helpers.pipelines.refusals import MODELS, SCHEDULERS
from tests.helpers.pipelines.tiny import WARNINGS, Tiny

pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in WARNINGS]

STEPS = 5
ROUNDING = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")  # they tell the network whole timesteps
#: random networks whose states near the image run away on the way up, which numbers of fixed point refuse
AWAY = ("kandinsky3", "if_first", "if_second", "ddpm_cosine")


def relative(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


@pytest.mark.parametrize("name", [name for name in ZOO if name not in {*SCHEDULERS, *MODELS}])
def test_a_pipeline_as_a_model_goes_its_own_way_and_back(name):
    tiny = ZOO[name]()
    model = as_model(tiny)
    scheduler = Followed.from_scheduler(tiny.pipe.scheduler, method="euler")
    run(tiny, scheduler, STEPS, **({"denoising_end": None} if "denoising_end" in tiny.call else {}))
    sigmas, states = scheduler.states(model.shape)
    begin = 1 if scheduler.frame.shares else 0  # a flow begins at sigma = 1e6, further up than a model is sampled from
    method = "euler_flow" if scheduler.frame.shares else "euler"
    with Counted(tiny) as counted:
        found = ddim_ode.sample(model, method, start=states[begin], grid=sigmas[begin:].tolist())
    assert relative(found.x, states[-1]) < (1e-3 if type(tiny.pipe.scheduler).__name__ in ROUNDING else 1e-5)
    assert found.nfe.tolist() == [counted.passes]
    if name in AWAY:
        return
    with Counted(tiny) as counted:
        latent = ddim_ode.encode(model, found.x, "exact_heun", nfe=12)
    assert latent.nfe.tolist() == [counted.passes]
    assert torch.equal(ddim_ode.decode(model, latent).x, found.x)


@pytest.mark.parametrize("name", MODELS)
def test_pipelines_that_cannot_be_asked_are_refused(name):
    """At the first question at the latest."""
    error, words = MODELS[name]
    assert words in one_line(error, lambda: ddim_ode.sample(as_model(ZOO[name]()), nfe=4))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_another_process_are_refused(name):
    assert SCHEDULERS[name] in one_line(ScheduleError, as_model, ZOO[name]())


@pytest.mark.parametrize("name", ["flux_dev", "sd15", "wan21"])
def test_methods_are_compared_on_a_pipeline(name):
    tiny = ZOO[name]()
    model = as_model(tiny)
    study = ddim_ode.compare(model, ["ddim", "heun"], [8], seeds=[0])
    for row in study.rows:
        with Counted(tiny) as counted:
            ddim_ode.sample(model, row.method, nfe=8, seeds=[0])
        assert row.measured_nfe.mean == counted.passes
        assert row.error.median > 0


# --- nothing dropped

#: arguments that matter to the network; each pipeline is asked with and without each change
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("sd15", {"prompt": "a dog"}),
    ("sd15", {"negative_prompt": "rain"}),
    ("sd15", {"guidance_scale": 4.0}),
    ("sd_controlnet", {"controlnet_conditioning_scale": 0.1}),
    ("sd_controlnet", {"image": parts.image(seed=9)}),
    ("sd_adapter", {"adapter_conditioning_scale": 0.1}),
    ("sd_pag", {"pag_scale": 1.0}),
    ("sd_inpaint9", {"mask_image": parts.hole_picture().rotate(90)}),
    ("sd_unclip", {"noise_level": 500}),
    ("sd_depth2img", {"depth_map": parts.image(seed=9)[:, 0]}),
    ("sd_pix2pix", {"image_guidance_scale": 3.0}),
    ("sdxl", {"original_size": (64, 64)}),
    ("sdxl_adapter", {"image": parts.image(seed=9)}),
    ("kandinsky22", {"image_embeds": parts.normal(1, 32, seed=2)}),
    ("sd3_controlnet", {"controlnet_conditioning_scale": 0.1}),
    ("flux_dev", {"guidance_scale": 7.0}),
    ("flux_guided", {"true_cfg_scale": 3.0}),
    ("flux_fill", {"mask_image": parts.hole().flip(-1)}),
    ("flux_control", {"control_image": parts.image(seed=9)}),
    ("stable_video", {"motion_bucket_id": 20}),
    ("wan21", {"guidance_scale": 4.0}),
    ("wan_vace", {"conditioning_scale": 0.1}),
    ("sd_gligen", {"gligen_boxes": [[0.5, 0.5, 0.9, 0.9]]}),
]


def answer(tiny: Tiny, sigma: float = 1.0, **changes: Any) -> Tensor:
    """The image that the pipeline predicts of some noise."""
    model = as_model(tiny, **changes)
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(1))
    return model(x * (1 + sigma**2) ** 0.5, sigma).data


ALWAYS = {"sd_gligen": {"gligen_scheduled_sampling_beta": 1.0}}


@pytest.mark.parametrize(
    ("name", "changes"), CHANGES, ids=[f"{name}-{next(iter(changes))}" for name, changes in CHANGES]
)
def test_every_argument_comes_along(name, changes):
    tiny, always = ZOO[name](), ALWAYS.get(name, {})
    assert relative(answer(tiny, **always, **changes), answer(tiny, **always)) > 1e-3


@pytest.mark.parametrize(
    ("name", "part", "sigma"),
    [
        ("sd_controlnet", "controlnet", 1.0),
        ("sd_adapter", "adapter", 1.0),
        ("sdxl", "text_encoder_2", 1.0),
        ("sd3_controlnet", "controlnet", 1.0),
        ("wan22", "transformer", 30.0),
        ("wan22", "transformer_2", 0.5),
    ],
)
def test_every_component_comes_along(name, part, sigma):
    tiny = ZOO[name]()
    whole = answer(tiny, sigma)
    with torch.no_grad():
        for parameter in getattr(tiny.pipe, part).parameters():
            parameter.mul_(0.5)
    assert relative(answer(tiny, sigma), whole) > 1e-3


def test_of_two_networks_each_has_its_times():
    tiny = ZOO["wan22"]()
    early = answer(tiny, 30.0)
    with torch.no_grad():
        for parameter in tiny.pipe.transformer_2.parameters():
            parameter.mul_(0.5)
    assert torch.equal(answer(tiny, 30.0), early)


@pytest.mark.parametrize("name", ["sd15", "sd_karras", "flux_dev", "wan21", "cosxl", "stable_video", "playground"])
def test_what_a_scheduler_says_and_nobody_knows_is_refused_by_name(name):
    tiny = ZOO[name]()
    tiny.pipe.scheduler.register_to_config(warp_of_time=3.0)
    for take in (ODEScheduler.from_scheduler, lambda scheduler: as_model(tiny)):
        assert "warp_of_time=3.0 is not known here" in one_line(ScheduleError, take, tiny.pipe.scheduler)
