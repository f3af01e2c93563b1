"""Other transformers of images that are flows."""

from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.flows import DYNAMIC, FLUX, euler, flow
from tests.helpers.pipelines.stable_diffusion import SIZE

TIME = "time_caption_embed.timestep_embedder.linear_1"
LATENT = {**SIZE, "output_type": "latent"}


def prompts(tokens: int, width: int, masks: str = "") -> dict[str, Any]:
    """Embeddings of a prompt and of a negative one, and, if `masks` is their names' end, the masks."""
    found = {
        "prompt_embeds": parts.normal(1, tokens, width, seed=40),
        "negative_prompt_embeds": parts.normal(1, tokens, width, seed=41),
    }
    if masks:
        found |= {f"prompt_{masks}": parts.mask(1, tokens), f"negative_prompt_{masks}": parts.mask(1, tokens)}
    return found


def chroma_pieces() -> dict[str, Any]:
    config = {key: value for key, value in FLUX.items() if key != "pooled_projection_dim"}
    approximator = {"approximator_hidden_dim": 32, "approximator_layers": 1, "approximator_num_channels": 16}
    return {
        "transformer": parts.network(diffusers.ChromaTransformer2DModel, 40, **config, **approximator),
        "scheduler": euler(use_beta_sigmas=True),
        "vae": parts.flow_vae(),
        "text_encoder": parts.t5(),
        "tokenizer": parts.t5_tokenizer(),
    }


@flow()
def chroma() -> tuple[Any, dict[str, Any]]:
    call = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 2.0, "max_sequence_length": 16}
    return diffusers.ChromaPipeline(**chroma_pieces()), {**call, **LATENT}


@flow()
def aura_flow() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.AuraFlowTransformer2DModel,
        41,
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    pipe = diffusers.AuraFlowPipeline(
        tokenizer=None, text_encoder=None, vae=parts.vae(), transformer=net, scheduler=euler(shift=1.73)
    )
    return pipe, {**prompts(16, 32, "attention_mask"), "guidance_scale": 2.0, **LATENT}


@flow()
def lumina() -> tuple[Any, dict[str, Any]]:
    """Its time runs upwards: the loop turns it and the network's sign round."""
    net = parts.network(
        diffusers.LuminaNextDiT2DModel,
        42,
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        ffn_dim_multiplier=None,
        cross_attention_dim=32,
    )
    pipe = diffusers.LuminaPipeline(
        transformer=parts.scaled(net, TIME, 5.0), scheduler=euler(), vae=parts.vae(), text_encoder=None, tokenizer=None
    )
    return pipe, {
        **prompts(16, 32, "attention_mask"),
        "guidance_scale": 2.0,
        "clean_caption": False,
        **LATENT,
        "height": 32,
        "width": 32,
    }


@flow()
def lumina2() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.Lumina2Transformer2DModel,
        43,
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(128, 128, 128),
        cap_feat_dim=32,
    )
    pipe = diffusers.Lumina2Pipeline(
        transformer=parts.scaled(net, TIME, 5.0),
        scheduler=euler(shift=6.0),
        vae=parts.flow_vae(),
        text_encoder=None,
        tokenizer=None,
    )
    return pipe, {**prompts(16, 32, "attention_mask"), "guidance_scale": 2.0, **LATENT, "height": 32, "width": 32}


@flow()
def cogview4() -> tuple[Any, dict[str, Any]]:
    """Its timesteps and sigmas are given apart, and disagree: only the latter are shifted."""
    net = parts.network(
        diffusers.CogView4Transformer2DModel,
        44,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    )
    shifts = {"base_shift": 0.25, "max_shift": 0.75, "base_image_seq_len": 256, "time_shift_type": "linear"}
    pipe = diffusers.CogView4Pipeline(
        tokenizer=None,
        text_encoder=None,
        vae=parts.vae(),
        transformer=net,
        scheduler=euler(use_dynamic_shifting=True, **shifts),
    )
    return pipe, {**prompts(16, 32), "guidance_scale": 2.0, **LATENT}


