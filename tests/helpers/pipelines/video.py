"""Video along a path of betas or of sigmas."""

from typing import Any

import diffusers
import transformers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.pixels import LINEAR
from tests.helpers.pipelines.stable_diffusion import BETAS, CALL, SIZE, ddim
from tests.helpers.pipelines.tiny import entry
from tests.helpers.pipelines.transformers_vp import COMMON, ZERO

CLIP = {**CALL, **SIZE, "num_frames": 3}
BLOCKS = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


def vision() -> Any:
    """An encoder of images."""
    size = {"hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**size, image_size=32, patch_size=16, intermediate_size=8)
    return parts.network(transformers.CLIPVisionModelWithProjection, 60, config=config)


@entry(kind="video")
def animatediff() -> tuple[Any, dict[str, Any]]:
    adapter = parts.network(
        diffusers.MotionAdapter,
        61,
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
    )
    net = parts.network(
        diffusers.UNetMotionModel,
        62,
        **{key: value for key, value in BLOCKS.items() if not key.endswith(("_types", "head_dim"))},
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=8,
    )
    pipe = diffusers.AnimateDiffPipeline(
        vae=parts.vae(),
        text_encoder=parts.clip(),
        tokenizer=parts.clip_tokenizer(),
        unet=parts.echoing(net),
        motion_adapter=adapter,
        scheduler=ddim(beta_schedule="linear"),
    )
    return pipe, CLIP


@entry(kind="video")
def text_to_video() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.TextToVideoSDPipeline(
        vae=parts.vae(),
        text_encoder=parts.clip(),
        tokenizer=parts.clip_tokenizer(),
        unet=parts.echoing(parts.network(diffusers.UNet3DConditionModel, 62, **BLOCKS, sample_size=8)),
        scheduler=ddim(),
    )
    return pipe, CLIP


@entry(kind="video", draws=True)
def i2vgen_xl() -> tuple[Any, dict[str, Any]]:
    size = {"width": 32, "height": 32}
    pipe = diffusers.I2VGenXLPipeline(
        vae=parts.vae(),
        text_encoder=parts.clip(),
        tokenizer=parts.clip_tokenizer(),
        image_encoder=vision(),
        feature_extractor=transformers.CLIPImageProcessor(crop_size=size, size=size),
        unet=parts.network(diffusers.I2VGenXLUNet, 63, **BLOCKS),
        scheduler=ddim(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
    )
    return pipe, {**CLIP, "image": parts.picture(32), "clip_skip": None}


@entry(kind="video")
def stable_video() -> tuple[Any, dict[str, Any]]:
    """Velocity at sigmas of Karras et al.; the network's time is log(sigma) / 4."""
    net = parts.network(
        diffusers.UNetSpatioTemporalConditionModel,
        64,
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=8,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=(2, 4),
        projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
        num_frames=3,
    )
    vae = parts.network(
        diffusers.AutoencoderKLTemporalDecoder,
        65,
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        force_upcast=False,
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        **BETAS,
        interpolation_type="linear",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    pipe = diffusers.StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=vision(),
        unet=net,
        scheduler=scheduler,
        feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
    )
    size = {"height": 16, "width": 16, "num_frames": 3, "output_type": "latent"}
    return pipe, {"image": parts.image(32), "max_guidance_scale": 2.0, **size}


def cogvideox(scheduler: Any) -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.CogVideoXTransformer3DModel,
        66,
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=32,
        num_layers=1,
        sample_width=4,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
    )
    vae = parts.network(
        diffusers.AutoencoderKLCogVideoX,
        67,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    pipe = diffusers.CogVideoXPipeline(
        tokenizer=parts.t5_tokenizer(), text_encoder=parts.t5(), vae=vae, transformer=net, scheduler=scheduler
    )
    return pipe, {**CLIP, "height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16}


@entry(kind="video")
def cogvideox_ddim() -> tuple[Any, dict[str, Any]]:
    return cogvideox(diffusers.CogVideoXDDIMScheduler(**ZERO, snr_shift_scale=3.0))


@entry(kind="video")
def cogvideox_dpm() -> tuple[Any, dict[str, Any]]:
    """Its scheduler's step is given the last prediction and the timestep before, too."""
    return cogvideox(diffusers.CogVideoXDPMScheduler(**ZERO, snr_shift_scale=1.0))


@entry(kind="video")
def latte() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.LatteTransformer3DModel,
        68,
        **{**COMMON, "num_layers": 1},
        sample_size=8,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        cross_attention_dim=24,
        out_channels=8,
        norm_type="ada_norm_single",
        norm_eps=1e-6,
        video_length=3,
    )
    pipe = diffusers.LattePipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.t5(),
        vae=parts.vae(),
        transformer=parts.echoing(net),
        scheduler=diffusers.DDIMScheduler(**LINEAR, clip_sample=False),
    )
    call = {key: value for key, value in CLIP.items() if key != "num_frames"}
    return pipe, {**call, "video_length": 3, "clean_caption": False}


@entry(kind="video")
def allegro() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.AllegroTransformer3DModel,
        69,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=32,
    )
    vae = parts.network(
        diffusers.AutoencoderKLAllegro,
        70,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        force_upcast=False,
    )
    pipe = diffusers.AllegroPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.t5(),
        vae=vae,
        transformer=parts.echoing(net),
        scheduler=diffusers.DPMSolverMultistepScheduler(**LINEAR, timestep_spacing="trailing"),
    )
    size = {"height": 32, "width": 32, "num_frames": 8, "max_sequence_length": 16, "clean_caption": False}
    return pipe, {**CLIP, **size}
