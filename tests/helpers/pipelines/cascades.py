"""Stages of cascades: priors, decoders, superresolution."""

from typing import Any

import diffusers
import torch

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.tiny import entry

SIMPLE = {
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "encoder_hid_dim": 32,
    "resnet_time_scale_shift": "scale_shift",
}
LINEAR = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}
EMBEDS = {"image_embeds": parts.normal(1, 32), "negative_image_embeds": parts.normal(1, 32, seed=1)}


# --- Kandinsky


def movq() -> Any:
    return parts.network(
        diffusers.VQModel,
        110,
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def kandinsky_unet() -> Any:
    extra = {"addition_embed_type": "image", "encoder_hid_dim_type": "image_proj", "attention_head_dim": 4}
    net = parts.network(diffusers.UNet2DConditionModel, 111, in_channels=4, out_channels=8, **SIMPLE, **extra)
    return parts.echoing(net)


@entry()
def kandinsky22() -> tuple[Any, dict[str, Any]]:
    """Its network tells a variance, too, which the scheduler is given."""
    scheduler = diffusers.DDPMScheduler(**LINEAR, variance_type="learned_range", clip_sample=False)
    pipe = diffusers.KandinskyV22Pipeline(unet=kandinsky_unet(), scheduler=scheduler, movq=movq())
    return pipe, {**EMBEDS, "height": 64, "width": 64, "guidance_scale": 2.0, "output_type": "latent"}


@entry()
def kandinsky22_img2img() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipe = diffusers.KandinskyV22Img2ImgPipeline(unet=kandinsky_unet(), scheduler=scheduler, movq=movq())
    size = {"height": 32, "width": 32, "guidance_scale": 2.0, "output_type": "latent"}
    return pipe, {**EMBEDS, **size, "image": parts.image(32), "strength": 0.75}


@entry()
def kandinsky22_prior() -> tuple[Any, dict[str, Any]]:
    """An embedding of an image from a prompt: the network predicts the sample itself."""
    import transformers

    net = parts.network(
        diffusers.PriorTransformer,
        112,
        num_attention_heads=2,
        attention_head_dim=12,
        embedding_dim=32,
        num_layers=1,
        num_embeddings=16,
    )
    size = {"hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**size, image_size=32, patch_size=16, intermediate_size=8)
    pipe = diffusers.KandinskyV22PriorPipeline(
        prior=parts.echoing(net, 0.7, 0.5),
        image_encoder=parts.network(transformers.CLIPVisionModelWithProjection, 113, config=config),
        text_encoder=parts.clip(32),
        tokenizer=parts.clip_tokenizer(),
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=5.0
        ),
        image_processor=None,
    )
    return pipe, {"prompt": "a cat", "guidance_scale": 2.0, "output_type": "pt"}


@entry()
def kandinsky3() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.Kandinsky3UNet,
        114,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=32,
    )
    pipe = diffusers.Kandinsky3Pipeline(
        tokenizer=parts.t5_tokenizer(128),
        text_encoder=parts.t5(),
        unet=parts.echoing(net),
        scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=True, thresholding=False),
        movq=movq(),
    )
    call = {"prompt": "a cat", "guidance_scale": 2.0, "height": 64, "width": 64, "output_type": "latent"}
    return pipe, call


# --- IF


def if_unet(channels: int, **changes: Any) -> Any:
    net = parts.network(
        diffusers.UNet2DConditionModel,
        115,
        **SIMPLE,
        sample_size=8,
        in_channels=channels,
        out_channels=6,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        act_fn="gelu",
        **changes,
    )
    return parts.echoing(net)


def if_pieces(net: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker"))
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
        variance_type="learned_range",
    )
    return {**nothing, "unet": net, "scheduler": scheduler, "requires_safety_checker": False}


def if_call() -> dict[str, Any]:
    embeds = {"prompt_embeds": parts.normal(1, 8, 32), "negative_prompt_embeds": parts.normal(1, 8, 32, seed=1)}
    return {**embeds, "guidance_scale": 2.0, "output_type": "pt"}


@entry()
def if_first() -> tuple[Any, dict[str, Any]]:
    return diffusers.IFPipeline(**if_pieces(if_unet(3))), if_call()


@entry()
def if_second() -> tuple[Any, dict[str, Any]]:
    net = if_unet(6, class_embed_type="timestep", time_embedding_act_fn="gelu")
    noising = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipe = diffusers.IFSuperResolutionPipeline(**if_pieces(net), image_noising_scheduler=noising)
    return pipe, {**if_call(), "image": parts.image(8), "height": 16, "width": 16}


# --- Würstchen and Stable Cascade


def cascade_unet(**changes: Any) -> Any:
    attended = ["SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"]
    config = {
        "patch_size": 1,
        "in_channels": 4,
        "out_channels": 4,
        "conditioning_dim": 32,
        "block_out_channels": [16, 32],
        "num_attention_heads": [-1, 2],
        "down_num_layers_per_block": [1, 1],
        "up_num_layers_per_block": [1, 1],
        "down_blocks_repeat_mappers": [1, 1],
        "up_blocks_repeat_mappers": [1, 1],
        "block_types_per_layer": [attended[:2], attended],
        "switch_level": None,
        "clip_text_pooled_in_channels": 32,
        "dropout": [0.1, 0.1],
    }
    from diffusers.models.unets import StableCascadeUNet

    return parts.network(StableCascadeUNet, 116, **{**config, **changes})


@entry(fits=False)
def stable_cascade_decoder() -> tuple[Any, dict[str, Any]]:
    """Würstchen's process is given by ratios of time, which its scheduler is called with."""
    pipe = diffusers.StableCascadeDecoderPipeline(
        decoder=parts.echoing(cascade_unet(), 1.0, 0.05),
        tokenizer=parts.clip_tokenizer(),
        text_encoder=parts.clip(32),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        vqgan=None,
        latent_dim_scale=4.0,
    )
    call = {"image_embeddings": torch.ones(1, 4, 4, 4), "prompt": "a cat", "guidance_scale": 2.0}
    return pipe, {**call, "output_type": "latent"}


@entry(fits=False)
def stable_cascade_prior() -> tuple[Any, dict[str, Any]]:
    net = cascade_unet(clip_text_in_channels=32, clip_image_in_channels=32, switch_level=[False])
    pipe = diffusers.StableCascadePriorPipeline(
        prior=parts.echoing(net, 1.0, 0.05),
        tokenizer=parts.clip_tokenizer(),
        text_encoder=parts.clip(32),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        resolution_multiple=42.67,
    )
    return pipe, {"prompt": "a cat", "guidance_scale": 2.0, "height": 300, "width": 300, "output_type": "pt"}
