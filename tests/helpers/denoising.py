"""Pipelines of diffusers around tiny random networks."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from tests.helpers.tensors import normal

SHAPE = (1, 8, 8)
LAYOUT = {
    "sample_size": 8,
    "in_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


class Net(UNet2DModel):
    """A UNet with the input in its output, as a trained network's noise is; it counts its calls."""

    calls = 0

    def forward(self, sample: Tensor, timestep: Any, *inputs: Any, **options: Any) -> UNet2DOutput:
        self.calls += 1
        out = super().forward(sample, timestep, *inputs, **options).sample
        return UNet2DOutput(sample=torch.cat([0.7 * sample, *[0 * sample] * (out.shape[1] - 1)], 1) + 0.3 * out)


def network(**changes: Any) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net(**{**LAYOUT, "out_channels": 1, **changes}).eval().requires_grad_(False)


NET = network()


def pipeline(scheduler: Any, net: UNet2DModel = NET, kind: type = DDPMPipeline) -> Any:
    pipe = kind(net, DDPMScheduler())
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pictures(pipe: Any, n: int, seed: int = 3, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return pipe(batch_size=count, generator=generator, num_inference_steps=n, output_type="pt").images


def random_module(kind: Any, **config: Any) -> Any:
    """A network of diffusers with weights of its own, ready to evaluate."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return kind(**config).eval().requires_grad_(False)


def tiny_vae(**config: Any) -> AutoencoderKL:
    """Images (1, 16, 16), latents (2, 8, 8)."""
    return random_module(
        AutoencoderKL,
        **{"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
        | {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        | {"latent_channels": 2, "sample_size": 16}
        | config,
    )


def text_unet(**config: Any) -> UNet2DConditionModel:
    """Latents (2, 8, 8), prompts (tokens, 8)."""
    return random_module(
        UNet2DConditionModel,
        **{"sample_size": 8, "in_channels": 2, "out_channels": 2, "block_out_channels": (8, 16), "layers_per_block": 1}
        | {"norm_num_groups": 4, "attention_head_dim": 4, "cross_attention_dim": 8}
        | {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
        | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
        | config,
    )


# --- prompts

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
STEPS = 8


def ddim(**config: Any) -> DDIMScheduler:
    return DDIMScheduler(**{"clip_sample": False} | config)


def stable(unet: Any = None, kind: Any = StableDiffusionPipeline, **parts: Any) -> Any:
    """Stable Diffusion without a text encoder."""
    unet = text_unet() if unet is None else unet
    nothing = {"vae": None, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    return kind(**nothing, unet=unet, scheduler=ddim(**STABLE), requires_safety_checker=False, **parts)


class TextPipe:
    """What `from_pipeline` asks of a pipeline with prompts, with an encoder of its own: a table of letters."""

    def __init__(self, unet: torch.nn.Module, **config: Any):
        self.unet, self.vae, self.scheduler = unet, tiny_vae(), ddim(**STABLE, **config)

    def encode(self, prompts: list[str]) -> Tensor:
        table = normal(128, 8, seed=9, dtype=torch.float32)
        return torch.stack([table[[ord(c) for c in prompt.ljust(6)[:6]]] for prompt in prompts])

    def encode_prompt(
        self, prompt: list[str], device: Any, num_images_per_prompt: int, do_classifier_free_guidance: bool, **more: Any
    ) -> tuple[Tensor, Tensor]:
        assert do_classifier_free_guidance
        assert len(more["negative_prompt"]) == len(prompt)
        return self.encode(prompt), self.encode(more["negative_prompt"])

    def __call__(self, prompt: str, negative: str, scale: float, z: Tensor) -> Tensor:
        """Stable Diffusion's loop (Ho & Salimans 2022, Eq. 6)."""
        self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps:
            with_prompt, without = (
                self.unet(z, t, encoder_hidden_states=self.encode([words] * len(z))).sample
                for words in (prompt, negative)
            )
            z = self.scheduler.step(without + scale * (with_prompt - without), t, z).prev_sample
        return z


def along_their_timesteps(model: Denoiser, scheduler: DDIMScheduler, noise: Tensor, **options: Any) -> Tensor:
    scheduler.set_timesteps(STEPS)
    grid = [*model.path.sigma(scheduler.timesteps.double()).tolist(), 0.0]
    return sample(model, "ddim", grid=grid, noise=noise, **options).x
