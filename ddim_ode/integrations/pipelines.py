"""A pipeline of diffusers as a `Denoiser`: its own network, schedule and prompts, and our solvers.

The pipeline's objects are used as they are, so that diffusers is not imported here. A prompt is a class: label n means
prompt n, and the null class is the negative prompt. So guidance is that of any model with classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.checkpoints.scheduler_config import read_scheduler
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser

#: of a network's config: what it wants to be told besides prompts, which is not known here
MORE = ("addition_embed_type", "class_embed_type", "num_class_embeds", "time_cond_proj_dim", "encoder_hid_dim_type")


class PipelineError(DDIMError):
    """A pipeline that cannot be used here, or prompts that it cannot have."""


class Unconditional(nn.Module):
    """A `UNet2DModel` as net(x, t)."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t).sample[:, : x.shape[1]]


class Prompted(nn.Module):
    """A `UNet2DConditionModel` as net(x, t, labels); embeddings (prompts, tokens, features), the null class last."""

    embeddings: Tensor

    def __init__(self, unet: nn.Module, embeddings: Tensor):
        super().__init__()
        self.unet = unet
        self.register_buffer("embeddings", embeddings)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=self.embeddings[labels]).sample[:, : x.shape[1]]


def from_pipeline(
    pipe: Any, prompt: str | Sequence[str] | None = None, negative_prompt: str = "", quantize: bool = False
) -> Denoiser:
    """The network of a pipeline of diffusers, on the schedule of its scheduler.

    Args:
        pipe: unconditional, as `DDPMPipeline`, `DDIMPipeline` and `LDMPipeline` are, or `StableDiffusionPipeline`.
        prompt: of Stable Diffusion, one or several; `sample(..., labels=n, guidance=7.5)` uses prompt n.
        negative_prompt: the null class, which guidance leads away from.
        quantize: round timesteps, as the pipeline's own scheduler does.

    The network is shared, not copied. With an autoencoder in the pipeline, samples are latents of that:
    `Autoencoder.from_diffusers(pipe.vae).to_image(...)`. Clipping, thresholding and eta of the scheduler are left out.

    Raises:
        PipelineError: another kind of pipeline, a prompt too many or too few.
        ScheduleError, DenoiserError: a schedule or a network that cannot be used.
    """
    kind, unet, scheduler = type(pipe).__name__, getattr(pipe, "unet", None), getattr(pipe, "scheduler", None)
    if not isinstance(unet, nn.Module) or scheduler is None:
        raise PipelineError(
            f"{kind} has no unet and scheduler; use one such as DDPMPipeline or StableDiffusionPipeline"
        )
    config: Any = unet.config
    for key in MORE:
        if getattr(config, key, None) is not None:
            raise PipelineError(
                f"the unet of {kind} has {key}={getattr(config, key)!r}, which is not known here; give its network to"
                " Denoiser as net(x, t)"
            )
    channels, size = config.in_channels, config.sample_size
    if config.out_channels not in (channels, 2 * channels):
        raise PipelineError(
            f"the unet of {kind} takes {channels} channels and returns {config.out_channels}; use a pipeline that"
            " starts from noise alone"
        )
    height, width = (size, size) if isinstance(size, int) else size
    schedule, predicts = read_scheduler(scheduler.config)
    path, shape = schedule.path(), (channels, height, width)
    latent = any(getattr(pipe, name, None) is not None for name in ("vae", "vqvae"))
    if getattr(config, "cross_attention_dim", None) is None:
        if prompt is not None:
            raise PipelineError(f"{kind} knows no prompts; leave prompt={prompt!r} out")
        return Denoiser(Unconditional(unet), path, predicts, shape, quantize=quantize, latent=latent)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not prompts:
        raise PipelineError(f"{kind} needs a prompt; give prompt='...', or several")
    net = Prompted(unet, _embeddings(pipe, prompts, negative_prompt))
    return Denoiser(net, path, predicts, shape, len(prompts), quantize=quantize, latent=latent)


def _embeddings(pipe: Any, prompts: list[str], negative_prompt: str) -> Tensor:
    """(prompts + 1, tokens, features), the negative prompt last."""
    first = next(pipe.unet.parameters())
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(
            prompts,
            device=first.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=[negative_prompt] * len(prompts),
        )
    return torch.cat([positive, negative[:1]]).to(first)
