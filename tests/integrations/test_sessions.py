"""A pipeline's own call as a model."""

import re
import threading
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import ddim_ode
from ddim_ode.integrations import sessions
from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.integrations.pipelines import PipelineError, PipelineModel, from_pipeline
from ddim_ode.models.identity import fingerprint
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import ZOO
from tests.helpers.pipelines.tiny import WARNINGS, Tiny
from tests.helpers.tensors import f64, normal

pytestmark = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in WARNINGS]


def model_of(tiny: Tiny, **changes: Any) -> PipelineModel:
    call = {**tiny.call, **changes}
    model = from_pipeline(tiny.pipe, call.pop("prompt", None), call.pop("negative_prompt", None), **call)
    assert isinstance(model, PipelineModel)
    return model


def noise(model: PipelineModel, seed: int = 0) -> Tensor:
    return normal(1, *model.shape, seed=seed, dtype=torch.float32)


def test_any_sample_at_any_time_and_the_same_again():
    model = model_of(ZOO["sd3"]())
    x, y = noise(model), noise(model, 1)
    first = model(3.0 * x, 3.0).data
    other = model(0.1 * y, 0.1).data
    assert torch.equal(model(3.0 * x, 3.0).data, first)
    both = model(torch.cat([3.0 * x, 0.1 * y]), f64([3.0, 0.1])).data
    assert torch.equal(both, torch.cat([first, other]))


def test_a_session_begins_anew_when_its_timesteps_are_used_up(monkeypatch):
    tiny = ZOO["flux_dev"]()
    expected = model_of(tiny)(noise(model_of(tiny)), 1.0).data
    monkeypatch.setattr(sessions, "STEPS", 8)
    model = model_of(tiny)
    for _ in range(30):
        assert torch.equal(model(noise(model), 1.0).data, expected)


def test_in_another_thread_it_begins_anew():
    model, found = model_of(ZOO["wan21"]()), []
    expected = model(noise(model), 1.0).data
    worker = threading.Thread(target=lambda: found.append(model(noise(model), 1.0).data))
    worker.start()
    worker.join()
    assert torch.equal(found[0], expected)
    assert torch.equal(model(noise(model), 1.0).data, expected)


def test_calls_of_the_pipeline_in_between_change_nothing():
    tiny = ZOO["sd15"]()
    model = model_of(tiny)
    expected = model(noise(model), 1.0).data
    tiny.pipe(**{**tiny.call, "guidance_scale": 1.0, "num_inference_steps": 2})
    assert torch.equal(model(noise(model), 1.0).data, expected)
    weaker = model_of(tiny, guidance_scale=1.0)
    assert (weaker(noise(model), 1.0).data - expected).abs().max() > 1e-3
    assert torch.equal(model(noise(model), 1.0).data, expected)
    assert (weaker.evaluations(1.0), model.evaluations(1.0)) == (1, 2)


def test_several_prompts_are_labels():
    tiny = ZOO["sd15"]()
    model = model_of(tiny, prompt=["a cat", "a dog"])
    assert (model.num_classes, model.null_class) == (2, False)
    alone = [model_of(tiny, prompt=prompt)(noise(model), 1.0).data for prompt in ("a cat", "a dog")]
    both = model(noise(model).expand(2, -1, -1, -1), 1.0, torch.tensor([1, 0])).data
    assert torch.equal(both, torch.cat(alone[::-1]))
    study = ddim_ode.sample(model, "ddim", 4, seeds=[0, 1], labels=[0, 1])
    assert study.nfe.tolist() == [4, 4]  # two predictions of two passes each


def test_images_are_what_the_pipeline_makes_of_them():
    tiny = ZOO["sd15"]()
    model = model_of(tiny)
    x = noise(model)
    found = model.images(torch.cat([x, 2 * x]), output_type="pt")
    expected = [tiny.pipe.vae.decode(one / tiny.pipe.vae.config.scaling_factor).sample for one in (x, 2 * x)]
    for image, decoded in zip(found, expected, strict=True):
        torch.testing.assert_close(image, (decoded[0] / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)
    assert "give samples (B, 4, 8, 8)" in one_line(PipelineError, model.images, x[0])


def test_all_that_is_made_at_once_is_one_sample():
    tiny = ZOO["sd15"]()
    model = model_of(tiny, num_images_per_prompt=3)
    assert model.shape == (3, 4, 8, 8)
    assert model.evaluations(1.0) == 6
    x = noise(model)
    alone = model_of(tiny)
    expected = torch.cat([alone(one[None], 1.0).data for one in x[0]])
    torch.testing.assert_close(model(x, 1.0).data[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("sd_inpaint4", {}, "changes them between steps, as inpainting by blending does"),
        ("sd3_skip_layers", {}, "answers otherwise in step [23]"),
        ("sd_controlnet", {"control_guidance_end": 0.5}, "answers otherwise in step"),
        ("sd_gligen", {}, "answers otherwise in some steps of its own"),
        ("skyreels_forcing", {}, "timesteps of its own"),
        ("ltx_condition", {}, "per_token_timesteps, which is not known here"),
        ("sd15", {"num_inference_steps": 30}, "num_inference_steps is what sample"),
        ("sd15", {"latents": torch.zeros(1, 4, 8, 8)}, "latents is what sample"),
        ("sd15", {"prompt": []}, "given no prompt"),
        ("sd15", {"guidance_scal": 3.0}, "guidance_scal.*did you mean 'guidance_scale'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(name, changes, words):
    tiny = ZOO[name]()
    assert re.search(words, one_line(PipelineError, model_of, tiny, **changes))


def test_gradients_are_refused_and_not_half_right():
    model = model_of(ZOO["sd15"]())
    start = noise(model).requires_grad_()
    for call in (
        lambda: ddim_ode.sample(model, "ddim", 3, noise=start, differentiable="direct"),
        lambda: ddim_ode.log_likelihood(model, noise(model)),
    ):
        assert "pipelines record no gradients" in one_line(PipelineError, call)


@pytest.mark.parametrize("original", [DDIMScheduler(clip_sample=False), FlowMatchEulerDiscreteScheduler(shift=3.0)])
def test_a_scheduler_of_ours_is_no_obstacle(original):
    pipe = ZOO["ddim_pixels"]().pipe
    found = []
    for scheduler in (original, ODEScheduler.from_scheduler(original, "adaptive", tol=0.1)):
        pipe.scheduler = scheduler
        for model in (from_pipeline(pipe), from_pipeline(pipe, output_type="pt")):
            found.append(model(2 * normal(1, 3, 8, 8, seed=0, dtype=torch.float32), 2.0).data)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-4)


def test_errors_of_the_pipeline_are_its_own():
    with pytest.raises(ValueError, match="Cannot forward both"):
        model_of(ZOO["sd15"](), prompt_embeds=torch.zeros(1, 16, 32))


def test_the_digest_is_that_of_the_networks_and_what_they_are_asked():
    tiny, other = ZOO["sd15"](), ZOO["sd15"]()
    with torch.no_grad():
        other.pipe.unet.conv_in.weight[0, 0, 0, 0] += 1
    digests = {fingerprint(model_of(one)) for one in (tiny, other)}
    assert len(digests) == 2
    assert fingerprint(model_of(tiny)) in digests
    assert fingerprint(model_of(tiny, guidance_scale=1.0)) not in digests
