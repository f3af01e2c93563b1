"""Without a prompt: images, latents, depth."""

from typing import Any

import diffusers

from tests.helpers.pipelines import parts
from tests.helpers.pipelines.stable_diffusion import BETAS, ddim, v_ddim
from tests.helpers.pipelines.tiny import entry

CALL = {"batch_size": 1, "output_type": "pt"}
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


@entry()
def ddpm() -> tuple[Any, dict[str, Any]]:
    net = parts.echoing(parts.pixel_unet())
    return diffusers.DDPMPipeline(net, diffusers.DDPMScheduler(**LINEAR)), CALL


@entry()
def ddpm_cosine() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    return diffusers.DDPMPipeline(parts.pixel_unet(), scheduler), CALL


@entry()
def ddim_pixels() -> tuple[Any, dict[str, Any]]:
    net = parts.echoing(parts.pixel_unet())
    return diffusers.DDIMPipeline(net, diffusers.DDIMScheduler(**LINEAR, clip_sample=False)), CALL


@entry()
def latent_diffusion() -> tuple[Any, dict[str, Any]]:
    net = parts.echoing(parts.pixel_unet())
    return diffusers.LDMPipeline(parts.vq(), net, ddim()), CALL


@entry()
def latent_superresolution() -> tuple[Any, dict[str, Any]]:
    net = parts.echoing(parts.pixel_unet(in_channels=6))
    pipe = diffusers.LDMSuperResolutionPipeline(parts.vq(), net, diffusers.DDIMScheduler(**BETAS, clip_sample=False))
    return pipe, {"image": parts.image(8), "output_type": "pt"}


@entry(fits=False)
def consistency_model() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_min=0.002, sigma_max=80.0)
    return diffusers.ConsistencyModelPipeline(parts.pixel_unet(), scheduler), CALL


@entry()
def marigold() -> tuple[Any, dict[str, Any]]:
    """Depth from an image; the noisy latents are the last four of eight channels."""
    pipe = diffusers.MarigoldDepthPipeline(
        unet=parts.unet(in_channels=8),
        vae=parts.vae(),
        scheduler=v_ddim(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        text_encoder=parts.clip(),
        tokenizer=parts.clip_tokenizer(),
        prediction_type="depth",
        scale_invariant=True,
        shift_invariant=True,
    )
    return pipe, {"image": parts.image(), "processing_resolution": 0, "output_type": "pt"}


@entry()
def marigold_normals() -> tuple[Any, dict[str, Any]]:
    pipe = diffusers.MarigoldNormalsPipeline(
        unet=parts.unet(in_channels=8),
        vae=parts.vae(),
        scheduler=v_ddim(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        text_encoder=parts.clip(),
        tokenizer=parts.clip_tokenizer(),
        prediction_type="normals",
    )
    return pipe, {"image": parts.image(), "processing_resolution": 0, "output_type": "pt"}
