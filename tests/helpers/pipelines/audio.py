"""Sound."""

from functools import partial
from typing import Any

import diffusers
import transformers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.stable_diffusion import ddim, pndm
from tests.helpers.pipelines.tiny import entry

sound = partial(entry, kind="audio")


def mel_vae() -> Any:
    return parts.vae(in_channels=1, out_channels=1)


def vocoder() -> Any:
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=16000,
        upsample_initial_channel=16,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        normalize_before=False,
    )
    return parts.network(transformers.SpeechT5HifiGan, 100, config=config)


@sound()
def audioldm2() -> tuple[Any, dict[str, Any]]:
    net = parts.network(
        diffusers.AudioLDM2UNet2DConditionModel,
        101,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16),
    )
    config = transformers.GPT2Config(
        n_embd=16, n_head=1, n_layer=1, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=1
    )
    nothing = dict.fromkeys(("text_encoder", "projection_model", "tokenizer", "tokenizer_2", "feature_extractor"))
    pipe = diffusers.AudioLDM2Pipeline(
        vae=mel_vae(),
        text_encoder_2=parts.t5(),
        language_model=parts.network(transformers.GPT2LMHeadModel, 102, config=config),
        unet=parts.echoing(net),
        scheduler=ddim(),
        vocoder=vocoder(),
        **nothing,
    )
    call = {
        f"{sign}{name}": parts.normal(1, 8, 16, seed=seed)
        for seed, (sign, name) in enumerate(
            (s, n) for s in ("", "negative_") for n in ("prompt_embeds", "generated_prompt_embeds")
        )
    }
    masks = {"attention_mask": parts.mask(1, 8), "negative_attention_mask": parts.mask(1, 8)}
    return pipe, {**call, **masks, "audio_length_in_s": 0.02, "guidance_scale": 2.0, "output_type": "latent"}


def clap_pieces(scheduler: Any) -> dict[str, Any]:
    net = parts.unet(
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=32,
        class_embeddings_concat=True,
        cross_attention_dim=(8, 16),
    )
    return {
        "vae": mel_vae(),
        "tokenizer": None,
        "unet": parts.echoing(net),
        "scheduler": scheduler,
        "vocoder": vocoder(),
    }


def clap(whole: bool) -> Any:
    """The encoder of prompts, and, as MusicLDM wants it, that of sound with it."""
    text = {"vocab_size": 64, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "projection_dim": 32}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1}
    if not whole:
        return parts.network(transformers.ClapTextModelWithProjection, 106, config=transformers.ClapTextConfig(**text))
    sound = {"spec_size": 16, "num_mel_bins": 16, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4]}
    sound |= {"depths": [1, 1], "num_attention_heads": [1, 1], "num_hidden_layers": 2, "hidden_size": 16}
    sound |= {"patch_embeds_hidden_size": 8, "projection_dim": 32}
    config = transformers.ClapConfig(text_config=text, audio_config=sound, projection_dim=32)
    return parts.network(transformers.ClapModel, 106, config=config)


def clap_call() -> dict[str, Any]:
    embeds = {"prompt_embeds": parts.normal(1, 32), "negative_prompt_embeds": parts.normal(1, 32, seed=1)}
    return {**embeds, "audio_length_in_s": 0.02, "guidance_scale": 2.0, "output_type": "latent"}


@sound()
def audioldm() -> tuple[Any, dict[str, Any]]:
    return diffusers.AudioLDMPipeline(**clap_pieces(ddim()), text_encoder=clap(False)), clap_call()


@sound()
def musicldm() -> tuple[Any, dict[str, Any]]:
    return diffusers.MusicLDMPipeline(
        **clap_pieces(pndm()), feature_extractor=None, text_encoder=clap(True)
    ), clap_call()


@sound()
def stable_audio() -> tuple[Any, dict[str, Any]]:
    """Velocity along the cosine path, given as sigmas; the network's time is an angle."""
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    net = parts.network(
        diffusers.StableAudioDiTModel,
        103,
        sample_size=16,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        out_channels=4,
        cross_attention_dim=16,
        time_proj_dim=8,
        global_states_input_dim=32,
        cross_attention_input_dim=16,
    )
    vae = parts.network(
        diffusers.AutoencoderOobleck,
        104,
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        channel_multiples=[2, 4],
        decoder_channels=4,
        decoder_input_channels=4,
        sampling_rate=4,
    )
    project = parts.network(
        StableAudioProjectionModel, 105, text_encoder_dim=32, conditioning_dim=16, min_value=0, max_value=32
    )
    pipe = diffusers.StableAudioPipeline(
        vae=vae,
        text_encoder=parts.t5(),
        projection_model=project,
        tokenizer=parts.t5_tokenizer(),
        transformer=parts.scaled(net, "proj_out", 0.25),
        scheduler=diffusers.CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500.0),
    )
    call = {"prompt": "a cat", "negative_prompt": "fog", "guidance_scale": 2.0, "output_type": "latent"}
    return pipe, {**call, "audio_end_in_s": 8.0}
