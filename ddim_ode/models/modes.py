"""A network in training mode, told before it draws at random: by dropout, by batch statistics, by dropped labels.

Of a module all modules inside it are watched. What another callable runs cannot be read off it: its first call is
observed, and the modules that ran then are watched from there on. Only a function that was compiled as a whole shows
nothing of itself.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from threading import RLock, get_ident
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm

from ddim_ode.errors import DDIMError

KNOWN = ("torch.nn.", "torch._dynamo.")  # whose classes `_torch_acts` knows
#: classes of diffusers that read the mode only to lay a tensor out
HARMLESS = {
    ("diffusers.models.resnet", "ResnetBlock2D"),
    ("diffusers.models.unets.unet_dreamlite", "ResnetBlock2DDreamLite"),
}
OBSERVING = RLock()  # one first call at a time: to see what runs, the call of all modules is replaced


class Convention:
    """What calls a network by a convention of its own: call(net, x, u[, labels], **conditions)."""


class Mode:
    """Calls a network unless that is in training mode and something in it acts otherwise there.

    Args:
        name: of the network in messages.
        net: what is watched.
        error: what is raised.

    Raises:
        DDIMError: such a module in training mode; then, or when it is called.
    """

    def __init__(self, name: str, net: object, error: type[DDIMError]):
        self.name, self.error = name, error
        self.whole = module_of(net)
        self.observable = self.whole is None and not hasattr(net, "_torchdynamo_orig_callable")
        self.roots: tuple[nn.Module, ...] = ()  # whose mode is the network's
        self.modes: list[bool] | None = None  # of the roots, when it was last looked what acts
        self.watched: tuple[nn.Module, ...] = ()
        self.check()

    def check(self) -> None:
        """Raise the error if a module that is known to act is in training mode."""
        if self.whole is None:
            return
        if [root.training for root in self.roots] != self.modes:
            self._look(_chain(self.whole), self.whole.modules())
        for module in self.watched:
            if module.training:
                raise self._refusal(module)

    def __call__(self, call: Callable[..., Tensor], *inputs: Tensor, **told: Tensor) -> Tensor:
        """call(*inputs, **told), of the network that is watched or of what calls it."""
        for module in self.watched:  # a plain loop, which is the fastest at every call
            if module.training:
                break
        else:
            if [root.training for root in self.roots] == self.modes:
                return call(*inputs, **told)
        self.check()
        if self.observable and not torch.compiler.is_compiling():
            return self._observed(
                partial(call, *inputs, **told)
            )  # a function may set the mode itself, so that only its run tells
        return call(*inputs, **told)

    def _look(self, roots: Iterable[nn.Module], modules: Iterable[nn.Module]) -> None:
        """Keep which of these modules act. Again when the mode of a root has changed: layers may have been put in."""
        # What torch.jit has frozen has no mode any more.
        self.roots = tuple(root for root in roots if hasattr(root, "training"))
        self.modes = [root.training for root in self.roots]
        self.watched = tuple(module for module in modules if hasattr(module, "training") and acts(module))

    def _observed(self, call: Callable[[], Tensor]) -> Tensor:
        roots: list[nn.Module] = []
        refused: list[DDIMError] = []
        ran = {id(module): module for module in self.watched}

        def see(module: nn.Module, outermost: bool, inside: Iterable[nn.Module]) -> None:
            if outermost:
                roots.extend(_chain(module))
            for one in inside:
                ran[id(one)] = one
                if getattr(one, "training", False) and acts(one):
                    refused.append(self._refusal(one))
                    raise refused[0]

        with observed(see):
            out = call()
        if refused:  # and the network went on without it
            raise refused[0]
        self._look(dict.fromkeys(roots), ran.values())
        return out

    def _refusal(self, module: nn.Module) -> DDIMError:
        return self.error(
            f"{self.name} is in training mode, and its {type(module).__name__} reads the mode: it may draw at random"
            f"; call {self.name}.eval() first"
        )


def module_of(net: object) -> nn.Module | None:
    """The module that a network is: itself, or by its forward, in a partial, or as an adapter calls it."""
    while isinstance(net, partial):
        net = net.args[0] if isinstance(net.func, Convention) and net.args else net.func
    if isinstance(net, MethodType) and net.__name__ in ("forward", "__call__", "_wrapped_call_impl", "_call_impl"):
        net = net.__self__
    return net if isinstance(net, nn.Module) else None


@contextmanager
def observed(see: Callable[[nn.Module, bool, Iterable[nn.Module]], None]) -> Iterator[None]:
    """Within it, `see(module, outermost, inside)` before each module that is called, with the modules inside it that
    run unseen: those of one that is compiled or scripted.

    A hook for all modules would be compiled with them, and compile them twice.
    """
    with OBSERVING:
        call: Any = nn.Module.__call__
        depth, thread = 0, get_ident()

        def seen(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if torch.compiler.is_compiling() or get_ident() != thread:
                return call(module, *args, **kwargs)
            unseen = _runs_unseen(module)
            see(module, depth == 0, module.modules() if unseen else (module,))
            depth += 1
            try:
                if unseen:
                    nn.Module.__call__ = call  # type: ignore[method-assign]
                return call(module, *args, **kwargs)
            finally:
                depth -= 1
                if unseen:
                    nn.Module.__call__ = seen  # type: ignore[assignment, method-assign]

        nn.Module.__call__ = seen  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = call  # type: ignore[method-assign]


def _runs_unseen(module: nn.Module) -> bool:
    compiled = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
    return compiled or isinstance(module, torch.jit.ScriptModule | nn.DataParallel)


def _chain(module: nn.Module) -> tuple[nn.Module, ...]:
    """A module and, where it is only around another, that one and so on: its mode is set without what is around it."""
    found = [module]
    while len(inside := [part for part in found[-1]._modules.values() if part is not None]) == 1:
        found += inside
    return tuple(found)


# --- what acts otherwise in training mode


def acts(module: nn.Module) -> bool:
    """Whether a module computes otherwise in training mode, or may: torch's own are known, others read the mode."""
    if _torch_acts(module) or isinstance(module, torch.jit.ScriptModule):
        return True
    kind: Any = type(module)  # Any, since a class is hashable, which mypy does not believe of one with a metaclass
    own = inspect.unwrap(module.__dict__.get("forward", kind.forward))  # accelerate wraps that of the class
    own = getattr(own, "__func__", own)
    reads = _forward_reads(kind) if own is inspect.unwrap(kind.forward) else _reading([own])
    if getattr(module, "gradient_checkpointing", None) is False and kind.__module__.startswith("diffusers."):
        reads = reads - {True}
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return bool(reads) or bool(_reading(hook if _is_function(hook) else type(hook).__call__ for hook in hooks))


