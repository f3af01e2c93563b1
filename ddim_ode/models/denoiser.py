"""What a network says about a noisy image, whatever it was trained to predict.

At x = a x0 + b eps a network outputs p x0 + q eps, with (p, q) fixed by what it predicts. Two linear
equations give both parts back:

    data  = (q x - b out) / (a q - b p)            noise = (a out - p x) / (a q - b p)
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddim_ode.errors import DDIMError
from ddim_ode.models.conventions import Conventions
from ddim_ode.models.fast import Fast
from ddim_ode.models.provenance import Provenance
from ddim_ode.paths import Path, f64

Coefficients = tuple[Tensor, Tensor]

#: what the network predicts -> (p, q) as a function of the path's (a, b)
PREDICTS: Mapping[str, Callable[[Tensor, Tensor], Coefficients]] = {
    "noise": lambda a, b: (torch.zeros_like(a), torch.ones_like(a)),
    "data": lambda a, b: (torch.ones_like(a), torch.zeros_like(a)),
    "velocity": lambda a, b: (-b, a),  # v = a eps - b x0: Salimans & Ho 2022, App. D
    "flow": lambda a, b: (-torch.ones_like(a), torch.ones_like(a)),  # eps - x0: Liu et al. 2023
    "score": lambda a, b: (torch.zeros_like(a), -1 / b),  # grad log p = -eps / b: Song et al. 2021, Eq. 7
}


class Prediction(NamedTuple):
    """The two parts of a noisy image, xbar = data + sigma noise, and what it cost to tell them apart."""

    data: Tensor
    noise: Tensor
    evaluations: int | Tensor  # network passes spent on each sample; (B,) int64 where they differ


class NonFiniteError(DDIMError):
    """The network returned NaN or infinity. `sample` is the first such index.

    Whoever catches it on the way up makes it more precise: `step`, and `sample` in the whole run.
    """

    def __init__(self, sigma: float, sample: int, step: int | None = None):
        super().__init__(sigma, sample, step)
        self.sigma, self.sample, self.step = sigma, sample, step

    def __str__(self) -> str:
        step = "" if self.step is None else f" in step {self.step}"
        return (
            f"the network's output is not finite at sigma={self.sigma:.6g} for sample {self.sample}{step}"
            "; check its weights and precision, or start at a smaller sigma"
        )


class DenoiserError(DDIMError):
    """A denoiser that cannot be."""


def check_fast(dtype: torch.dtype | None) -> None:
    """Raise DenoiserError for a precision of parameters that autocast leaves as it is (float64) or cannot mix with."""
    if dtype not in (None, torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        raise DenoiserError(f"dtype={name} and fast contradict each other: fast computes in bfloat16; leave one out")


class Model(Protocol):
    """What solvers and samplers ask of a model: a `Denoiser`, or something around one, such as `Guided`."""

    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...

    def evaluations(self, sigma: float) -> int:
        """Network passes that one prediction at sigma costs."""
        ...

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Prediction: ...


@dataclass(frozen=True)
class Denoiser(Conventions):
    """A network, the path it was trained on and what it predicts. Immutable.

    Networks of other conventions have constructors of their own: `from_edm`, `from_k_diffusion`, `from_v`, `from_flow`
    and `from_score`.

    Args:
        net: net(x, t) or, with num_classes > 0, net(x, t, labels); x (B, *shape), t (B,) times on `path`,
            labels (B,) int64 in 0..num_classes, where num_classes is the null class.
        path: the model's schedule.
        predicts: "noise", "data", "velocity", "flow" or "score".
        shape: shape of one sample, (C, H, W) for images.
        num_classes: number of labels, 0 for an unconditional model.
        quantize: round fractional timesteps to the nearest one of a discrete path.
        dtype: the network's precision; None reads it off the parameters, and a network without
            parameters gets the state's own.
        device: where a network without parameters computes; the others say so themselves.
        null_class: whether label num_classes means no condition. A model without such a label can be given no
            condition at all, and so no guidance.
        latent: whether samples are what an autoencoder makes pictures of, and no pictures themselves.
        provenance: the files it was loaded from.

    Raises:
        DenoiserError: an unknown prediction, one that the path cannot have, or a network in training mode.
    """

    net: Callable[..., Tensor]
    path: Path
    predicts: str
    shape: tuple[int, ...]
    num_classes: int = 0
    _: KW_ONLY
    quantize: bool = False
    dtype: torch.dtype | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    null_class: bool = True
    latent: bool = False
    provenance: Provenance | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTS:
            raise DenoiserError(f"predicts={self.predicts!r} is unknown; choose one of {', '.join(PREDICTS)}")
        if self.path.zero_terminal_snr and self.predicts in ("noise", "score"):
            raise DenoiserError(
                f"predicts={self.predicts!r} says nothing about the image at zero terminal SNR"
                "; leave the last alphas_cumprod out, or use a model that predicts velocity or data"
            )
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "device", torch.device(self.device))
        if not isinstance(self.net, nn.Module):
            return
        if any(m.training and (isinstance(m, _BatchNorm) or getattr(m, "p", 0) > 0) for m in self.net.modules()):
            raise DenoiserError("net is in training mode, where dropout or batch norm act; call net.eval() first")
        if (first := next(self.net.parameters(), None)) is not None:
            object.__setattr__(self, "dtype", self.dtype or first.dtype)
            object.__setattr__(self, "device", first.device)

    @property
    def sigma_min(self) -> float:
        """Smallest sigma the model was trained at."""
        return self.path.sigma_min

    @property
    def sigma_max(self) -> float:
        """Largest sigma the model was trained at."""
        return self.path.sigma_max

    def evaluations(self, sigma: float) -> int:
        """Network passes that one prediction at sigma costs."""
        return 1

    def time(self, sigma: Tensor) -> Tensor:
        """The time on the path, float64, that the network is told at sigma: within its range, rounded if `quantize`."""
        u = self.path.u(sigma.clamp(self.path.sigma_min, self.path.sigma_max))
        return u.round() if self.quantize else u

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Denoiser":
        """A copy whose network lives on another device or computes in another precision; itself if it does already.

        Raises:
            DenoiserError: the network is a plain function, which nobody can move, or a fast one for another precision.
        """
        device, dtype = torch.device(device or self.device), dtype or self.dtype
        if (device, dtype) == (self.device, self.dtype):
            return self
        if isinstance(self.net, Fast):
            check_fast(dtype)
        if isinstance(self.net, nn.Module):
            return replace(self, net=copy.deepcopy(self.net).to(device, dtype), dtype=dtype, device=device)
        if device != self.device:
            raise DenoiserError(f"net is a function; move what it calls to {device} and give Denoiser(device=...)")
        return replace(self, dtype=dtype)

    def fast(self) -> "Denoiser":
        """A copy whose network is compiled and computes in bfloat16; itself if it is one. See `models.fast.Fast`.

        What that gains and costs depends on the processor: docs/benchmarks.md.

        Raises:
            DenoiserError: the network is a plain function, or its precision is neither float32 nor bfloat16.
        """
        if isinstance(self.net, Fast):
            return self
        if not isinstance(self.net, nn.Module):
            raise DenoiserError("net is a function, of which there is nothing to compile; compile what it calls")
        check_fast(self.dtype)
        return replace(self, net=Fast(self.net))

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Prediction:
        """Predict the image and the noise in xbar = x0 + sigma eps.

        Args:
            xbar: (B, *shape), float32 or float64.
            sigma: scalar or (B,), > 0. Outside the model's range only the time label is clamped.
            labels: (B,) int64 in 0..num_classes, or None for the null class.

        Raises:
            NonFiniteError: the network returned NaN or infinity.
            DenoiserError: it returned something that has not the shape of its input, or no condition was asked of a
                model without a null class.
        """
        sigma = f64(sigma)
        u = self.time(sigma)
        a = self.path.scale(sigma)
        b = a * sigma
        p, q = PREDICTS[self.predicts](a, b)
        det = a * q - b * p

        def per_sample(c: Tensor) -> Tensor | float:
            return c.to(xbar).reshape(-1, *[1] * len(self.shape)) if c.ndim else c.item()

        x = per_sample(a) * xbar
        # Times are never rounded to half precision: 999 would become 1000 in bfloat16.
        times = torch.float64 if self.dtype is None else torch.promote_types(self.dtype, torch.float32)
        inputs = [x.to(self.dtype or x.dtype), u.to(x.device, times).expand(len(x))]
        if self.num_classes:
            if not self.null_class and (labels is None or (labels == self.num_classes).any()):
                raise DenoiserError(
                    "this model was trained with a label for every image and has no null class"
                    f"; give labels in 0..{self.num_classes - 1}, and guidance=1"
                )
            null = torch.full((len(x),), self.num_classes, device=x.device)
            inputs.append(null if labels is None else labels)
        out = self.net(*inputs)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            found = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise DenoiserError(
                f"net returned {found} for an input of shape {tuple(x.shape)}; it must return one tensor of that shape"
                " (of learned variances drop the second half of the channels, of diffusers' outputs take .sample)"
            )
        out = out.to(x.dtype)
        if not torch.isfinite(out).all():
            bad = int((~torch.isfinite(out.flatten(1)).all(dim=1)).nonzero()[0])
            raise NonFiniteError(float(sigma.expand(len(xbar))[bad]), bad)
        return Prediction(
            data=per_sample(q / det) * x - per_sample(b / det) * out,
            noise=per_sample(a / det) * out - per_sample(p / det) * x,
            evaluations=1,
        )