def sana_pieces(scheduler: Any, **changes: Any) -> dict[str, Any]:
    net = parts.network(
        diffusers.SanaTransformer2DModel,
        45,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
        **changes,
    )
    blocks = ("ResBlock", "EfficientViTBlock")
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "block_types": blocks,
            "block_out_channels": (8, 8),
            "qkv_multiscales": ((), (5,)),
            "layers_per_block": (1, 1),
        }.items()
    }
    types = {"downsample_block_type": "conv", "upsample_block_type": "interpolate", "decoder_act_fns": "silu"}
    vae = parts.network(
        diffusers.AutoencoderDC,
        46,
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        scaling_factor=0.41,
        decoder_norm_types="rms_norm",
        **sides,
        **types,
    )
    return {"tokenizer": None, "text_encoder": None, "vae": vae, "transformer": net, "scheduler": scheduler}


@flow()
def sana() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        flow_shift=3.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    size = {"height": 32, "width": 32, "use_resolution_binning": False, "output_type": "latent"}
    call = {**prompts(16, 8, "attention_mask"), "negative_prompt": None, "guidance_scale": 2.0}
    return diffusers.SanaPipeline(**sana_pieces(scheduler)), {**call, **size}


@flow(fits=False)
def sana_sprint() -> tuple[Any, dict[str, Any]]:
    """A consistency model of a trigonometric flow, with noise of its own at every step."""
    scheduler = diffusers.SCMScheduler()
    pieces = sana_pieces(scheduler, guidance_embeds=True, qk_norm="rms_norm_across_heads")
    size = {"height": 32, "width": 32, "use_resolution_binning": False, "output_type": "latent"}
    call = {"prompt_embeds": parts.normal(1, 16, 8), "prompt_attention_mask": parts.mask(1, 16)}
    return diffusers.SanaSprintPipeline(**pieces), {**call, **size, "intermediate_timesteps": None}


def qwen_pieces() -> dict[str, Any]:
    net = parts.network(
        diffusers.QwenImageTransformer2DModel,
        47,
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = parts.network(
        diffusers.AutoencoderKLQwenImage,
        48,
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    scheduler = euler(**{**DYNAMIC, "max_shift": 0.9, "max_image_seq_len": 8192}, shift_terminal=0.02)
    return {"scheduler": scheduler, "vae": vae, "text_encoder": None, "tokenizer": None, "transformer": net}


def qwen_call() -> dict[str, Any]:
    size = {"height": 32, "width": 32, "output_type": "latent"}
    return {**prompts(7, 16, "embeds_mask"), "true_cfg_scale": 2.0, **size}


@flow()
def qwen_image() -> tuple[Any, dict[str, Any]]:
    return diffusers.QwenImagePipeline(**qwen_pieces()), qwen_call()


@flow()
def qwen_img2img() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.QwenImageImg2ImgPipeline(**qwen_pieces())
    return pipe, {**qwen_call(), "image": parts.image(32), "strength": 0.75}


@flow()
def qwen_inpaint() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.QwenImageInpaintPipeline(**qwen_pieces())
    return pipe, {**qwen_call(), "image": parts.image(32), "mask_image": parts.hole(32), "strength": 0.9}


def z_image_pieces() -> dict[str, Any]:
    net = parts.network(
        diffusers.ZImageTransformer2DModel,
        50,
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    pieces = {"scheduler": euler(shift=3.0), "vae": parts.flow_vae(), "transformer": net}
    return {**pieces, "text_encoder": None, "tokenizer": None}


@flow()
def z_image() -> tuple[Any, dict[str, Any]]:
    """Its time runs upwards, and its velocity from noise to data."""
    embeds = {key: [value[0]] for key, value in prompts(8, 16).items()}
    return diffusers.ZImagePipeline(**z_image_pieces()), {**embeds, "guidance_scale": 2.0, **LATENT}
