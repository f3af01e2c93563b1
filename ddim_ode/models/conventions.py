"""Networks of other conventions, as the net(x, u) or net(x, u, labels) that a `Denoiser` calls.

The time u is the path's own. What a network returns is not touched but for a sign; what it means, `predicts` says.
A module stays a module, so that its precision and device can be read off it.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.functional import one_hot

from ddim_ode.continuous import VPSDE, Cosine
from ddim_ode.errors import DDIMError
from ddim_ode.paths import Flow, Noise, Path, VariancePreserving

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
            AdapterError: a network that does not say what shape it takes.
        """
        if shape is None:
            try:
                # Any callable may be a network; one without these is an AttributeError, caught below.
                shape = (net.img_channels, net.img_resolution, net.img_resolution)  # type: ignore[attr-defined]
            except AttributeError:
                raise AdapterError("net has no img_channels and img_resolution; give shape=(C, H, W)") from None
        classes = int(getattr(net, "label_dim", 0)) if num_classes is None else num_classes
        low, high = float(getattr(net, "sigma_min", 0.0)), float(getattr(net, "sigma_max", math.inf))
        path = Noise(max(sigma_min, low), min(sigma_max, high))
        return cls(_edm(net, classes), path, "data", shape, classes)

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

        Raises:
            AdapterError: a network that does not say its range of sigma.
        """
        low = getattr(net, "sigma_min", None) if sigma_min is None else sigma_min
        high = getattr(net, "sigma_max", None) if sigma_max is None else sigma_max
        if low is None or high is None:
            raise AdapterError("net has no sigma_min and sigma_max; give the range it was trained in, as in 0.01, 80")
        call = _k_diffusion(net, extra_args or {}, label_arg)
        return cls(call, Noise(float(low), float(high)), "data", shape, num_classes)

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
        if data_at not in (0, 1):
            raise AdapterError(f"data_at={data_at!r} is no end of a flow; use 0 or 1, the t at which the data are")
        low, high = noise_range
        if not 0 < low < high < 1:
            raise AdapterError(f"noise_range={noise_range} is none; give two shares of noise, 0 < low < high < 1")
        path = Flow(low / (1 - low), high / (1 - high))
        return cls(_flow(net, data_at, time_scale), path, "flow", shape, num_classes)

    @classmethod
    def from_score(
        cls: Callable[..., D], net: Net, shape: tuple[int, ...], path: Path | None = None, num_classes: int = 0
    ) -> D:
        """s(x, t) = grad log p_t(x) of an SDE (Song et al. 2021), as `get_score_fn` of its code returns.

        Args:
            path: `VPSDE` (the default) or `VESDE` with the SDE's t in [0, 1]; `Noise` of a network that takes sigma.
        """
        return cls(net, VPSDE() if path is None else path, "score", shape, num_classes)


class Adapted(nn.Module):
    """`call(net, x, u[, labels])` of a module `net`, as a module."""

    def __init__(self, net: nn.Module, call: Callable[..., Tensor]):
        super().__init__()
        self.net, self.call = net, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.net, *inputs)


def adapt(net: Net, call: Callable[..., Tensor]) -> Net:
    """net, called by `call(net, x, u[, labels])`; the call must not hold on to a network, which may be moved."""
    return Adapted(net, call) if isinstance(net, nn.Module) else partial(call, net)


def _edm(net: Net, num_classes: int) -> Net:
    """D(x, sigma, class_labels), with labels one-hot and the null class all zeros (NVlabs/edm)."""

    def call(net: Net, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            return net(x, sigma)
        return net(x, sigma, one_hot(labels, num_classes + 1)[:, :num_classes].to(x))

    return adapt(net, call)


def _k_diffusion(net: Net, extra_args: Mapping[str, Any], label_arg: str) -> Net:
    """D(x, sigma, **extra_args), with labels among them (crowsonkb/k-diffusion)."""

    def call(net: Net, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return net(x, sigma, **extra_args, **({} if labels is None else {label_arg: labels}))

    return adapt(net, call)


def _flow(net: Net, data_at: int, time_scale: float) -> Net:
    """v(x, t) = dx/dt, as eps - x0 at the share u of noise: t runs with u where the data are at 0, else against it."""

    def call(net: Net, x: Tensor, u: Tensor, *labels: Tensor) -> Tensor:
        if data_at:
            return -net(x, time_scale * (1 - u), *labels)
        return net(x, time_scale * u, *labels)

    return adapt(net, call)
