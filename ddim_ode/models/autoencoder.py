"""Between images and what a latent diffusion model denoises (Rombach et al. 2022, Sec. 3.1):

    z = scale (encoder(x) - shift),        x = decoder(z / scale + shift).

A `Denoiser` of latents samples, encodes and reconstructs z as any other does images. Those are not this library's
`Latent`s, which are where the probability flow takes an image, or a z, to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.data import to_float
from ddim_ode.errors import DDIMError


class AutoencoderError(DDIMError):
    """An autoencoder that does not say how it is to be used."""


@dataclass(frozen=True)
class Autoencoder:
    """An encoder and a decoder, with the scale and the shift that make z about standard normal.

    Args:
        encoder: (B, C, H, W) images in [-1, 1] -> (B, c, h, w).
        decoder: the way back.
        scale, shift: see above.
        batch_size: images at once.
        dtype, device: of what both are given.
    """

    encoder: Callable[[Tensor], Tensor]
    decoder: Callable[[Tensor], Tensor]
    scale: float = 1.0
    shift: float = 0.0
    batch_size: int = 8
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def to_latent(self, images: Tensor) -> Tensor:
        """(B, c, h, w) z of images (B, C, H, W) in [-1, 1], or of their bytes as uint8; float32 or wider."""
        x = to_float(images) if images.dtype == torch.uint8 else images
        return (self._each(self.encoder, x) - self.shift) * self.scale

    def to_image(self, z: Tensor) -> Tensor:
        """(B, C, H, W) images in [-1, 1], not clipped, of z (B, c, h, w); float32 or wider."""
        return self._each(self.decoder, z / self.scale + self.shift)

    def _each(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [call(part.to(self.device, self.dtype)) for part in x.split(self.batch_size)]
        return torch.cat(parts).to(torch.promote_types(x.dtype, torch.float32))

    @classmethod
    def from_diffusers(cls, vae: nn.Module, batch_size: int = 8) -> "Autoencoder":
        """An `AutoencoderKL` or a `VQModel` of diffusers, with its scaling_factor and shift_factor.

        An image's z is the mean of the posterior, so that it is the same every time.

        Raises:
            AutoencoderError: latents that are normalised by channel, or no scaling_factor.
        """
        config: Any = vae.config
        if getattr(config, "latents_mean", None) is not None or getattr(config, "latents_std", None) is not None:
            raise AutoencoderError("this autoencoder has latents_mean and latents_std; give Autoencoder the two itself")
        scale, shift = getattr(config, "scaling_factor", None), getattr(config, "shift_factor", None)
        if scale is None:
            raise AutoencoderError(f"{type(vae).__name__} has no scaling_factor; use Autoencoder(..., scale=...)")
        first = next(vae.parameters())

        # To a type checker the methods of an nn.Module may be tensors: hence the two silencers.
        def encoder(x: Tensor) -> Tensor:
            found = vae.encode(x)  # type: ignore[operator]
            return found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents

        def decoder(z: Tensor) -> Tensor:
            return vae.decode(z).sample  # type: ignore[operator]

        return cls(encoder, decoder, scale, shift or 0.0, batch_size, first.dtype, first.device)
