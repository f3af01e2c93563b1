"""What can be read off a network without calling it: its precision, its device and where its weights are."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.errors import DDIMError
from ddim_ode.support.dtypes import FLOATS


def precision_of(net: nn.Module) -> torch.dtype | None:
    """The precision of the first parameters that have one that can be computed in; None if there are none."""
    for p in net.parameters():
        kind = p.dtype.to_real() if p.is_complex() else p.dtype
        if kind in FLOATS:
            return kind
    return None


def device_of(net: nn.Module, error: type[DDIMError], name: str = "net") -> torch.device | None:
    """Where a network computes: its parameters, or its buffers, are there, or accelerate's hooks bring them there.

    None if it has neither. Raises `error` for weights that were not loaded.
    """
    for hook in _hooks(net):
        if (device := getattr(hook, "execution_device", None)) is not None:
            return torch.device(device)
    if is_offloaded(net):
        raise error(f"the weights of {name} are not loaded (they are on the meta device); load them first")
    first = next(_tensors(net), None)
    return None if first is None else first.device


def is_offloaded(net: nn.Module) -> bool:
    """Whether some of the weights are elsewhere, and only brought when they are needed."""
    return any(value.is_meta for value in _tensors(net))


def check_whole(net: object, what: str, error: type[DDIMError]) -> None:
    """Raise `error` for a module whose weights are elsewhere; `what` is what cannot be done with it."""
    if isinstance(net, nn.Module) and is_offloaded(net):
        raise error(
            f"net is offloaded: its weights are not in it, so it cannot be {what}; make the Denoiser before that"
        )


def offloaded_weight(net: nn.Module, name: str) -> Tensor | None:
    """A weight that is elsewhere, by its name in the state_dict, from where accelerate's hooks have it; or None."""
    parts = name.split(".")
    for n in reversed(range(len(parts))):  # the hook of the module itself, or of one that brings all inside it
        inner, rest = net.get_submodule(".".join(parts[:n])), ".".join(parts[n:])
        for hook in _hooks_of(inner):
            weights = getattr(hook, "weights_map", None)
            if weights is not None and rest in weights:
                return torch.as_tensor(weights[rest])
    return None


def _tensors(net: nn.Module) -> Iterator[Tensor]:
    yield from net.parameters()
    yield from net.buffers()


def _hooks(net: nn.Module) -> Iterator[Any]:
    for module in net.modules():
        yield from _hooks_of(module)


def _hooks_of(module: nn.Module) -> tuple[Any, ...]:
    """What accelerate has hung on a module: one hook, or several in one."""
    hook = getattr(module, "_hf_hook", None)
    return () if hook is None else tuple(getattr(hook, "hooks", (hook,)))