def _torch_acts(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    if isinstance(module, _InstanceNorm):
        return bool(module.track_running_stats)
    if isinstance(module, nn.RReLU):
        return module.lower < module.upper
    return isinstance(module, _BatchNorm | _SpectralNorm)


@lru_cache(4096)
def _forward_reads(kind: Any) -> frozenset[bool]:
    """`_reading` of a class's forward, those that it calls by super() included, and of the methods that these call."""
    if (kind.__module__, kind.__name__) in HARMLESS:
        return frozenset()
    calls: list[Any] = []
    for parent in kind.__mro__:
        if parent.__module__.startswith(KNOWN):
            break
        if "forward" in vars(parent):
            calls.append(vars(parent)["forward"])
            if "super" not in _names(calls[-1]):
                break
    named = {name for call in calls for name in _names(call)} - {"forward", "train", "eval"}
    methods = [inspect.getattr_static(kind, name, None) for name in sorted(named)]
    return _reading(calls + [m for m in methods if not str(getattr(m, "__module__", "")).startswith(KNOWN)])


def _reading(calls: Iterable[Any]) -> frozenset[bool]:
    """Of each piece of code that reads `training`: whether `gradient_checkpointing` is read beside it."""
    found = set()
    for code in (code for call in calls for code in _codes(call)):
        by_name = "training" in code.co_consts and "getattr" in code.co_names
        if by_name or "training" in code.co_names:
            found.add("gradient_checkpointing" in code.co_names)
    return frozenset(found)


def _names(call: Any) -> set[str]:
    return {name for code in _codes(call) for name in code.co_names}


def _codes(call: Any) -> list[CodeType]:
    """The code of a function, a method or a property, and of the functions in it; of anything else none."""
    call = call.fget if isinstance(call, property) else getattr(call, "__func__", call)
    found = [getattr(inspect.unwrap(call), "__code__", None)] if callable(call) else []
    codes = [code for code in found if isinstance(code, CodeType)]
    for code in codes:  # which grows
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return codes


def _is_function(value: object) -> bool:
    return isinstance(value, FunctionType | MethodType)
