"""Pipelines of diffusers as models: the images that the pipelines make with `DDIMScheduler`, from the same noise."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LDMPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    UNet1DModel,
    UNet3DConditionModel,
    VQModel,
)
from torch import Tensor

from ddim_ode.checkpoints.scheduler_config import ScheduleError
from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.integrations.pipelines import PipelineError, PipelineModel, from_pipeline
from ddim_ode.inversion import decode, encode
from ddim_ode.latents import LatentError
from ddim_ode.models.autoencoder import Autoencoder
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import (
    NET,
    SHAPE,
    STABLE,
    STEPS,
    TextPipe,
    along_their_timesteps,
    ddim,
    network,
    random_module,
    stable,
    text_unet,
    tiny_vae,
)
from tests.helpers.tensors import normal


def noise_of(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_an_unconditional_pipeline(prediction):
    scheduler = ddim(prediction_type=prediction)
    pipe = DDIMPipeline(NET, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    expected = pipe(batch_size=2, generator=generator, num_inference_steps=STEPS, output_type="pt").images
    model = from_pipeline(pipe)
    assert (model.shape, model.num_classes, model.dtype) == (SHAPE, 0, torch.float32)
    assert model.net.unet is NET
    x = along_their_timesteps(model, scheduler, noise_of(0, 2, *SHAPE))
    torch.testing.assert_close((x / 2 + 0.5).clamp(0, 1), expected, rtol=0, atol=1e-4)


def test_learned_variances_are_left_out():
    model = from_pipeline(DDPMPipeline(network(out_channels=2), DDPMScheduler(variance_type="learned_range")))
    assert sample(model, nfe=2).x.shape == (1, *SHAPE)


def test_an_unconditional_pipeline_of_latents():
    vq = random_module(
        VQModel, in_channels=1, out_channels=1, block_out_channels=(8,), latent_channels=1, norm_num_groups=4
    )
    scheduler = ddim(**STABLE)
    pipe = LDMPipeline(vq, NET, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    expected = pipe(batch_size=2, generator=generator, num_inference_steps=STEPS, output_type="np").images
    z = along_their_timesteps(from_pipeline(pipe), scheduler, noise_of(0, 2, *SHAPE))
    image = (Autoencoder.from_diffusers(pipe.vqvae).to_image(z) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(image.permute(0, 2, 3, 1), torch.from_numpy(expected), rtol=0, atol=1e-4)


# --- prompts


PIPE = TextPipe(text_unet())


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("negative", ["", "blurry"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_prompts_are_classes(prediction, negative, scale):
    pipe = TextPipe(PIPE.unet, prediction_type=prediction)
    model = from_pipeline(pipe, ["a cat", "a dog"], negative)
    assert (model.shape, model.num_classes) == ((2, 8, 8), 2)
    z = normal(2, 2, 8, 8, seed=0, dtype=torch.float32)
    found = along_their_timesteps(model, pipe.scheduler, z, labels=[1, 0], guidance=scale)
    for i, prompt in enumerate(["a dog", "a cat"]):
        expected = pipe(prompt, negative, scale, z[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-4, atol=1e-4)
        assert (found[1 - i] - expected).abs().max() > 1e-3


def test_no_label_is_the_negative_prompt():
    model = from_pipeline(PIPE, "a cat", "blurry")
    z = normal(1, 2, 8, 8, seed=0, dtype=torch.float32)
    found = along_their_timesteps(model, PIPE.scheduler, z)
    torch.testing.assert_close(found, PIPE("blurry", "", 1.0, z), rtol=1e-4, atol=1e-4)


def test_an_encoded_image_belongs_to_its_prompts():
    cat, dog = from_pipeline(PIPE, "a cat"), from_pipeline(PIPE, "a dog")
    z = Autoencoder.from_diffusers(PIPE.vae).to_latent(normal(2, 1, 16, 16, seed=0, dtype=torch.float32))
    latent = encode(cat, z, nfe=4, labels=0, guidance=2.0)
    assert torch.equal(decode(cat, latent).x, z)
    assert "decode with that model" in one_line(LatentError, decode, dog, latent)


@pytest.fixture(scope="module")
def stable_diffusion() -> Any:
    transformers = pytest.importorskip("transformers")

    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefgortu")]
    tokenizer = transformers.CLIPTokenizer(vocab={w: n for n, w in enumerate(words)}, merges=[], model_max_length=12)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"bos_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(4)
        encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=len(words), **sizes)).eval()
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(tiny_vae(), encoder, tokenizer, text_unet(), ddim(**STABLE), **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_stable_diffusion(stable_diffusion):
    pipe, z = stable_diffusion, normal(1, 2, 8, 8, seed=0, dtype=torch.float32)
    asked = {"negative_prompt": "fog", "guidance_scale": 5.0, "latents": z, "output_type": "pt"}
    expected = pipe("a cat", num_inference_steps=STEPS, **asked).images
    model = from_pipeline(pipe, "a cat", "fog")
    found = along_their_timesteps(model, pipe.scheduler, z, labels=0, guidance=5.0)
    image = (Autoencoder.from_diffusers(pipe.vae).to_image(found) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-4)
    assert (pipe("a dog", num_inference_steps=STEPS, **asked).images - expected).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["dpmpp_2m", "heun"])
def test_stable_diffusion_with_our_scheduler(stable_diffusion, method, monkeypatch):
    pipe, z = stable_diffusion, normal(1, 2, 8, 8, seed=0, dtype=torch.float32)
    monkeypatch.setattr(pipe, "scheduler", ODEScheduler.from_config(pipe.scheduler.config, method=method))
    found = pipe("a cat", guidance_scale=5.0, latents=z, num_inference_steps=9, output_type="latent").images
    model = from_pipeline(pipe, "a cat")
    expected = sample(model, method, 18, noise=z, labels=0, guidance=5.0).x  # guidance costs two a prediction
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --- errors


def having(unet: Any, **config: Any) -> SimpleNamespace:
    return SimpleNamespace(unet=unet, scheduler=ddim(**config))


@pytest.mark.parametrize(
    ("pipe", "arguments", "words"),
    [
        (SimpleNamespace(transformer=NET, scheduler=ddim()), (), "no unet and scheduler; use one such as"),
        (DDPMPipeline(NET, DDPMScheduler()), ("a cat",), "DDPMPipeline knows no prompts"),
        (PIPE, (), "TextPipe needs a prompt; give"),
        (PIPE, ([],), "needs a prompt"),
        (having(text_unet(in_channels=5)), ("a cat",), "takes 5 channels and returns 2"),
        (having(network(num_class_embeds=3)), (), "num_class_embeds=3, which is not known"),
        (having(text_unet(time_cond_proj_dim=4)), ("a cat",), "time_cond_proj_dim=4"),
    ],
)
def test_what_cannot_be_is_an_error_of_one_line(pipe, arguments, words):
    assert re.search(words, one_line(PipelineError, from_pipeline, pipe, *arguments))


# --- parts that might change the answers


def with_part(name: str, part: Any) -> Any:
    pipe = SimpleNamespace(unet=NET, scheduler=ddim())
    setattr(pipe, name, part)
    return pipe


def video() -> Any:
    blocks = {"down_block_types": ("DownBlock3D",), "up_block_types": ("UpBlock3D",), "block_out_channels": (8,)}
    return random_module(UNet3DConditionModel, sample_size=8, norm_num_groups=4, attention_head_dim=4, **blocks)


def sound() -> Any:
    blocks = {"down_block_types": ("DownBlock1DNoSkip",), "up_block_types": ("UpBlock1DNoSkip",)}
    return random_module(UNet1DModel, sample_size=16, extra_in_channels=0, block_out_channels=(32,), **blocks)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: with_part("adapter", NET), "SimpleNamespace has adapter, a Net, which is not known here"),
        (lambda: with_part("prior", NET), "has prior"),
        (lambda: with_part("components", {"image_encoder": "an encoder"}), "has image_encoder"),
        (lambda: with_part("components", {"controlnet": [NET]}), "has controlnet, a list of 1"),
        (lambda: having(video()), "is a UNet3DConditionModel, which is not known here"),
        (lambda: having(sound()), "is a UNet1DModel, which is not known here"),
        (lambda: having(torch.nn.Linear(1, 1)), "is a Linear, which is not known here"),
        (lambda: having(network(sample_size=None)), "has sample_size=None; give it the height"),
        (lambda: SimpleNamespace(unet=NET, scheduler=3), "scheduler of SimpleNamespace is the int 3 without a config"),
        (lambda: SimpleNamespace(unet=None, transformer=NET, scheduler=ddim()), "or give its transformer to Denoiser"),
    ],
)
def test_parts_that_might_change_the_answers_are_refused_by_name(make, words):
    assert re.search(words, one_line(PipelineError, from_pipeline, make()))


def test_an_ip_adapter_and_perturbed_attention_are_left_to_the_pipeline():
    prompt = torch.ones(1, 5, 8)
    adapted = text_unet()
    adapted.encoder_hid_proj = torch.nn.Identity()
    for pipe in (stable(adapted), stable(kind=StableDiffusionPAGPipeline)):
        assert type(from_pipeline(pipe, prompt, guidance_scale=1.0)) is PipelineModel
    plain = from_pipeline(stable(text_unet()), prompt)
    assert (type(plain), plain.num_classes) == (Denoiser, 1)


@pytest.mark.parametrize(
    "pipe",
    ["google/ddpm-cat-256", None, DDPMPipeline, 3, [NET], {"unet": NET}, torch.zeros(2)],
    ids=lambda pipe: type(pipe).__name__,
)
def test_what_is_no_pipeline_is_named(pipe):
    assert re.search("^pipe is .*; give a pipeline of diffusers", one_line(ArgumentError, from_pipeline, pipe))


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler has no beta_schedule"),
        (EDMEulerScheduler(), "EDMEulerScheduler has no beta_schedule"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"), "use_flow_sigmas=True"),
        (
            EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
            "timestep_type='continuous'",
        ),
        (DDIMScheduler.from_config(FlowMatchEulerDiscreteScheduler(shift=3.0).config), "shift=3.0 is another model"),
    ],
)
def test_a_scheduler_of_another_kind_of_model_is_refused_by_name(scheduler, words):
    assert words in one_line(ScheduleError, from_pipeline, SimpleNamespace(unet=NET, scheduler=scheduler))


@pytest.mark.parametrize(
    "scheduler",
    [
        CogVideoXDDIMScheduler(snr_shift_scale=2.0),
        DDPMScheduler(beta_schedule="sigmoid"),
        EulerDiscreteScheduler(beta_end=0.012),
        ODEScheduler(snr_shift_scale=2.0),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_the_path_is_the_schedulers_own_table(scheduler):
    path = from_pipeline(SimpleNamespace(unet=NET, scheduler=scheduler)).path
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        ratio = DDIMScheduler().alphas_cumprod.double()
        table = ratio / (ratio + 2 * (1 - ratio))
    torch.testing.assert_close(torch.tensor(path.alphas_cumprod), table.double(), rtol=1e-3, atol=1e-7)
