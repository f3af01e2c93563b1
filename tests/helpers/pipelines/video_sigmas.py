"""LTX Video and Cosmos: video with times of its own for each frame, or with a path of sigmas that is mixed with one."""

from functools import partial
from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.flows import euler
from tests.helpers.pipelines.flows_more import prompts
from tests.helpers.pipelines.tiny import entry
from tests.helpers.pipelines.video_flows import SIZE, wan_vae

video = partial(entry, kind="video")


def ltx_pieces() -> dict[str, Any]:
    sides = {
        "block_out_channels": (8,) * 4,
        "layers_per_block": (1,) * 5,
        "spatio_temporal_scaling": (True, True, False, False),
    }
    vae = parts.network(
        diffusers.AutoencoderKLLTXVideo,
        90,
        latent_channels=8,
        patch_size=1,
        **sides,
        **{f"decoder_{name}": value for name, value in sides.items()},
    )
    net = parts.network(
        diffusers.LTXVideoTransformer3DModel,
        91,
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    shifts = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "max_image_seq_len": 4096}
    scheduler = euler(use_dynamic_shifting=True, shift_terminal=0.1, **shifts)
    return {"scheduler": scheduler, "vae": vae, "text_encoder": None, "tokenizer": None, "transformer": net}


def ltx_call() -> dict[str, Any]:
    return {**prompts(16, 32, "attention_mask"), "guidance_scale": 2.0, **SIZE}


@video(flow=True)
def ltx() -> tuple[Any, dict[str, Any]]:
    return diffusers.LTXPipeline(**ltx_pieces()), ltx_call()


@video(flow=True)
def ltx_image() -> tuple[Any, dict[str, Any]]:
    """The first frame is given: the scheduler steps only the others."""
    return diffusers.LTXImageToVideoPipeline(**ltx_pieces()), {**ltx_call(), "image": parts.image(32)}


@video(flow=True)
def ltx_condition() -> tuple[Any, dict[str, Any]]:
    """The scheduler's step is given a time for each token."""
    call = {**ltx_call(), "image": parts.image(32), "strength": 1.0}
    return diffusers.LTXConditionPipeline(**{**ltx_pieces(), "scheduler": euler()}), call


class Safe:
    """In place of Cosmos's checker, which is a package of its own."""

    def to(self, *where: Any) -> None:
        pass

    def check_text_safety(self, prompt: str) -> bool:
        return True


def cosmos_network(seen: int, channels: int) -> Any:
    return parts.network(
        diffusers.CosmosTransformer3DModel,
        92,
        in_channels=seen,
        out_channels=channels,
        concat_padding_mask=False,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        mlp_ratio=2,
        text_embed_dim=32,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
    )


def cosmos_vae() -> Any:
    return parts.network(
        diffusers.AutoencoderKLCosmos,
        93,
        latent_channels=4,
        encoder_block_out_channels=(8,) * 4,
        decode_block_out_channels=(8,) * 4,
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )


COSMOS = {"text_encoder": None, "tokenizer": None, "safety_checker": Safe()}


def edm() -> Any:
    return diffusers.EDMEulerScheduler(
        sigma_min=0.002,
        sigma_max=80.0,
        sigma_data=0.5,
        sigma_schedule="karras",
        num_train_timesteps=1000,
        prediction_type="epsilon",
        rho=7.0,
        final_sigmas_type="sigma_min",
    )


@video()
def cosmos() -> tuple[Any, dict[str, Any]]:
    """The scheduler is asked for the prediction, guidance mixes two of those, and it is called again with the mix."""
    pipe = diffusers.CosmosTextToWorldPipeline(
        **COSMOS, transformer=cosmos_network(4, 4), vae=cosmos_vae(), scheduler=edm()
    )
    return pipe, {**prompts(16, 32), "guidance_scale": 2.0, **SIZE}


@entry(flow=True, fits=False)
def cosmos2_image() -> tuple[Any, dict[str, Any]]:
    """A flow by way of Karras et al.'s sigmas: the network sees x / (1 + sigma) at the time sigma / (1 + sigma).

    Its scheduler is that of flows, but its state is x0 + sigma eps with sigmas up to 80, and what it is given is eps.
    """
    scheduler = euler(use_karras_sigmas=True)
    pipe = diffusers.Cosmos2TextToImagePipeline(
        **COSMOS, transformer=cosmos_network(16, 16), vae=wan_vae(), scheduler=scheduler
    )
    call = {key: value for key, value in SIZE.items() if key != "num_frames"}
    return pipe, {**prompts(16, 32), "guidance_scale": 2.0, **call}


@entry(flow=True, kind="video", fits=False)
def cosmos2_video() -> tuple[Any, dict[str, Any]]:
    """The first frame is given; the last two sigmas are made equal by the pipeline."""
    pipe = diffusers.Cosmos2VideoToWorldPipeline(
        **COSMOS, transformer=cosmos_network(17, 16), vae=wan_vae(), scheduler=euler(use_karras_sigmas=True)
    )
    return pipe, {**prompts(16, 32), "guidance_scale": 2.0, **SIZE, "image": parts.image(32)}


@video()
def cosmos_video() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.CosmosVideoToWorldPipeline(
        **COSMOS, transformer=cosmos_network(5, 4), vae=cosmos_vae(), scheduler=edm()
    )
    return pipe, {**prompts(16, 32), "guidance_scale": 2.0, **SIZE, "image": parts.image(32)}
