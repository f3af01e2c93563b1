"""Pipelines of diffusers as models: the images that the pipelines make with `DDIMScheduler`, from the same noise."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, LDMPipeline, VQModel
from torch import Tensor

from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.integrations.pipelines import PipelineError, from_pipeline
from ddim_ode.inversion import decode, encode
from ddim_ode.latents import LatentError
from ddim_ode.models.autoencoder import Autoencoder
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import (
    NET,
    SHAPE,
    STABLE,
    STEPS,
    TextPipe,
    ddim,
    network,
    random_module,
    text_unet,
    tiny_vae,
)
from tests.helpers.tensors import normal


def along_their_timesteps(model: Denoiser, scheduler: DDIMScheduler, noise: Tensor, **options: Any) -> Tensor:
    scheduler.set_timesteps(STEPS)
    grid = [*model.path.sigma(scheduler.timesteps.double()).tolist(), 0.0]
    return sample(model, "ddim", grid=grid, noise=noise, **options).x


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
    from diffusers import StableDiffusionPipeline

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
