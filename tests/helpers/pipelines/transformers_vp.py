"""Diffusion transformers that predict noise or velocity along a path of betas."""

from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.pixels import LINEAR
from tests.helpers.pipelines.stable_diffusion import SIZE
from tests.helpers.pipelines.tiny import entry

COMMON = {
    "patch_size": 2,
    "num_layers": 2,
    "in_channels": 4,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_elementwise_affine": False,
}
ZERO = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


@entry()
def dit() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.DiTTransformer2DModel,
        20,
        **COMMON,
        sample_size=8,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=8,
        norm_type="ada_norm_zero",
    )
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=False)
    pipe = diffusers.DiTPipeline(parts.echoing(net), parts.vae(), scheduler)
    return pipe, {"class_labels": [1], "guidance_scale": 3.0, "output_type": "pt"}


def pixart(kind: Any, scheduler: Any = None, **changes: Any) -> tuple[Any, dict[str, Any]]:
    config = {
        "sample_size": 8,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "caption_channels": 32,
        "cross_attention_dim": 32,
        "out_channels": 8,
        "norm_type": "ada_norm_single",
    }
    net = parts.network(diffusers.PixArtTransformer2DModel, 21, **COMMON, **config, **changes)
    pipe = kind(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.t5(),
        vae=parts.vae(),
        transformer=parts.echoing(net),
        scheduler=diffusers.DPMSolverMultistepScheduler(**LINEAR) if scheduler is None else scheduler,
    )
    prompt = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 3.0, "clean_caption": False}
    return pipe, {**prompt, **SIZE, "use_resolution_binning": False, "max_sequence_length": 16, "output_type": "latent"}


@entry()
def pixart_alpha() -> tuple[Any, dict[str, Any]]:
    return pixart(diffusers.PixArtAlphaPipeline)


@entry()
def pixart_sigma() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.DEISMultistepScheduler(**LINEAR)
    return pixart(diffusers.PixArtSigmaPipeline, scheduler, use_additional_conditions=False)


@entry()
def hunyuan_dit() -> tuple[Any, dict[str, Any]]:
    config = {
        "sample_size": 8,
        "num_layers": 2,
        "patch_size": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "in_channels": 4,
        "cross_attention_dim": 32,
        "cross_attention_dim_t5": 32,
        "pooled_projection_dim": 16,
        "hidden_size": 32,
        "activation_fn": "gelu-approximate",
        "text_len": 16,
        "text_len_t5": 16,
    }
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.03,
        prediction_type="v_prediction",
        steps_offset=1,
        clip_sample=False,
    )
    nothing = dict.fromkeys(
        ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "safety_checker", "feature_extractor")
    )
    pipe = diffusers.HunyuanDiTPipeline(
        vae=parts.vae(),
        transformer=parts.network(diffusers.HunyuanDiT2DModel, 22, **config),
        scheduler=scheduler,
        requires_safety_checker=False,
        **nothing,
    )
    embeds = {
        f"{sign}prompt_embeds{which}": parts.normal(1, 16, 32, seed=seed)
        for seed, (sign, which) in enumerate((s, w) for s in ("", "negative_") for w in ("", "_2"))
    }
    masks = {name.replace("embeds", "attention_mask"): parts.mask(1, 16) for name in embeds}
    more = {"guidance_scale": 3.0, "use_resolution_binning": False, "output_type": "latent"}
    return pipe, {**embeds, **masks, **more, **SIZE}


@entry()
def cogview3() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.CogView3PlusTransformer2DModel,
        23,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    )
    pipe = diffusers.CogView3PlusPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.t5(),
        vae=parts.vae(),
        transformer=net,
        scheduler=diffusers.CogVideoXDDIMScheduler(**ZERO, snr_shift_scale=4.0),
    )
    prompt = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 3.0}
    return pipe, {**prompt, **SIZE, "max_sequence_length": 16, "output_type": "latent"}
