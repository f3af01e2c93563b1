"""Between images and what a latent diffusion model denoises (Rombach et al. 2022, Sec. 3.1):

    z = scale (encoder(x) - shift),        x = decoder(z / scale + shift).

A `Denoiser` of latents samples, encodes and reconstructs z as any other does images. Those are not this library's
`Latent`s, which are where the probability flow takes an image, or a z, to.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.data import to_float
from ddim_ode.errors import DDIMError
from ddim_ode.models.arguments import check_net, place, precision
from ddim_ode.models.modes import Mode
from ddim_ode.models.networks import device_of, is_offloaded, precision_of
from ddim_ode.support.checks import of_kind, real, whole
from ddim_ode.support.dtypes import FLOATS
from ddim_ode.support.tables import is_readable

MOST = sys.float_info.max
LARGEST = 10.0  # that a value of an image can be and still be meant to lie in [-1, 1]


class AutoencoderError(DDIMError):
    """An autoencoder that does not say how it is to be used, or what it cannot be used with; or it overflowed."""


@dataclass(frozen=True)
class Autoencoder:
    """An encoder and a decoder, with the scale and the shift that make z about standard normal.

    Args:
        encoder: (B, C, H, W) images in [-1, 1] -> (B, c, h, w).
        decoder: the way back.
        scale, shift: see above.
        batch_size: images at once.
        dtype, device: of what both are given.

    Raises:
        AutoencoderError: a number that cannot be, or an encoder or decoder in training mode, then or when it is called.
        ArgumentError: an argument of another kind.
    """

    encoder: Callable[[Tensor], Tensor]
    decoder: Callable[[Tensor], Tensor]
    scale: float = 1.0
    shift: float = 0.0
    batch_size: int = 8
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    _: KW_ONLY
    _modes: dict[str, Mode] = field(init=False, compare=False, repr=False)  # of the two

    def __post_init__(self) -> None:
        check_net(self.encoder, "encoder")
        check_net(self.decoder, "decoder")
        if not real("scale", self.scale, AutoencoderError, -MOST, MOST, "0.18215"):
            raise AutoencoderError("scale=0 leaves nothing of a latent; give a number such as 0.18215")
        real("shift", self.shift, AutoencoderError, -MOST, MOST, "0.0")
        whole("batch_size", self.batch_size, AutoencoderError)
        precision(self.dtype, AutoencoderError)
        place(self.device, AutoencoderError)
        both = {"encoder": self.encoder, "decoder": self.decoder}
        modes = {name: Mode("the autoencoder", _watched(call), AutoencoderError) for name, call in both.items()}
        object.__setattr__(self, "_modes", modes)

    def to_latent(self, images: Tensor) -> Tensor:
        """(B, c, h, w) z of images (B, C, H, W) in [-1, 1], or of their bytes as uint8; float32 or wider.

        Raises:
            AutoencoderError: no such images, or z that is not finite.
        """
        _check_batch("images", images, "images (B, C, H, W) in [-1, 1], or their bytes as torch.uint8")
        if images.dtype == torch.uint8:
            x = to_float(images)
        else:
            x = _finite("images", images)
            if (largest := float(x.abs().max())) > LARGEST:
                raise AutoencoderError(f"images reach {largest:g}, and lie in [-1, 1]; give bytes as torch.uint8")
        return (self._each("encoder", self.encoder, x) - self.shift) * self.scale

    def to_image(self, z: Tensor) -> Tensor:
        """(B, C, H, W) images in [-1, 1], not clipped, of z (B, c, h, w); float32 or wider.

        Raises:
            AutoencoderError: no such z, or images that are not finite.
        """
        _check_batch("z", z, "latents (B, c, h, w), as sample(...).x is for a model of latents")
        return self._each("decoder", self.decoder, _finite("z", z) / self.scale + self.shift)

    def _each(self, name: str, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        with torch.no_grad():
            for part in x.split(self.batch_size):
                out = self._modes[name](call, part.to(self.device, self.dtype))
                if not isinstance(out, Tensor) or len(out) != len(part):
                    found = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
                    raise AutoencoderError(
                        f"the {name} returned {found} for {len(part)} samples; it must return a tensor"
                    )
                parts.append(out)
        joined = torch.cat(parts)
        if (bad := _first_not_finite(joined)) is not None:
            kind = str(self.dtype).removeprefix("torch.")
            wider = "give dtype=torch.float32, since float16 ends at 65504, or " if self.dtype == torch.float16 else ""
            raise AutoencoderError(
                f"the {name}'s output is not finite for sample {bad}, in {kind}; {wider}check its weights"
            )
        return joined.to(torch.promote_types(x.dtype, torch.float32))

    @classmethod
    def from_diffusers(cls, vae: nn.Module, batch_size: int = 8, dtype: torch.dtype | None = None) -> "Autoencoder":
        """An `AutoencoderKL` or a `VQModel` of diffusers, with its scaling_factor and shift_factor.

        An image's z is the mean of the posterior, so that it is the same every time.

        Args:
            dtype: what to compute in. None is the vae's own, but float32 of one in float16 whose config says
                force_upcast. Where it is another than the vae's own, a copy computes, which is made at the first call,
                and again whenever the vae has changed by then: the vae itself stays as it is.

        Raises:
            AutoencoderError: latents that are normalised by channel, no scaling_factor, training mode, weights that
                are not loaded, or that are elsewhere and so cannot be copied.
            ArgumentError: no autoencoder of diffusers.
        """
        of_kind("vae", vae, nn.Module, "an AutoencoderKL or a VQModel of diffusers")
        config: Any = getattr(vae, "config", None)
        if getattr(config, "latents_mean", None) is not None or getattr(config, "latents_std", None) is not None:
            raise AutoencoderError("this autoencoder has latents_mean and latents_std; give Autoencoder the two itself")
        scale, shift = getattr(config, "scaling_factor", None), getattr(config, "shift_factor", None)
        if scale is None:
            raise AutoencoderError(f"{type(vae).__name__} has no scaling_factor; use Autoencoder(..., scale=...)")
        Mode("vae", vae, AutoencoderError)
        device = device_of(vae, AutoencoderError, "vae") or torch.device("cpu")
        own, away = precision_of(vae) or torch.float32, is_offloaded(vae)
        if dtype is None:
            upcast = own == torch.float16 and getattr(config, "force_upcast", None) is True and not away
            dtype = torch.float32 if upcast else own
        elif precision(dtype, AutoencoderError) != own and away:
            raise AutoencoderError(
                f"vae is offloaded: its weights are not in it, so it cannot be copied to {dtype}; leave dtype out"
            )
        coder = Coder(vae, None if dtype == own else dtype)
        return cls(coder.encode, coder.decode, scale, shift or 0.0, batch_size, dtype, device)


class Coder:
    """An autoencoder of diffusers as two functions, which compute on a copy of it where `dtype` is given."""

    def __init__(self, vae: nn.Module, dtype: torch.dtype | None):
        self.vae, self.dtype = vae, dtype
        self._copy: tuple[list[Any], nn.Module] | None = None  # with the state of what it is a copy of

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the posterior, or what is about to be quantised."""
        found = self._net().encode(x)
        latent: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return latent

    def decode(self, z: Tensor) -> Tensor:
        """The image."""
        image: Tensor = self._net().decode(z).sample
        return image

    def _net(self) -> Any:
        if self.dtype is None:
            return self.vae
        state = _state(self.vae)
        if self._copy is None or self._copy[0] != state:
            self._copy = state, nn.Module.to(copy.deepcopy(self.vae), self.dtype)  # theirs warns of every cast
        return self._copy[1]


