"""Prompts of a pipeline as strings and as embeddings: the images that the pipeline makes of them, or one line."""

import re

import pytest
import torch
from accelerate import cpu_offload
from diffusers import DDPMPipeline, DDPMScheduler

from ddim_ode.errors import DDIMError
from ddim_ode.integrations.pipelines import PipelineError, from_pipeline
from ddim_ode.sampling import sample
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line
from tests.helpers.denoising import NET, STEPS, TextPipe, along_their_timesteps, stable, text_unet
from tests.helpers.tensors import normal

PIPE = TextPipe(text_unet())
PROMPTS = normal(2, 5, 8, seed=3, dtype=torch.float32)
NEGATIVE = normal(1, 5, 8, seed=4, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embeddings_are_prompts(dtype):
    pipe = stable()
    pipe.set_progress_bar_config(disable=True)
    z = normal(2, 2, 8, 8, seed=0, dtype=torch.float32)
    expected = pipe(
        prompt_embeds=PROMPTS.flip(0),
        negative_prompt_embeds=NEGATIVE.repeat(2, 1, 1),
        guidance_scale=3.0,
        latents=z,
        num_inference_steps=STEPS,
        output_type="latent",
    ).images
    for negative in (NEGATIVE, NEGATIVE.repeat(2, 1, 1)):
        model = from_pipeline(pipe, PROMPTS.to(dtype), negative.to(dtype))
        found = along_their_timesteps(model, pipe.scheduler, z, labels=[1, 0], guidance=3.0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_a_negative_embedding_there_is_no_null_class():
    model = from_pipeline(stable(), PROMPTS)
    assert (model.num_classes, model.null_class, len(model.net.embeddings)) == (2, False, 2)
    x = normal(1, 2, 8, 8, seed=0, dtype=torch.float32)
    guided = from_pipeline(stable(), PROMPTS, NEGATIVE)
    assert torch.equal(sample(model, nfe=2, noise=x, labels=[1]).x, sample(guided, nfe=2, noise=x, labels=[1]).x)
    one_line(DDIMError, sample, model, nfe=2, noise=x, labels=[1], guidance=2.0)


def test_embeddings_beside_a_text_encoder():
    # The letters of a TextPipe are six tokens: an empty prompt fits embeddings of as many, and no others.
    six = PIPE.encode(["a cat", "a dog"])
    found, strings = from_pipeline(PIPE, six, "fog"), from_pipeline(PIPE, ["a cat", "a dog"], "fog")
    assert torch.equal(found.net.embeddings, strings.net.embeddings)
    assert torch.equal(from_pipeline(PIPE, six).net.embeddings, from_pipeline(PIPE, ["a cat", "a dog"]).net.embeddings)
    assert torch.equal(from_pipeline(PIPE, ["a cat"], six[1:]).net.embeddings, six)
    assert not from_pipeline(PIPE, PROMPTS).null_class
    text = one_line(PipelineError, from_pipeline, PIPE, PROMPTS, "fog")
    assert "negative_prompt has 6 tokens, and prompt has 5" in text


@pytest.mark.parametrize(
    ("prompt", "negative", "error", "words"),
    [
        (3, None, ArgumentError, "prompt is the int 3; give a string"),
        (b"cat", None, ArgumentError, "prompt is the bytes b'cat'"),
        ({"a": 1}, None, ArgumentError, "prompt is a dict of 1"),
        (["a", None], None, ArgumentError, r"prompt\[1\] is None; give strings"),
        ([PROMPTS], None, ArgumentError, r"prompt\[0\] is a Tensor"),
        ("a", 3, ArgumentError, "negative_prompt is the int 3"),
        ("a", ["b"], ArgumentError, "negative_prompt is a list of 1"),
        ((), None, PipelineError, "needs a prompt"),
        (PROMPTS[0], None, PipelineError, r"prompt is a Tensor of shape \(5, 8\); .* shape \(P, tokens, 8\)"),
        (PROMPTS[:0], None, PipelineError, r"prompt is a Tensor of shape \(0, 5, 8\)"),
        (PROMPTS[..., :7], None, PipelineError, r"prompt is a Tensor of shape \(2, 5, 7\)"),
        (PROMPTS.long(), None, PipelineError, "of int64; embeddings are finite floats"),
        (PROMPTS / 0, None, PipelineError, "embeddings are finite floats"),
        (PROMPTS, NEGATIVE[0], PipelineError, r"negative_prompt is a Tensor of shape \(5, 8\)"),
        (PROMPTS, PROMPTS, PipelineError, "negative_prompt has 2 different embeddings; give one"),
        (PROMPTS, NEGATIVE[:, :4], PipelineError, "negative_prompt has 4 tokens, and prompt has 5"),
        ("a cat", None, PipelineError, "StableDiffusionPipeline has no text_encoder for 'a cat'; give embeddings"),
        (PROMPTS, "fog", PipelineError, "StableDiffusionPipeline has no text_encoder for 'fog'"),
    ],
)
def test_prompts_that_cannot_be_are_named(prompt, negative, error, words):
    assert re.search(words, one_line(error, from_pipeline, stable(), prompt, negative))


def test_prompts_of_a_model_without_are_not_ignored():
    pipe = DDPMPipeline(NET, DDPMScheduler())
    assert "leave negative_prompt='fog' out" in one_line(PipelineError, from_pipeline, pipe, None, "fog")
    assert "leave prompt=a Tensor of shape (2, 5, 8) out" in one_line(PipelineError, from_pipeline, pipe, PROMPTS)
    assert "quantize is the str 'no'" in one_line(ArgumentError, from_pipeline, pipe, quantize="no")


def test_embeddings_are_made_where_the_network_computes():
    pipe = TextPipe(text_unet())
    expected = from_pipeline(pipe, "a cat").net.embeddings
    cpu_offload(pipe.unet, execution_device=torch.device("cpu"))  # which leaves the parameters on meta
    pipe._execution_device = torch.device("cpu")
    assert torch.equal(from_pipeline(pipe, "a cat").net.embeddings, expected)
