"""Video as a flow."""

from functools import partial
from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.flows import euler
from tests.helpers.pipelines.flows_more import prompts
from tests.helpers.pipelines.tiny import entry

flow = partial(entry, flow=True, kind="video")
SIZE = {"height": 32, "width": 32, "num_frames": 9, "output_type": "latent"}
WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 32,
    "num_layers": 1,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}


# --- Wan and its relatives


def unipc() -> Any:
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )


def wan_vae() -> Any:
    return parts.network(
        diffusers.AutoencoderKLWan,
        80,
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )


def wan_pieces(scheduler: Any = None, kind: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "tokenizer": None,
        "text_encoder": None,
        "vae": wan_vae(),
        "scheduler": unipc() if scheduler is None else scheduler,
        "transformer": wan_network(81, kind, **changes),
    }


def wan_network(seed: int, kind: Any = None, **changes: Any) -> Any:
    return parts.network(diffusers.WanTransformer3DModel if kind is None else kind, seed, **{**WAN, **changes})


def wan_call(**more: Any) -> dict[str, Any]:
    return {**prompts(16, 32), "guidance_scale": 2.0, **SIZE, "max_sequence_length": 16, **more}


@flow()
def wan21() -> tuple[Any, dict[str, Any]]:
    return diffusers.WanPipeline(**wan_pieces()), wan_call()


@flow()
def wan21_euler() -> tuple[Any, dict[str, Any]]:
    return diffusers.WanPipeline(**wan_pieces(euler(shift=7.0))), wan_call()


@flow()
def wan22() -> tuple[Any, dict[str, Any]]:
    """Two networks, each for its part of the time."""
    pipe = diffusers.WanPipeline(**wan_pieces(), transformer_2=wan_network(82), boundary_ratio=0.875)
    return pipe, wan_call(guidance_scale_2=1.5)


@flow()
def wan22_small() -> tuple[Any, dict[str, Any]]:
    """The time is given to the network once for each token."""
    return diffusers.WanPipeline(**wan_pieces(), expand_timesteps=True), wan_call()


@flow()
def wan_image() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.WanImageToVideoPipeline(**wan_pieces(in_channels=36), image_processor=None, image_encoder=None)
    return pipe, wan_call(image=parts.image(32))


@flow()
def wan_video() -> tuple[Any, dict[str, Any]]:
    call = wan_call(video=[parts.picture(32)] * 9, strength=0.75)
    return diffusers.WanVideoToVideoPipeline(**wan_pieces()), {k: v for k, v in call.items() if k != "num_frames"}


@flow()
def wan_vace() -> tuple[Any, dict[str, Any]]:
    kind = diffusers.WanVACETransformer3DModel
    return diffusers.WanVACEPipeline(**wan_pieces(kind=kind, vace_layers=[0], vace_in_channels=96)), wan_call()


@flow()
def skyreels() -> tuple[Any, dict[str, Any]]:
    return diffusers.SkyReelsV2Pipeline(**wan_pieces(kind=diffusers.SkyReelsV2Transformer3DModel)), wan_call()


@flow()
def skyreels_forcing() -> tuple[Any, dict[str, Any]]:
    """Diffusion forcing: a copy of the scheduler for each frame of the latents, each at a time of its own."""
    pieces = wan_pieces(kind=diffusers.SkyReelsV2Transformer3DModel)
    return diffusers.SkyReelsV2DiffusionForcingPipeline(**pieces), wan_call(prompt=None, ar_step=1, causal_block_size=1)


@flow()
def sana_video() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.SanaVideoTransformer3DModel,
        83,
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=8,
        rope_max_seq_len=32,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )
    pipe = diffusers.SanaVideoPipeline(
        tokenizer=None, text_encoder=None, vae=wan_vae(), transformer=net, scheduler=scheduler
    )
    size = {"height": 32, "width": 32, "frames": 9, "output_type": "latent", "use_resolution_binning": False}
    return pipe, {**prompts(16, 8, "attention_mask"), "negative_prompt": None, "guidance_scale": 2.0, **size}


# --- others


def hunyuan_vae() -> Any:
    return parts.network(
        diffusers.AutoencoderKLHunyuanVideo,
        84,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
    )


@flow()
def hunyuan_video() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.HunyuanVideoTransformer3DModel,
        85,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = diffusers.HunyuanVideoPipeline(transformer=net, vae=hunyuan_vae(), scheduler=euler(shift=7.0), **nothing)
    embeds = {"prompt_embeds": parts.normal(1, 16, 16), "pooled_prompt_embeds": parts.normal(1, 8, seed=1)}
    return pipe, {**embeds, "prompt_attention_mask": parts.mask(1, 16), "guidance_scale": 6.0, **SIZE}


def kandinsky5_network(visual_cond: bool) -> Any:
    return parts.network(
        diffusers.Kandinsky5Transformer3DModel,
        86,
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=32,
        model_dim=32,
        ff_dim=64,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 4, 8),
        visual_cond=visual_cond,
    )


@flow()
def kandinsky5_video() -> tuple[Any, dict[str, Any]]:
    net = kandinsky5_network(visual_cond=True)
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = diffusers.Kandinsky5T2VPipeline(transformer=net, vae=hunyuan_vae(), scheduler=euler(shift=5.0), **nothing)
    return pipe, {**kandinsky5_prompts(), "guidance_scale": 2.0, **SIZE}


def kandinsky5_prompts() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for seed, sign in enumerate(("", "negative_")):
        found[f"{sign}prompt_embeds_qwen"] = parts.normal(1, 6, 16, seed=seed)
        found[f"{sign}prompt_embeds_clip"] = parts.normal(1, 8, seed=2 + seed)
        found[f"{sign}prompt_cu_seqlens"] = parts.mask(2).cumsum(0).mul(6).sub(6).int()
    return found


@flow()
def mochi() -> tuple[Any, dict[str, Any]]:
    """Its sigmas run upwards, from 0 to 1."""
    net = parts.network(
        diffusers.MochiTransformer3DModel,
        87,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=32,
        time_embed_dim=8,
        max_sequence_length=16,
    )
    vae = parts.network(
        diffusers.AutoencoderKLMochi,
        88,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
        latents_mean=[0.0] * 12,
        latents_std=[1.0] * 12,
    )
    pipe = diffusers.MochiPipeline(
        scheduler=euler(invert_sigmas=True), vae=vae, text_encoder=None, tokenizer=None, transformer=net
    )
    return pipe, {**prompts(16, 32, "attention_mask"), "guidance_scale": 2.0, **SIZE, "num_frames": 7}