def _state(net: nn.Module) -> list[Any]:
    """What is another list once weights, layers or settings such as tiling have changed; the weights are not read."""
    found: list[Any] = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in _tensors(net)]
    for module in net.modules():
        found += [(key, value) for key, value in vars(module).items() if isinstance(value, bool | int | float | str)]
    return found


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


def _watched(call: Callable[[Tensor], Tensor]) -> object:
    """What may be in training mode: of a `Coder` its autoencoder as a whole."""
    owner = getattr(call, "__self__", None)
    return owner.vae if isinstance(owner, Coder) else call


def _check_batch(name: str, x: object, give: str) -> None:
    of_kind(name, x, Tensor, give)
    assert isinstance(x, Tensor)
    if not is_readable(x) or (x.is_floating_point() and x.dtype not in FLOATS):
        raise AutoencoderError(f"{name} is a tensor whose numbers cannot be read; give a dense one")
    if x.ndim < 2 or not x.numel():
        raise AutoencoderError(f"{name} has shape {tuple(x.shape)}; give {give}, and one at least")
    if not x.is_floating_point() and (name == "z" or x.dtype != torch.uint8):
        raise AutoencoderError(f"{name} is {x.dtype}; give floats: {give}")


def _finite(name: str, x: Tensor) -> Tensor:
    """x itself. Raises AutoencoderError if it holds NaN or infinity."""
    if (bad := _first_not_finite(x)) is not None:
        raise AutoencoderError(f"{name}[{bad}] holds NaN or infinity")
    return x


def _first_not_finite(x: Tensor) -> int | None:
    """The first sample that holds NaN or infinity."""
    wrong = ~torch.isfinite(x.flatten(1)).all(1)
    return int(wrong.nonzero()[0]) if wrong.any() else None
