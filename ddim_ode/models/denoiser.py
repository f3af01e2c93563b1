"""What a network says about a noisy image, whatever it was trained to predict: the image in it, and the noise, by two
linear equations (see `equations`).
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ddim_ode.errors import DDIMError, one_line
from ddim_ode.models import arguments
from ddim_ode.models.conditions import Told, keywords, labels_of
from ddim_ode.models.conventions import Conventions
from ddim_ode.models.equations import AT_ZERO, PREDICTS, difference, equations, time_at
from ddim_ode.models.failures import NonFiniteError as NonFiniteError
from ddim_ode.models.failures import advise, check_answer, check_finite, lacks_null_class, misunderstood
from ddim_ode.models.fast import Fast
from ddim_ode.models.modes import Mode
from ddim_ode.models.networks import check_whole, device_of, precision_of
from ddim_ode.models.provenance import Provenance
from ddim_ode.paths import Path
from ddim_ode.support.checks import flag, of_kind, whole
from ddim_ode.support.waiting import below, sent


class Prediction(NamedTuple):
    """The two parts of a noisy image, xbar = data + sigma noise, and what it cost to tell them apart."""

    data: Tensor
    noise: Tensor
    evaluations: int | Tensor  # network passes spent on each sample; (B,) int64 where they differ


class DenoiserError(DDIMError):
    """A denoiser that cannot be."""


def check_fast(dtype: torch.dtype | None) -> None:
    """Raise DenoiserError for a precision of parameters that autocast leaves as it is (float64) or cannot mix with."""
    if dtype not in (None, torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        raise DenoiserError(
            f"dtype={name} and fast contradict each other: fast takes float32 or bfloat16; leave one out"
        )


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

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction: ...


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
        quantize: round fractional timesteps to the nearest one of a discrete path. True gives them as floats, "int" as
            int64, for a network that looks its time up in a table.
        dtype: the network's precision; None reads it off the parameters, and a network without
            parameters gets the state's own. Times come in it too, in float32 at least.
        device: where a network without parameters computes; the others say so themselves, and those whose weights
            accelerate keeps elsewhere compute where it brings them.
        null_class: whether label num_classes means no condition. A model without such a label can be given no
            condition at all, and so no guidance.
        latent: whether samples are what an autoencoder makes pictures of, and no pictures themselves.
        provenance: the files it was loaded from.

    Raises:
        DenoiserError: an unknown prediction, one that the path cannot have, a network in training mode (then or when it
            is called) or without its weights, a shape, a number of classes, a precision or a device that cannot be.
        ArgumentError: an argument of another kind.
    """

    net: Callable[..., Tensor]
    path: Path
    predicts: str
    shape: tuple[int, ...]
    num_classes: int = 0
    _: KW_ONLY
    quantize: bool | Literal["int"] = False
    dtype: torch.dtype | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    null_class: bool = True
    latent: bool = False
    provenance: Provenance | None = field(default=None, compare=False, repr=False)
    _mode: Mode = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        arguments.check_net(self.net)
        of_kind("path", self.path, Path, "one such as ddim_ode.paths.DiscreteVP.linear()")
        of_kind("predicts", self.predicts, str, f"one of {', '.join(PREDICTS)}")
        if self.predicts not in PREDICTS:
            raise DenoiserError(f"predicts={self.predicts!r} is unknown; choose one of {', '.join(PREDICTS)}")
        if self.path.zero_terminal_snr and self.predicts in ("noise", "score"):
            raise DenoiserError(
                f"predicts={self.predicts!r} says nothing about the image at zero terminal SNR"
                "; leave the last alphas_cumprod out, or use a model that predicts velocity or data"
            )
        if self.provenance is not None:
            of_kind("provenance", self.provenance, Provenance, "that of a loaded model, or leave it out")
        found = None if self.dtype is None else arguments.precision(self.dtype, DenoiserError)
        device = arguments.place(self.device, DenoiserError)
        if isinstance(self.net, nn.Module):
            found = found or precision_of(self.net)
            device = device_of(self.net, DenoiserError) or device
        checked = {
            "shape": arguments.sample_shape(self.shape, DenoiserError),
            "num_classes": whole("num_classes", self.num_classes, DenoiserError, least=0),
            "quantize": arguments.rounding(self.quantize, self.path, DenoiserError),
            "null_class": flag("null_class", self.null_class),
            "latent": flag("latent", self.latent),
            "dtype": found,
            "device": device,
            "_mode": Mode("net", self.net, DenoiserError),  # asked at every call: training may go on
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

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
        return time_at(self.path, sigma, bool(self.quantize))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Denoiser":
        """A copy whose network lives on another device or computes in another precision; itself if it does already.

        Raises:
            DenoiserError: the network is a plain function or offloaded, which nobody can move, or a fast one for
                another precision; a precision or a device that cannot be.
        """
        device = self.device if device is None else arguments.place(device, DenoiserError)
        dtype = self.dtype if dtype is None else arguments.precision(dtype, DenoiserError)
        if (device, dtype) == (self.device, self.dtype):
            return self
        check_whole(self.net, "moved", DenoiserError)
        if isinstance(self.net, Fast):
            check_fast(dtype)
        if isinstance(self.net, nn.Module):
            arguments.present(device, DenoiserError)
            return replace(self, net=copy.deepcopy(self.net).to(device, dtype), dtype=dtype, device=device)
        if device != self.device:
            raise DenoiserError(f"net is a function; move what it calls to {device} and give Denoiser(device=...)")
        return replace(self, dtype=dtype)

    def fast(self) -> "Denoiser":
        """A copy whose network, a copy too, is compiled and computes in less precision where the hardware gains by it:
        mostly in bfloat16. Itself if it is one. See `models.fast.Fast`.

        What that is, gains and costs depends on the hardware: docs/benchmarks.md. The first calls take a minute, and
        compare the answers with those of the network as it is.

        Raises:
            DenoiserError: the network is a plain function or offloaded, computes in neither float32 nor bfloat16, or
                holds what copy.deepcopy cannot copy.
        """
        if isinstance(self.net, Fast):
            return self
        if not isinstance(self.net, nn.Module):
            raise DenoiserError("net is a function, of which there is nothing to compile; compile what it calls")
        check_fast(self.dtype)
        check_whole(self.net, "compiled", DenoiserError)
        try:
            net = Fast(self.net)
        except TypeError as error:
            raise DenoiserError(
                f"net cannot be copied ({one_line(str(error), 200)}), and fast compiles a copy; take that out of it"
            ) from error
        return replace(self, net=net)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        """Predict the image and the noise in xbar = x0 + sigma eps.

        Args:
            xbar: (B, *shape), float32 or float64.
            sigma: scalar or (B,), > 0, or 0 where noise, velocity or flow is predicted. Outside the model's range only
                the time label is clamped.
            labels: (B,) int64 in 0..num_classes, or None for the null class; ignored without classes. Or `Conditions`,
                whose tensors the network takes as keywords.

        Raises:
            NonFiniteError: the network returned NaN or infinity.
            DenoiserError: it returned something that has not the shape of its input, no condition was asked of a model
                without a null class, or an argument has another shape or range; the network is in training mode.
            ArgumentError: an argument of another kind.
        """
        arguments.check_state(xbar, self.shape, DenoiserError)
        sigma = arguments.noise_level(sigma, len(xbar), DenoiserError, zero=self.predicts in AT_ZERO)
        at = equations(self.path, self.predicts, bool(self.quantize), sigma, xbar)
        x = at.scale * xbar
        dtype = self.dtype or x.dtype  # of times float32 at least: 999 would become 1000 in bfloat16
        times = torch.int64 if self.quantize == "int" else torch.promote_types(dtype, torch.float32)
        inputs = [x.to(dtype), _each(at.time, len(x), times, x.device)]
        if self.num_classes:
            inputs.append(self._condition(labels_of(labels), x))
        out = self._ask(inputs, keywords(labels, x, dtype)).to(x)
        check_finite(out, sigma)
        return Prediction(
            data=difference(at.data_x, x, at.data_out, out),
            noise=difference(at.noise_out, out, at.noise_x, x),
            evaluations=1,
        )

    def _condition(self, labels: Tensor | None, x: Tensor) -> Tensor:
        """The labels that the network is given. Raises DenoiserError for no condition where there is no null class."""
        if labels is not None:
            labels = arguments.class_labels(labels, len(x), self.num_classes, DenoiserError)
        if not self.null_class and (labels is None or not below((labels == self.num_classes).sum(), 1)):
            raise DenoiserError(
                "this model was trained with a label for every image and has no null class"
                f"; give labels in 0..{self.num_classes - 1}, and guidance=1"
            )
        return torch.full((len(x),), self.num_classes, device=x.device) if labels is None else labels

    def _ask(self, inputs: list[Tensor], told: Mapping[str, Tensor]) -> Tensor:
        """What the network returns. Raises DenoiserError for another shape; the network's own errors stay its own."""
        try:
            out = self._mode(self.net, *inputs, **told)
        except (IndexError, TypeError, RuntimeError) as error:
            if self.num_classes and lacks_null_class(error, self.net, inputs[2], self.num_classes):
                raise DenoiserError(
                    f"this network may have no embedding for the null class, label {self.num_classes}"
                    f"; give null_class=False, and labels in 0..{self.num_classes - 1} without guidance"
                ) from error
            if message := misunderstood(error, told):
                raise DenoiserError(message) from error
            if self.path.num_timesteps:
                advise(error, inputs[1])
            raise
        return check_answer(out, inputs[0], DenoiserError)


def _each(value: Tensor | float, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number, or one a sample, as (count,) there, without a copy from the CPU where that is not needed."""
    if isinstance(value, Tensor):
        return sent(value, device, dtype).expand(count)
    return torch.full((count,), value, dtype=dtype, device=device)
