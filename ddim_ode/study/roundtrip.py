"""How well images survive being encoded and decoded by a method."""

from dataclasses import replace

from torch import Tensor

from ddim_ode.inversion import compared, decode, encode_with
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.options import SolveOptions
from ddim_ode.study.rows import RoundTrip


def round_trip(model: Model, x: Tensor, options: SolveOptions, labels: Told) -> RoundTrip:
    """Follow the flow of images x (B, *shape) to their latents and back, with the method and grid of `options`.

    Raises as `encode`.
    """
    options = replace(options, eta=None, final="sigma_min", batch_size=None)
    x = x.to(options.dtype)
    latent = encode_with(model, x, options, labels=labels)
    found = compared(x, latent, decode(model, latent))
    return RoundTrip(
        rms=float(found.rms.square().mean().sqrt()),
        bit_exact=float(found.bit_exact.double().mean()),
        nfe_up=float(found.latent.nfe.double().mean()),
        nfe_down=float(found.solution.nfe.double().mean()),
    )
