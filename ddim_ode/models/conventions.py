"""Networks of other conventions, as the net(x, u) or net(x, u, labels) that a `Denoiser` calls.

The time u is the path's own. What a network returns is not touched but for a sign; what it means, `predicts` says.
A module stays a module, so that its precision and device can be read off it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.functional import one_hot

from ddim_ode.continuous import VPSDE, Cosine
from ddim_ode.errors import DDIMError
from ddim_ode.models.arguments import check_net
from ddim_ode.models.modes import Convention
from ddim_ode.paths import Flow, Noise, Path, VariancePreserving
from ddim_ode.support.checks import of_kind, real, shown, whole
from ddim_ode.support.scalars import number

Net = Callable[..., Tensor]
D = TypeVar("D")


class AdapterError(DDIMError):
    """A network that does not say, or contradicts, what its convention leaves open."""


class Conventions:
    """The constructors of `Denoiser` for networks of other conventions."""

    @classmethod
    def from_edm(
        cls: Callable[..., D],
        net: Net,
        shape: tuple[int, ...] | None = None,
        *,
        num_classes: int | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> D:
        """D(x, sigma) -> x0 or, with classes, D(x, sigma, one_hot), as in EDM's code (Karras et al. 2022, Eq. 7).

        The null class is a one_hot of zeros. What is None is read off net.img_channels, net.img_resolution and
        net.label_dim; net.sigma_min and net.sigma_max, where there are any, narrow the range of sigma.

        Raises:
            AdapterError: a network that does not say what shape it takes, or a range of sigma that is none.
        """
        check_net(net)
        if shape is None:
            try:
                # Any callable may be a network; one without these is an AttributeError, caught below.
                shape = (net.img_channels, net.img_resolution, net.img_resolution)  # type: ignore[attr-defined]
            except AttributeError:
                raise AdapterError("net has no img_channels and img_resolution; give shape=(C, H, W)") from None
        given = "net.label_dim" if num_classes is None else "num_classes"
        classes = whole(given, getattr(net, "label_dim", 0) if num_classes is None else num_classes, AdapterError, 0)
        low = real("net.sigma_min", getattr(net, "sigma_min", 0.0), AdapterError, 0, math.inf, "0.002")
        high = real("net.sigma_max", getattr(net, "sigma_max", math.inf), AdapterError, 0, math.inf, "80")
        least, most = _range(sigma_min, sigma_max)
        path = Noise(*_range(max(least, low), min(most, high)))
        return cls(adapt(net, EDMCall(classes)), path, "data", shape, classes)

    @classmethod
    def from_k_diffusion(
        cls: Callable[..., D],
        net: Net,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        extra_args: Mapping[str, Any] | None = None,
        label_arg: str = "class_cond",
    ) -> D:
        """D(x, sigma, **extra_args) -> x0, as in k-diffusion, labels among them as `label_arg`.

        Args:
            sigma_min, sigma_max: read off the network, as its wrappers of discrete schedules have them, where None.
            extra_args: given to every call; they must fit any batch size.
            label_arg: the name of the argument that takes labels.

        Raises:
            AdapterError: a network that does not say its range of sigma, a range that is none, or labels given twice.
        """
        check_net(net)
        of_kind("label_arg", label_arg, str, "the name of an argument, such as 'class_cond'")
        if extra_args is not None:
            of_kind("extra_args", extra_args, Mapping, "a dict of arguments by name")
        given = dict(extra_args or {})
        for name in (label_arg, *given):
            of_kind("a name in extra_args", name, str, "names of arguments")
            if not name.isidentifier():
                raise AdapterError(f"{shown(name)} is no name of an argument; give one such as 'class_cond'")
        if label_arg in given and num_classes:
            raise AdapterError(f"extra_args has {label_arg!r}, which takes the labels; leave it out")
        low = getattr(net, "sigma_min", None) if sigma_min is None else sigma_min
        high = getattr(net, "sigma_max", None) if sigma_max is None else sigma_max
        if low is None or high is None:
            raise AdapterError("net has no sigma_min and sigma_max; give the range it was trained in, as in 0.01, 80")
        path = Noise(*_range(low, high))
        return cls(adapt(net, KDiffusionCall(given, label_arg)), path, "data", shape, num_classes)

    @classmethod
    def from_v(
        cls: Callable[..., D], net: Net, shape: tuple[int, ...], path: Path | None = None, num_classes: int = 0
    ) -> D:
        """v(x, t) = a eps - b x0 on a variance-preserving path (Salimans & Ho 2022, App. D).

        Args:
            path: `DiscreteVP` (t in 0..T-1), `VPSDE` or `Cosine` (t in [0, 1], the default); t is the path's time.

        Raises:
            AdapterError: a path on which a^2 + b^2 is not 1.
        """
        check_net(net)
        path = Cosine() if path is None else path
        if not isinstance(path, VariancePreserving):
            raise AdapterError(
                f"v-prediction needs a variance-preserving path, not {type(path).__name__}; use from_flow"
            )
        return cls(net, path, "velocity", shape, num_classes)

    @classmethod
    def from_flow(
        cls: Callable[..., D],
        net: Net,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        data_at: int = 0,
        time_scale: float = 1.0,
        noise_range: tuple[float, float] = (1e-3, 1 - 1e-3),
    ) -> D:
        """v(x, t) = dx/dt along a straight line between data and noise (Liu et al. 2023; Lipman et al. 2023).

        Args:
            data_at: 0 for x = (1 - t) x0 + t eps and v = eps - x0, as Stable Diffusion 3 and Flux have it; 1 for
                x = t x0 + (1 - t) eps and v = x0 - eps, as in the papers.
            time_scale: what the network calls 1: it is given time_scale times t.
            noise_range: the least and the largest share of noise in x, at the ends of sampling. At 0 there is no noise
                to see, and at 1 no image.

        Raises:
            AdapterError: data_at is neither, or the range is empty.
        """
        check_net(net)
        if number(data_at) not in (0, 1):
            raise AdapterError(f"data_at={shown(data_at)} is no end of a flow; use 0 or 1, the t at which the data are")
        if not 0 < (factor := real("time_scale", time_scale, AdapterError, 0, math.inf, "1000")) < math.inf:
            raise AdapterError(f"time_scale={factor:g} is none; give what the network calls 1, such as 1000")
        try:
            low, high = map(number, noise_range)
        except (TypeError, ValueError):
            low = high = math.nan
        if not 0 < low < high < 1:
            raise AdapterError(
                f"noise_range={shown(noise_range)} is none; give two shares of noise, 0 < low < high < 1"
            )
        path = Flow(low / (1 - low), high / (1 - high))
        return cls(adapt(net, FlowCall(int(data_at), factor)), path, "flow", shape, num_classes)

    @classmethod
    def from_score(
        cls: Callable[..., D], net: Net, shape: tuple[int, ...], path: Path | None = None, num_classes: int = 0
    ) -> D:
        """s(x, t) = grad log p_t(x) of an SDE (Song et al. 2021), as `get_score_fn` of its code returns.

        Args:
            path: `VPSDE` (the default) or `VESDE` with the SDE's t in [0, 1]; `Noise` of a network that takes sigma.
        """
        check_net(net)
        return cls(net, VPSDE() if path is None else path, "score", shape, num_classes)


class Adapted(nn.Module):
    """`call(net, x, u[, labels], **conditions)` of a module `net`, as a module."""

    def __init__(self, net: nn.Module, call: Callable[..., Tensor]):
        super().__init__()
        self.net, self.call = net, call

    def forward(self, *inputs: Tensor, **told: Tensor) -> Tensor:
        return self.call(self.net, *inputs, **told)


def adapt(net: Net, call: Callable[..., Tensor]) -> Net:
    """net, called by `call(net, x, u[, labels], **conditions)`.

    The call must not hold on to a network, which may be moved.
    """
    return Adapted(net, call) if isinstance(net, nn.Module) else partial(call, net)


@dataclass(frozen=True)
class EDMCall(Convention):
    """D(x, sigma, class_labels), with labels one-hot and the null class all zeros (NVlabs/edm)."""

    num_classes: int

    def __call__(self, net: Net, x: Tensor, sigma: Tensor, labels: Tensor | None = None, **told: Tensor) -> Tensor:
        if labels is None:
            return net(x, sigma, **told)
        return net(x, sigma, one_hot(labels, self.num_classes + 1)[:, : self.num_classes].to(x), **told)


@dataclass(frozen=True)
class KDiffusionCall(Convention):
    """D(x, sigma, **extra_args), with labels among them (crowsonkb/k-diffusion)."""

    extra_args: Mapping[str, Any]
    label_arg: str

    def __call__(self, net: Net, x: Tensor, sigma: Tensor, labels: Tensor | None = None, **told: Tensor) -> Tensor:
        return net(x, sigma, **self.extra_args, **({} if labels is None else {self.label_arg: labels}), **told)


@dataclass(frozen=True)
class FlowCall(Convention):
    """v(x, t) = dx/dt, as eps - x0 at the share u of noise: t runs with u where the data are at 0, else against it."""

    data_at: int
    time_scale: float

    def __call__(self, net: Net, x: Tensor, u: Tensor, *labels: Tensor, **told: Tensor) -> Tensor:
        if self.data_at:
            return -net(x, self.time_scale * (1 - u), *labels, **told)
        return net(x, self.time_scale * u, *labels, **told)


def _range(low: Any, high: Any) -> tuple[float, float]:
    """A range of sigma as floats. Raises AdapterError unless 0 < low < high."""
    low = real("sigma_min", low, AdapterError, 0, math.inf, "0.002")
    high = real("sigma_max", high, AdapterError, 0, math.inf, "80")
    if not 0 < low < high < math.inf:
        raise AdapterError(
            f"sigma_min={low:g} and sigma_max={high:g} are no range; give finite numbers, 0 < sigma_min < sigma_max"
        )
    return low, high
