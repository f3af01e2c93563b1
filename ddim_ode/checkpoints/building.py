"""A denoiser from a configuration and the weights of its UNet, whatever files they came from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.unet import UNet


def build(config: ModelConfig, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> Denoiser:
    """A denoiser from a configuration and the weights of its UNet; a copy, in float32 and ready to evaluate."""
    with torch.device("meta"):  # no random start: it would move the global generator, and takes its time
        net = UNet(config.network)
    net.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in weights.items()}, assign=True)
    return Denoiser(
        net=net.eval().requires_grad_(False),
        path=config.schedule.path(),
        predicts=config.predicts,
        shape=config.network.shape,
        num_classes=config.network.num_classes,
        null_class=config.network.null_class,
        info={"config": config, **(info or {})},
    )


def dtypes(weights: Mapping[str, Tensor]) -> str:
    """Of stored weights: float16, or several names where they differ."""
    return ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in weights.values()}))
