"""Stable Diffusion 1 and 2 and what is built on them."""

from typing import Any

import diffusers
import transformers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.tiny import entry

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
CALL = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 3.0, "output_type": "latent"}
SIZE = {"height": 16, "width": 16}


def pndm() -> Any:
    return diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1)


def ddim(**changes: Any) -> Any:
    return diffusers.DDIMScheduler(
        **{**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **changes}
    )


def v_ddim(**changes: Any) -> Any:
    return ddim(prediction_type="v_prediction", **changes)


def pieces(scheduler: Any = None, echo: bool = True, **changes: Any) -> dict[str, Any]:
    net = parts.unet(**changes)
    return {
        "vae": parts.vae(),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "unet": parts.echoing(net) if echo else net,
        "scheduler": pndm() if scheduler is None else scheduler,
    }


# --- text to image


@entry()
def sd15() -> tuple[Any, dict[str, Any]]:
    return diffusers.StableDiffusionPipeline(**pieces(), **SAFE), CALL


@entry()
def sd21_v() -> tuple[Any, dict[str, Any]]:
    scheduler = v_ddim()
    return diffusers.StableDiffusionPipeline(**pieces(scheduler, echo=False), **SAFE), CALL


@entry()
def sd_zero_snr() -> tuple[Any, dict[str, Any]]:
    scheduler = v_ddim(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    call = {**CALL, "guidance_rescale": 0.7}
    return diffusers.StableDiffusionPipeline(**pieces(scheduler, echo=False), **SAFE), call


@entry()
def sd_x0() -> tuple[Any, dict[str, Any]]:
    scheduler = ddim(prediction_type="sample")
    return diffusers.StableDiffusionPipeline(**pieces(scheduler, echo=False), **SAFE), CALL


@entry()
def sd_karras() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True, steps_offset=1)
    return diffusers.StableDiffusionPipeline(**pieces(scheduler), **SAFE), CALL


@entry()
def sd_euler_ancestral() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**BETAS, steps_offset=1)
    return diffusers.StableDiffusionPipeline(**pieces(scheduler), **SAFE), CALL


@entry()
def sd_pag() -> tuple[Any, dict[str, Any]]:
    kind = diffusers.StableDiffusionPAGPipeline
    return kind(**pieces(ddim()), **SAFE, pag_applied_layers=["mid"]), {**CALL, "pag_scale": 2.0}


@entry(fits=False)
def sd_lcm() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.LCMScheduler(**BETAS, clip_sample=False)
    call = {key: value for key, value in CALL.items() if key != "negative_prompt"}
    return diffusers.LatentConsistencyModelPipeline(**pieces(scheduler, time_cond_proj_dim=8), **SAFE), call


@entry()
def sd_gligen() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionGLIGENPipeline(**pieces(attention_type="gated"), **SAFE)
    return pipe, {**CALL, **SIZE, "gligen_phrases": ["a cat"], "gligen_boxes": [[0.1, 0.2, 0.7, 0.8]]}


# --- from pictures


@entry()
def sd_img2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pieces(), **SAFE)
    return pipe, {**CALL, "image": parts.image(), "strength": 0.75}


@entry()
def sd_inpaint4() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionInpaintPipeline(**pieces(), **SAFE)
    return pipe, {**CALL, **SIZE, "image": parts.picture(), "mask_image": parts.hole_picture()}


@entry()
def sd_inpaint9() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionInpaintPipeline(**pieces(in_channels=9), **SAFE)
    return pipe, {**CALL, **SIZE, "image": parts.picture(), "mask_image": parts.hole_picture()}


@entry()
def sd_controlnet() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionControlNetPipeline(**pieces(), controlnet=parts.controlnet(), **SAFE)
    return pipe, {**CALL, **SIZE, "image": parts.image()}


@entry()
def sd_adapter() -> tuple[Any, dict[str, Any]]:
    net = pieces(**parts.ADAPTED)
    pipe = diffusers.StableDiffusionAdapterPipeline(**net, adapter=parts.adapter(), **SAFE)
    return pipe, {**CALL, **SIZE, "image": parts.image()}


@entry()
def sd_pix2pix() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**BETAS, steps_offset=1)
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(**pieces(scheduler, in_channels=8), **SAFE)
    return pipe, {**CALL, "image": parts.image(), "image_guidance_scale": 1.5}


@entry()
def sd_depth2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.StableDiffusionDepth2ImgPipeline(
        **pieces(ddim(), in_channels=5), depth_estimator=depth_estimator(), feature_extractor=None
    )
    depth = parts.image(16, 1)[:, 0]
    return pipe, {**CALL, "image": parts.image(), "depth_map": depth, "strength": 0.75}


def depth_estimator() -> Any:
    """Not run where the depth is given, but the pipeline wants one."""
    backbone = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "image_size": 16,
        "patch_size": 8,
        "is_hybrid": False,
        "backbone_out_indices": [0, 0, 0, 0],
        "neck_hidden_sizes": [4, 4, 4, 4],
        "fusion_hidden_size": 4,
    }
    return parts.network(transformers.DPTForDepthEstimation, 11, config=transformers.DPTConfig(**backbone))


@entry()
def sd_upscale() -> tuple[Any, dict[str, Any]]:
    net = pieces(v_ddim(), echo=False, in_channels=7, num_class_embeds=1000)
    net["vae"] = parts.vae(scaling_factor=0.08333)
    low = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipe = diffusers.StableDiffusionUpscalePipeline(**net, low_res_scheduler=low, max_noise_level=350)
    return pipe, {**CALL, "image": parts.image(8)}


@entry()
def sd_latent_upscale() -> tuple[Any, dict[str, Any]]:
    """The network is called in the loop with what its scheduler's sigma says, not its timesteps."""
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample")
    shape = {"in_channels": 8, "out_channels": 5, "time_cond_proj_dim": 160, "cross_attention_dim": 32}
    net = pieces(
        scheduler, echo=False, **shape, conv_in_kernel=1, conv_out_kernel=1, resnet_time_scale_shift="scale_shift"
    )
    pipe = diffusers.StableDiffusionLatentUpscalePipeline(**net)
    return pipe, {**CALL, "image": parts.normal(1, 4, 4, 4)}


@entry()
def sd_unclip() -> tuple[Any, dict[str, Any]]:
    """Stable UnCLIP from an image's embedding."""
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    net = pieces(v_ddim(), echo=False, class_embed_type="projection", projection_class_embeddings_input_dim=64)
    size = {"hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**size, image_size=16, patch_size=8, intermediate_size=8)
    pipe = diffusers.StableUnCLIPImg2ImgPipeline(
        **net,
        feature_extractor=None,
        image_encoder=parts.network(transformers.CLIPVisionModelWithProjection, 12, config=config),
        image_normalizer=parts.network(StableUnCLIPImageNormalizer, 13, embedding_dim=32),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    )
    return pipe, {**CALL, **SIZE, "image_embeds": parts.normal(1, 32, seed=14), "noise_level": 10}
