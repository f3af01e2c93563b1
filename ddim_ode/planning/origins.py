"""Whether a tuned method may run on a model: it holds for the one that it was tuned to, and says nothing of others."""

import math
from dataclasses import replace
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.fast import Fast
from ddim_ode.models.guidance import Around, Guided
from ddim_ode.models.identity import fingerprint
from ddim_ode.models.provenance import innermost
from ddim_ode.solvers import Method, MethodError
from ddim_ode.solvers.origin import Origin

ROUNDED = 1e-9  # by which another machine may have the ends of a schedule
EVERYWHERE = (0.0, math.inf)
ANEW = "tune it anew, or load it with force=True (--force)"


def check_origin(model: Model, method: Method) -> None:
    """Raise MethodError unless a tuned method is of this model, with its guidance, or forced on it.

    A network that is compiled, fast or in a finer precision is the same, and so is one at another place. Even a forced
    method must begin within the model's range of sigma.
    """
    origin = method.origin
    if origin is not None and not origin.forced:
        if digest_of(model) != origin.digest:
            raise MethodError(f"this method was tuned to another model ({_facts(origin)}); {ANEW}")
        wanted, found = (origin.guidance, _interval(origin)), guidance_of(model)
        if wanted != found:
            raise MethodError(f"this method was tuned {_words(*wanted)}, and is to run {_words(*found)}; {ANEW}")
    check_range(model.sigma_min, model.sigma_max, method)


def check_range(low: float, high: float, method: Method) -> None:
    """Raise MethodError where one of a method's own grids leaves a model's range of sigma."""
    for grid in method.grids:
        for sigma in (grid[0], grid[-2]):  # the last is 0
            if not low * (1 - ROUNDED) <= sigma <= high * (1 + ROUNDED):
                raise MethodError(
                    f"this method steps to sigma={sigma:.6g}, and the model knows {low:.6g} to {high:.6g}"
                    "; tune it to this model"
                )


def digest_of(model: Model) -> str:
    """The `fingerprint` of a model without its guidance, by its weights in float32, as `Origin.digest` is.

    A compiled, a fast or a float64 network has that of the plain one, a pipeline one whatever its prompts. It is kept
    as long as the network is there and its weights are as they were.
    """
    inner = innermost(model)
    if not isinstance(inner, Denoiser):
        return fingerprint(inner)
    net, classes = _plain(inner.net), inner.num_classes
    if isinstance(below := getattr(net, "without_prompts", None), nn.Module):
        net, classes = below, 0
    plain = inner if net is inner.net else replace(inner, net=net, num_classes=classes)
    state = _state(net)
    if state is None:
        return fingerprint(plain, torch.float32)
    key = (plain.path, plain.predicts, plain.quantize, plain.shape, plain.num_classes, state)
    known = _KNOWN.get(net)
    if known is None or known[0] != key:
        known = _KNOWN[net] = (key, fingerprint(plain, torch.float32))
    return known[1]


_KNOWN: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()


def _plain(net: Any) -> Any:
    """The network inside what is around it, such as a clock or what makes it fast."""
    while True:
        if isinstance(net, Fast):
            net = net.net
        elif not isinstance(net, nn.Module) and hasattr(net, "__wrapped__"):
            net = net.__wrapped__
        else:
            return net


def _state(net: Any) -> tuple[tuple[int, int], ...] | None:
    """What changes with any weight of a network, and costs nothing to read; None where nothing is known to."""
    if not isinstance(net, nn.Module):
        return None
    try:
        return tuple((value.data_ptr(), value._version) for value in chain(net.parameters(), net.buffers()))
    except RuntimeError:  # an inference tensor counts no versions, and others are nowhere
        return None


def guidance_of(model: Model) -> tuple[float, tuple[float, float]]:
    """The scale of a model's guidance, 1 for none, and the sigmas at which it is in force.

    Raises MethodError for guidance that is not classifier-free at one scale, which a tuned method cannot say of itself.
    """
    if not isinstance(model, Around):
        return 1.0, EVERYWHERE
    if not isinstance(model, Guided) or callable(model.scale) or model.rescale or isinstance(model.model, Around):
        kind = type(model).__name__
        raise MethodError(f"the model is a {kind}, and tuned methods are for one scale of guidance; use another method")
    return (1.0, EVERYWHERE) if model.scale == 1 else (model.scale, model.sigma_range)


def _interval(origin: Origin) -> tuple[float, float]:
    return EVERYWHERE if origin.guidance_range is None else origin.guidance_range


def _words(scale: float, interval: tuple[float, float]) -> str:
    if scale == 1:
        return "without guidance"
    low, high = interval
    where = "" if (low, high) == EVERYWHERE else f" at sigmas {low:g} to {high:g}"
    return f"with guidance={scale:g}{where}"


def _facts(origin: Origin) -> str:
    """What is known of the model that a method was tuned to."""
    low, high = origin.sigma_range
    size = " x ".join(map(str, origin.shape)) or "a number"
    classes = f"{origin.num_classes} classes" if origin.num_classes else "no classes"
    return f"{size}, {classes}, sigma {low:.3g} to {high:.6g}, digest {origin.digest[:8]}"
