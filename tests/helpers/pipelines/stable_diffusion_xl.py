"""Stable Diffusion XL and what is built on it."""

from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.stable_diffusion import BETAS, CALL, SIZE
from tests.helpers.pipelines.tiny import entry

EXTRA = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}


def euler(**changes: Any) -> Any:
    return diffusers.EulerDiscreteScheduler(**{**BETAS, "steps_offset": 1, "timestep_spacing": "leading", **changes})


def pieces(scheduler: Any = None, echo: bool = True, times: int = 6, **changes: Any) -> dict[str, Any]:
    shape = {"cross_attention_dim": 64, "projection_class_embeddings_input_dim": 32 + 8 * times}
    net = parts.unet(**{**EXTRA, **shape, **changes})
    return {
        "vae": parts.vae(),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "text_encoder_2": parts.clip(32, seed=16),
        "tokenizer_2": parts.clip_tokenizer(),
        "unet": parts.echoing(net) if echo else net,
        "scheduler": euler() if scheduler is None else scheduler,
    }


@entry()
def sdxl() -> tuple[Any, dict[str, Any]]:
    return diffusers.StableDiffusionXLPipeline(**pieces()), {**CALL, **SIZE}


@entry()
def sdxl_turbo() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    call = {"prompt": "a cat", "guidance_scale": 0.0, "output_type": "latent"}
    return diffusers.StableDiffusionXLPipeline(**pieces(scheduler)), {**call, **SIZE}


@entry()
def sdxl_base() -> tuple[Any, dict[str, Any]]:
    """The first of two: it ends early and leaves noise to the refiner."""
    return diffusers.StableDiffusionXLPipeline(**pieces()), {**CALL, **SIZE, "denoising_end": 0.8}


@entry(noisy=False)
def sdxl_refiner() -> tuple[Any, dict[str, Any]]:
    nothing = {"text_encoder": None, "tokenizer": None}
    shape = {"times": 5, "cross_attention_dim": 32}
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline(**{**pieces(**shape), **nothing}, requires_aesthetics_score=True)
    return pipe, {**CALL, "image": parts.normal(1, 4, 8, 8), "denoising_start": 0.3}


@entry()
def sdxl_img2img() -> tuple[Any, dict[str, Any]]:
    return diffusers.StableDiffusionXLImg2ImgPipeline(**pieces()), {**CALL, "image": parts.image(), "strength": 0.75}


@entry()
def sdxl_inpaint() -> tuple[Any, dict[str, Any]]:
    call = {"image": parts.image(), "mask_image": parts.hole(), "strength": 0.9}
    return diffusers.StableDiffusionXLInpaintPipeline(**pieces(in_channels=9)), {**CALL, **SIZE, **call}


@entry()
def sdxl_controlnet() -> tuple[Any, dict[str, Any]]:
    size = {"cross_attention_dim": 64, "projection_class_embeddings_input_dim": 80}
    control = parts.controlnet(**EXTRA, **size)
    pipe = diffusers.StableDiffusionXLControlNetPipeline(**pieces(), controlnet=control)
    return pipe, {**CALL, **SIZE, "image": parts.image()}


@entry()
def sdxl_adapter() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionXLAdapterPipeline(**pieces(**parts.ADAPTED), adapter=parts.adapter())
    return pipe, {**CALL, **SIZE, "image": parts.image()}


@entry()
def sdxl_pix2pix() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionXLInstructPix2PixPipeline(**pieces(in_channels=8))
    return pipe, {**CALL, **SIZE, "image": parts.image(), "image_guidance_scale": 1.5}


@entry()
def sdxl_pag() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionXLPAGPipeline(**pieces(), pag_applied_layers=["mid"])
    return pipe, {**CALL, **SIZE, "pag_scale": 2.0}


@entry()
def playground() -> tuple[Any, dict[str, Any]]:
    """Karras et al.'s preconditioning."""
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_data=0.5, sigma_min=0.002, sigma_max=80.0)
    return diffusers.StableDiffusionXLPipeline(**pieces(scheduler, echo=False)), {**CALL, **SIZE}


@entry()
def cosxl() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.EDMEulerScheduler(
        sigma_data=1.0, sigma_min=0.002, sigma_max=120.0, prediction_type="v_prediction", sigma_schedule="exponential"
    )
    return diffusers.StableDiffusionXLPipeline(**pieces(scheduler, echo=False)), {**CALL, **SIZE}
