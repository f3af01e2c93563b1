"""Flows of images that came later."""

from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.flows import DYNAMIC, FLUX, euler, flow, flux2_vae
from tests.helpers.pipelines.flows_more import LATENT, chroma_pieces, prompts, z_image_pieces
from tests.helpers.pipelines.video_flows import kandinsky5_network, kandinsky5_prompts

FLUX_LIKE = {key: value for key, value in FLUX.items() if key != "pooled_projection_dim"}
NO_TEXT = {"text_encoder": None, "tokenizer": None}
NO_TEXTS = {**NO_TEXT, "text_encoder_2": None, "tokenizer_2": None}


@flow()
def hidream() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.HiDreamImageTransformer2DModel,
        120,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[32, 16],
        text_emb_dim=64,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
        force_inference_output=True,
    )
    nothing = {f"{kind}_{i}": None for kind in ("text_encoder", "tokenizer") for i in (3, 4)}
    pipe = diffusers.HiDreamImagePipeline(
        scheduler=euler(shift=3.0), vae=parts.flow_vae(), transformer=net, **NO_TEXTS, **nothing
    )
    pipe.default_sample_size = 8  # it resizes to its square
    call: dict[str, Any] = {}
    for seed, sign in enumerate(("", "negative_")):
        call[f"{sign}prompt_embeds_t5"] = parts.normal(1, 8, 32, seed=seed)
        call[f"{sign}prompt_embeds_llama3"] = parts.normal(2, 1, 8, 16, seed=2 + seed)
        call[f"{sign}pooled_prompt_embeds"] = parts.normal(1, 64, seed=4 + seed)
    return pipe, {**call, "guidance_scale": 2.0, **LATENT}


@flow()
def kandinsky5() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.Kandinsky5T2IPipeline(
        transformer=kandinsky5_network(visual_cond=False),
        vae=parts.vae(),
        scheduler=euler(shift=3.0),
        **NO_TEXTS,
    )
    pipe.resolutions = [(64, 64)]  # it takes the nearest of those it knows
    size = {"height": 64, "width": 64, "output_type": "latent"}
    return pipe, {**kandinsky5_prompts(), "guidance_scale": 2.0, **size}


@flow()
def prx() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.PRXTransformer2DModel,
        121,
        in_channels=4,
        patch_size=2,
        context_in_dim=32,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        axes_dim=[8, 8],
    )
    pipe = diffusers.PRXPipeline(transformer=net, scheduler=euler(shift=3.0), vae=parts.flow_vae(), **NO_TEXT)
    call = {**prompts(8, 32, "attention_mask"), "guidance_scale": 2.0, "use_resolution_binning": False}
    return pipe, {**call, **LATENT}


@flow()
def ovis() -> tuple[Any, dict[str, Any]]:
    net = parts.network(diffusers.OvisImageTransformer2DModel, 122, **FLUX_LIKE, out_channels=16)
    pipe = diffusers.OvisImagePipeline(scheduler=euler(**DYNAMIC), vae=parts.flow_vae(), transformer=net, **NO_TEXT)
    return pipe, {**prompts(8, 32), "negative_prompt": None, "guidance_scale": 2.0, **LATENT}


@flow()
def bria() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.BriaPipeline(
        transformer=parts.network(diffusers.BriaTransformer2DModel, 52, **FLUX_LIKE),
        scheduler=euler(**DYNAMIC),
        vae=parts.flow_vae(),
        text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
    )
    return pipe, {
        "prompt": "a cat",
        "negative_prompt": "fog",
        "guidance_scale": 2.0,
        "max_sequence_length": 16,
        **LATENT,
    }


@flow()
def krea2() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.Krea2Transformer2DModel,
        124,
        in_channels=64,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=32,
        text_hidden_dim=16,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 4, 8),
    )
    vae = parts.network(
        diffusers.AutoencoderKLQwenImage,
        125,
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
    )
    pipe = diffusers.Krea2Pipeline(scheduler=euler(**DYNAMIC), vae=vae, transformer=net, **NO_TEXT)
    call = prompts(8, 32, "embeds_mask")
    for sign in ("", "negative_"):
        call[f"{sign}prompt_embeds"] = call[f"{sign}prompt_embeds"].unflatten(-1, (2, 16))
        call[f"{sign}prompt_embeds_mask"] = call[f"{sign}prompt_embeds_mask"].bool()
    return pipe, {**call, "guidance_scale": 2.0, **LATENT, "height": 32, "width": 32}


@flow()
def ernie() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.ErnieImageTransformer2DModel,
        126,
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=64,
        in_channels=16,
        out_channels=16,
        text_in_dim=32,
        rope_axes_dim=(4, 4, 8),
    )
    pipe = diffusers.ErnieImagePipeline(transformer=net, vae=flux2_vae(), scheduler=euler(shift=3.0), **NO_TEXT)
    embeds = {key: [value[0]] for key, value in prompts(8, 32).items()}
    return pipe, {**embeds, "guidance_scale": 2.0, "use_pe": False, **LATENT, "height": 64, "width": 64}


@flow()
def hunyuan_image() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.HunyuanImageTransformer2DModel,
        127,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        text_embed_2_dim=8,
        rope_axes_dim=(8, 8),
    )
    vae = parts.network(
        diffusers.AutoencoderKLHunyuanImage,
        128,
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=16,
    )
    pipe = diffusers.HunyuanImagePipeline(scheduler=euler(shift=5.0), vae=vae, transformer=net, **NO_TEXTS)
    call = prompts(8, 16, "embeds_mask")
    for seed, sign in enumerate(("", "negative_")):
        call[f"{sign}prompt_embeds_2"] = parts.normal(1, 8, 8, seed=seed)
        call[f"{sign}prompt_embeds_mask_2"] = parts.mask(1, 8)
    return pipe, {**call, **LATENT}


@flow()
def chroma_img2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.ChromaImg2ImgPipeline(**chroma_pieces())
    call = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 2.0, "max_sequence_length": 16}
    return pipe, {**call, **LATENT, "image": parts.image(), "strength": 0.75}


@flow()
def z_image_img2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.ZImageImg2ImgPipeline(**z_image_pieces())
    embeds = {key: [value[0]] for key, value in prompts(8, 16).items()}
    return pipe, {**embeds, "guidance_scale": 2.0, **LATENT, "image": parts.image(), "strength": 0.75}
