"""Pipelines that treat their scheduler in a way of their own."""

from typing import Any

import diffusers
import transformers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.flows import euler, flow
from tests.helpers.pipelines.flows_more import prompts
from tests.helpers.pipelines.stable_diffusion import CALL, SAFE, ddim, pieces
from tests.helpers.pipelines.tiny import entry
from tests.helpers.pipelines.video_flows import SIZE, wan_call, wan_pieces

NO_TEXT = {"text_encoder": None, "tokenizer": None}


@entry()
def sd_panorama() -> tuple[Any, dict[str, Any]]:
    """Each view has the scheduler's attributes for itself: copied, and put back at each of its steps."""
    pipe = diffusers.StableDiffusionPanoramaPipeline(**pieces(ddim()), **SAFE)
    return pipe, {**CALL, "height": 16, "width": 32}


@flow(kind="video")
def chronoedit() -> tuple[Any, dict[str, Any]]:
    """In the middle of the run all frames but two are dropped, also in what the scheduler remembers."""
    changes = {"in_channels": 36, "image_dim": 4, "added_kv_proj_dim": 24, "rope_temporal_skip_len": 3}
    kept = wan_pieces(kind=diffusers.ChronoEditTransformer3DModel, **changes)
    size = {"hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.CLIPVisionConfig(**size, image_size=4, patch_size=1)
    pipe = diffusers.ChronoEditPipeline(
        **kept,
        image_encoder=parts.network(transformers.CLIPVisionModel, 129, config=config),
        image_processor=transformers.CLIPImageProcessor(crop_size=4, size=4),
    )
    embeds = {**prompts(512, 32), "image": parts.picture(32)}
    reasoning = {"enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 2}
    return pipe, {**wan_call(), **embeds, **reasoning}


@flow(kind="video")
def easyanimate() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.EasyAnimateTransformer3DModel,
        130,
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        sample_width=4,
        sample_height=4,
        num_layers=1,
        mmdit_layers=1,
        time_embed_dim=8,
        text_embed_dim=16,
    )
    vae = parts.network(
        diffusers.AutoencoderKLMagvit,
        131,
        block_out_channels=[8] * 4,
        latent_channels=4,
        norm_num_groups=2,
        layers_per_block=1,
    )
    pipe = diffusers.EasyAnimatePipeline(transformer=net, vae=vae, scheduler=euler(shift=5.0), **NO_TEXT)
    return pipe, {**prompts(8, 16, "attention_mask"), "guidance_scale": 2.0, **SIZE}


@flow(kind="video")
def ltx2() -> tuple[Any, dict[str, Any]]:
    """Video and sound together: a copy of the scheduler steps the sound."""
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    net = parts.network(
        diffusers.LTX2VideoTransformer3DModel,
        132,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=1,
        caption_channels=32,
        rope_double_precision=False,
        rope_type="split",
    )
    heads = {
        f"{kind}_connector_{name}": value
        for kind in ("video", "audio")
        for name, value in {
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 1,
            "num_learnable_registers": None,
        }.items()
    }
    vae = parts.network(
        diffusers.AutoencoderKLLTX2Video,
        133,
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        down_block_types=("LTX2VideoDownBlock3D",),
        downsample_type=("spatial",),
        upsample_type=("spatial",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        patch_size=1,
        patch_size_t=1,
    )
    sound = parts.network(
        diffusers.AutoencoderKLLTX2Audio,
        134,
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        resolution=32,
        latent_channels=2,
        mel_bins=8,
    )
    pipe = diffusers.LTX2Pipeline(
        scheduler=euler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1),
        vae=vae,
        audio_vae=sound,
        connectors=parts.network(
            LTX2TextConnectors, 135, caption_channels=32, text_proj_in_factor=2, rope_double_precision=False, **heads
        ),
        transformer=net,
        vocoder=None,
        **NO_TEXT,
    )
    plain = {"stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0}
    call = {**prompts(8, 64, "attention_mask"), "guidance_scale": 2.0, **SIZE, **plain}
    return pipe, {**call, "audio_guidance_scale": 2.0, "num_frames": 5, "guidance_rescale": 0.0}


def stable_audio3_pieces(scheduler: Any) -> dict[str, Any]:
    from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

    net = parts.network(
        diffusers.StableAudio3DiTModel,
        136,
        io_channels=4,
        embed_dim=16,
        depth=1,
        num_heads=2,
        cond_token_dim=16,
        global_cond_dim=16,
        local_add_cond_dim=5,
        timestep_features_dim=16,
        ff_mult=2.0,
        num_memory_tokens=2,
    )
    vae = parts.network(
        diffusers.AutoencoderSAME,
        137,
        patch_size=4,
        encoder_channels=8,
        encoder_c_mults=(1,),
        encoder_strides=(2,),
        encoder_transformer_depths=(1,),
        latent_dim=4,
        dim_heads=4,
        ff_mult=2,
        sampling_rate=16,
    )
    duration = parts.network(StableAudio3DurationEmbedder, 138, output_dim=16, fourier_dim=8)
    return {
        "vae": vae,
        "duration_embedder": duration,
        "transformer": parts.scaled(net, "proj_out", 0.3),
        "scheduler": scheduler,
        **NO_TEXT,
    }


def stable_audio3_call() -> dict[str, Any]:
    embeds = prompts(8, 16)
    masks = {"encoder_attention_mask": parts.mask(1, 8), "negative_encoder_attention_mask": parts.mask(1, 8)}
    return {**embeds, **masks, "duration": 8.0, "guidance_scale": 2.0, "output_type": "latent"}


@flow(kind="audio")
def stable_audio3() -> tuple[Any, dict[str, Any]]:
    pieces = stable_audio3_pieces(euler(num_train_timesteps=1))
    return diffusers.StableAudio3Pipeline(**pieces), stable_audio3_call()


@flow(kind="audio")
def stable_audio3_distilled() -> tuple[Any, dict[str, Any]]:
    """To the predicted data and back to noise at every step."""
    pieces = stable_audio3_pieces(euler(num_train_timesteps=1, stochastic_sampling=True))
    return diffusers.StableAudio3Pipeline(**pieces), {**stable_audio3_call(), "guidance_scale": 1.0}
