"""What tells a model from another."""

import hashlib

import torch
from torch import nn

from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.guidance import Guided
from ddim_ode.paths import f64


def fingerprint(model: Model) -> str:
    """A digest of what a model predicts with: its weights, path, shape and guidance; not the code of a function."""
    digest = hashlib.sha256()
    if isinstance(model, Guided):
        digest.update(f"guided {model.scale} {model.sigma_range} {fingerprint(model.model)}".encode())
        return digest.hexdigest()
    sigmas = torch.logspace(-3, 5, 200, dtype=torch.float64)
    facts = [model.path.scale(f64(1.0)).item(), model.sigma_min, model.sigma_max, *model.path.u(sigmas).tolist()]
    rounded = [f"{fact:.9e}" for fact in facts]  # the last bits may be another machine's
    digest.update(repr((model.shape, model.num_classes, rounded)).encode())
    if isinstance(model, Denoiser):
        digest.update(repr((model.predicts, model.quantize)).encode())
        if isinstance(model.net, nn.Module):
            for name, value in sorted(model.net.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
