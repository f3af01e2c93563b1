"""Families of schedulers around the same few networks."""

from typing import Any

import diffusers

from tests.helpers.pipelines.flows import FLUX_CALL, SD3_CALL, euler, flow, flux_pieces, sd3_pieces
from tests.helpers.pipelines.stable_diffusion import BETAS, CALL, SAFE, SIZE, pieces
from tests.helpers.pipelines.stable_diffusion_xl import pieces as xl_pieces
from tests.helpers.pipelines.tiny import entry


def stable(scheduler: Any, echo: bool = True) -> tuple[Any, dict[str, Any]]:
    return diffusers.StableDiffusionPipeline(**pieces(scheduler, echo), **SAFE), CALL


@entry()
def sd_heun() -> tuple[Any, dict[str, Any]]:
    """Of order 2: each of its timesteps but the first comes twice."""
    return stable(diffusers.HeunDiscreteScheduler(**BETAS))


@entry()
def sd_lms() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.LMSDiscreteScheduler(**BETAS))


@entry()
def sd_kdpm2() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.KDPM2DiscreteScheduler(**BETAS))


@entry()
def sd_single() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.DPMSolverSinglestepScheduler(**BETAS, lower_order_final=True))


@entry()
def sd_sde() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.DPMSolverMultistepScheduler(**BETAS, algorithm_type="sde-dpmsolver++"))


@entry()
def sd_sa() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.SASolverScheduler(**BETAS))


@entry()
def sd_unipc_beta() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.UniPCMultistepScheduler(**BETAS, use_beta_sigmas=True))


@entry()
def sd_exponential() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.EulerDiscreteScheduler(**BETAS, use_exponential_sigmas=True))


@entry()
def sd_zero_snr_euler() -> tuple[Any, dict[str, Any]]:
    """Its first sigma stands for infinity."""
    scheduler = diffusers.EulerDiscreteScheduler(
        **BETAS, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    return stable(scheduler, echo=False)


@entry()
def sd_trained_betas() -> tuple[Any, dict[str, Any]]:
    betas = [0.001 + 0.0195 * i / 199 for i in range(200)]
    return stable(diffusers.DDIMScheduler(trained_betas=betas, num_train_timesteps=200, clip_sample=False))


@entry(fits=False)
def sd_tcd() -> tuple[Any, dict[str, Any]]:
    return stable(diffusers.TCDScheduler(**BETAS))


@entry(fits=False)
def sdxl_lcm() -> tuple[Any, dict[str, Any]]:
    call = {"prompt": "a cat", "guidance_scale": 1.0, "output_type": "latent"}
    scheduler = diffusers.LCMScheduler(**BETAS, clip_sample=False)
    return diffusers.StableDiffusionXLPipeline(**xl_pieces(scheduler)), {**call, **SIZE}


@entry()
def sdxl_lightning() -> tuple[Any, dict[str, Any]]:
    call = {"prompt": "a cat", "guidance_scale": 0.0, "output_type": "latent"}
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    return diffusers.StableDiffusionXLPipeline(**xl_pieces(scheduler)), {**call, **SIZE}


@entry()
def sdxl_lambdas() -> tuple[Any, dict[str, Any]]:
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, use_lu_lambdas=True, euler_at_final=True)
    return diffusers.StableDiffusionXLPipeline(**xl_pieces(scheduler)), {**CALL, **SIZE}


# --- of flows


@flow()
def sd3_heun() -> tuple[Any, dict[str, Any]]:
    pieces = {**sd3_pieces(), "scheduler": diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)}
    return diffusers.StableDiffusion3Pipeline(**pieces), SD3_CALL


@flow()
def sd3_dynamic() -> tuple[Any, dict[str, Any]]:
    pieces = {**sd3_pieces(), "scheduler": euler(use_dynamic_shifting=True)}
    return diffusers.StableDiffusion3Pipeline(**pieces), {**SD3_CALL, "mu": 0.8}


@flow(draws=True)
def flux_stochastic() -> tuple[Any, dict[str, Any]]:
    return diffusers.FluxPipeline(**flux_pieces(euler(stochastic_sampling=True))), FLUX_CALL


@flow()
def flux_karras() -> tuple[Any, dict[str, Any]]:
    return diffusers.FluxPipeline(**flux_pieces(euler(use_karras_sigmas=True))), FLUX_CALL


@flow()
def flux_unipc() -> tuple[Any, dict[str, Any]]:
    """The pipeline gives such a scheduler no sigmas of its own."""
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3)
    return diffusers.FluxPipeline(**flux_pieces(scheduler)), FLUX_CALL


@flow(fits=False, draws=True)
def flux_lcm() -> tuple[Any, dict[str, Any]]:
    return diffusers.FluxPipeline(**flux_pieces(diffusers.FlowMatchLCMScheduler(shift=3.0))), FLUX_CALL
