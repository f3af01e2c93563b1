"""A denoiser from a configuration and the weights of its UNet, whatever files they came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.checkpoints.files import sha256, shards
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.provenance import Provenance
from ddim_ode.models.unet import UNet


def build(config: ModelConfig, weights: Mapping[str, Tensor], provenance: Provenance | None = None) -> Denoiser:
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
        provenance=provenance,
    )


def dtypes(weights: Mapping[str, Tensor]) -> str:
    """The precision of stored weights: float16, or several names where they differ."""
    return ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in weights.values()}))


def provenance_in(kind: str, folder: Path, file: Path, weights: Mapping[str, Tensor], **facts: Any) -> Provenance:
    """The provenance of weights that were read from a file, or from the shards that it lists."""
    parts = shards(file)
    return Provenance(
        kind=kind,
        folder=str(folder),
        file=str(file),
        sha256=sha256(*parts),
        bytes=sum(part.stat().st_size for part in parts),
        dtype=dtypes(weights),
        **facts,
    )
