"""Models as others write them: tiny ones of diffusers, with random weights that leave nothing at zero."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from torch import Tensor, nn

SMALL = {"norm_num_groups": 8, "layers_per_block": 1}

#: scaled down, with the choices that the models of these names have
LAYOUTS: dict[str, dict[str, Any]] = {
    "ddpm-cifar10-32": {
        "sample_size": 16,
        "block_out_channels": (16, 32, 32, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "ddpm-celebahq-256": {
        "sample_size": 32,
        "block_out_channels": (8, 8, 16, 16, 32, 32),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "class-conditional": SMALL
    | {
        "sample_size": (8, 16),
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "num_class_embeds": 5,
    },
    "attention in the middle": SMALL
    | {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    },
    "no attention": SMALL
    | {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    },
    "scale-shift, ResBlocks that resample": SMALL
    | {
        "sample_size": 8,
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
    },
    "learned variance": SMALL
    | {
        "sample_size": 8,
        "out_channels": 6,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    },
}

#: what our UNet has not
OTHERS: dict[str, dict[str, Any]] = {
    "SkipDownBlock2D": SMALL
    | {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    },
    "time_embedding_type": LAYOUTS["class-conditional"]
    | {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    "attends at the same levels": LAYOUTS["attention in the middle"]
    | {"down_block_types": ("AttnDownBlock2D", "DownBlock2D")},
}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of a size that keeps the variance of what passes through."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 / math.sqrt(max(p[0].numel(), 1))))
    return net.eval().requires_grad_(False)


def unet2d(layout: dict[str, Any], seed: int = 0) -> UNet2DModel:
    with torch.random.fork_rng():
        net = UNet2DModel(**layout)
    return randomised(net, seed)


def pipeline(folder: Path, unet: UNet2DModel, **options: Any) -> DDIMPipeline:
    """Saved as diffusers saves it."""
    pipe = DDIMPipeline(unet, DDIMScheduler(**options))
    pipe.save_pretrained(folder)
    return pipe


class Sinusoid(nn.Module):
    """The time embedding of a `UNet2DModel` in float64; theirs is in float32, whatever the network's precision."""

    def __init__(self, unet: UNet2DModel):
        super().__init__()
        c = unet.config
        self.half, self.shift, self.flip = c.block_out_channels[0] // 2, c.freq_shift, c.flip_sin_to_cos

    def forward(self, t: Tensor) -> Tensor:
        rates = 10_000.0 ** (-torch.arange(self.half, dtype=torch.float64) / (self.half - self.shift))
        phases = t.double()[:, None] * rates
        parts = [phases.sin(), phases.cos()]
        return torch.cat(parts[::-1] if self.flip else parts, dim=1)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
