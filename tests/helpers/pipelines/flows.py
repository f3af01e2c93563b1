"""Stable Diffusion 3 and Flux: flows in latents of images."""

from functools import partial
from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.stable_diffusion import SIZE
from tests.helpers.pipelines.tiny import entry

flow = partial(entry, flow=True)
SD3 = {
    "sample_size": 8,
    "patch_size": 1,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "caption_projection_dim": 32,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 64,
}
SD3_CALL = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 2.0, "max_sequence_length": 16}
SD3_CALL = {**SD3_CALL, **SIZE, "output_type": "latent"}
DYNAMIC = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": [4, 4, 8],
}
FLUX_CALL = {"prompt": "a cat", "guidance_scale": 3.5, **SIZE, "max_sequence_length": 16, "output_type": "latent"}


def euler(**changes: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**changes)


# --- Stable Diffusion 3


def sd3_pieces(**changes: Any) -> dict[str, Any]:
    return {
        "transformer": parts.network(diffusers.SD3Transformer2DModel, 30, **{**SD3, **changes}),
        "scheduler": euler(shift=3.0),
        "vae": parts.flow_vae(),
        "text_encoder": parts.clip(32),
        "tokenizer": parts.clip_tokenizer(),
        "text_encoder_2": parts.clip(32, seed=16),
        "tokenizer_2": parts.clip_tokenizer(),
        "text_encoder_3": None,
        "tokenizer_3": None,
    }


@flow()
def sd3() -> tuple[Any, dict[str, Any]]:
    return diffusers.StableDiffusion3Pipeline(**sd3_pieces()), SD3_CALL


@flow()
def sd3_skip_layers() -> tuple[Any, dict[str, Any]]:
    """Guided also by the network without one of its layers: more calls in the middle of the run."""
    pipe = diffusers.StableDiffusion3Pipeline(**sd3_pieces(num_layers=2))
    return pipe, {**SD3_CALL, "skip_guidance_layers": [0], "skip_layer_guidance_stop": 0.6}


@flow()
def sd3_img2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusion3Img2ImgPipeline(**sd3_pieces())
    return pipe, {**SD3_CALL, "image": parts.image(), "strength": 0.75}


@flow()
def sd3_inpaint() -> tuple[Any, dict[str, Any]]:
    pieces = {**sd3_pieces(in_channels=16, out_channels=16), "vae": parts.flow_vae(16)}
    pipe = diffusers.StableDiffusion3InpaintPipeline(**pieces)
    return pipe, {**SD3_CALL, "image": parts.image(), "mask_image": parts.hole(), "strength": 0.9}


@flow(draws=True)
def sd3_controlnet() -> tuple[Any, dict[str, Any]]:
    control = parts.network(diffusers.SD3ControlNetModel, 31, **SD3)
    pipe = diffusers.StableDiffusion3ControlNetPipeline(**sd3_pieces(num_layers=2), controlnet=control)
    return pipe, {**SD3_CALL, "control_image": parts.image(), "controlnet_conditioning_scale": 0.5}


# --- Flux


def flux_pieces(scheduler: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "transformer": parts.network(diffusers.FluxTransformer2DModel, 32, **{**FLUX, **changes}),
        "scheduler": euler(**DYNAMIC, shift=3.0) if scheduler is None else scheduler,
        "vae": parts.flow_vae(),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "text_encoder_2": parts.t5(),
        "tokenizer_2": parts.t5_tokenizer(),
    }


@flow()
def flux_dev() -> tuple[Any, dict[str, Any]]:
    return diffusers.FluxPipeline(**flux_pieces(guidance_embeds=True)), FLUX_CALL


@flow()
def flux_schnell() -> tuple[Any, dict[str, Any]]:
    return diffusers.FluxPipeline(**flux_pieces(euler(shift=1.0))), {**FLUX_CALL, "guidance_scale": 0.0}


@flow()
def flux_guided() -> tuple[Any, dict[str, Any]]:
    """With a negative prompt of its own."""
    call = {**FLUX_CALL, "negative_prompt": "fog", "true_cfg_scale": 2.0}
    return diffusers.FluxPipeline(**flux_pieces()), call


@flow()
def flux_img2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.FluxImg2ImgPipeline(**flux_pieces(guidance_embeds=True))
    return pipe, {**FLUX_CALL, "image": parts.image(), "strength": 0.75}


@flow()
def flux_inpaint() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.FluxInpaintPipeline(**flux_pieces(guidance_embeds=True))
    return pipe, {**FLUX_CALL, "image": parts.image(), "mask_image": parts.hole(), "strength": 0.9}


@flow()
def flux_fill() -> tuple[Any, dict[str, Any]]:
    """The picture's latents and the mask's pixels are more channels of its input."""
    pieces = flux_pieces(guidance_embeds=True, in_channels=16 + 16 + 16, out_channels=16)
    pipe = diffusers.FluxFillPipeline(**pieces)
    return pipe, {**FLUX_CALL, "image": parts.image(), "mask_image": parts.hole()}


@flow()
def flux_kontext() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.FluxKontextPipeline(**flux_pieces(guidance_embeds=True))
    return pipe, {**FLUX_CALL, "image": parts.image(), "max_area": 256, "_auto_resize": False}


@flow()
def flux_control() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.FluxControlPipeline(**flux_pieces(guidance_embeds=True, in_channels=32, out_channels=16))
    return pipe, {**FLUX_CALL, "control_image": parts.image()}


@flow()
def flux_controlnet() -> tuple[Any, dict[str, Any]]:
    control = parts.network(diffusers.FluxControlNetModel, 33, **FLUX)
    pipe = diffusers.FluxControlNetPipeline(**flux_pieces(guidance_embeds=True), controlnet=control)
    return pipe, {**FLUX_CALL, "control_image": parts.image(), "controlnet_conditioning_scale": 0.5}


def flux2_vae() -> Any:
    return parts.network(
        diffusers.AutoencoderKLFlux2,
        34,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
    )


@flow()
def flux2() -> tuple[Any, dict[str, Any]]:
    """Its shift is computed from the number of steps, too."""
    config = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "timestep_guidance_channels": 256,
        "axes_dims_rope": (4, 4, 4, 4),
    }
    pipe = diffusers.Flux2Pipeline(
        scheduler=euler(use_dynamic_shifting=True, shift=3.0),
        vae=flux2_vae(),
        text_encoder=None,
        tokenizer=None,
        transformer=parts.network(diffusers.Flux2Transformer2DModel, 35, **config),
    )
    return pipe, {"prompt_embeds": parts.normal(1, 16, 32), "guidance_scale": 4.0, **SIZE, "output_type": "latent"}
