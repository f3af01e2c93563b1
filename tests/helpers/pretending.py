"""A GPU that is not there: tensors that say they are on one and are computed with on the CPU, and who waits for them.

What makes a program wait for a GPU is to ask for a number (`item`, `bool`, `float`), to copy to the CPU, or from there
unless the copy is said not to block, or to pick elements by a mask, of which nobody else knows how many there are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

GPU, CPU = torch.device("lazy:0"), torch.device("cpu")
ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")


class OnGPU(Tensor):
    """A tensor that says that it is on the GPU; `held` is where it is."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGPU":
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=GPU, requires_grad=False
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} outside of `pretended`")


class Pretended(TorchDispatchMode):
    """Computes, and keeps the names of the operations that would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in flat((args, kwargs)) if isinstance(x, Tensor)]
        on_gpu = any(isinstance(x, OnGPU) for x in given)
        to = kwargs.get("device")
        if to is not None:
            kwargs["device"] = CPU
        name = function.overloadpacket.__name__
        if on_gpu and (any(name.startswith(word) for word in ASKS) or masked(name, args)):
            self.waits.append(name)
        if on_gpu and to is not None and torch.device(to).type == "cpu":
            self.waits.append(f"{name} to the CPU")
        if given and not on_gpu and to is not None and torch.device(to).type == GPU.type:
            self.waits += [] if kwargs.get("non_blocking") else [f"{name} to the GPU"]
        found = function(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
        if name == "copy_" and isinstance(args[0], OnGPU):
            return args[0]
        there = on_gpu if to is None else torch.device(to).type == GPU.type
        return tree_map(lambda x: OnGPU(x) if isinstance(x, Tensor) else x, found) if there else found


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value


def masked(name: str, args: Any) -> bool:
    """Whether an indexing picks by a mask."""
    return name.startswith("index") and any(isinstance(x, Tensor) and x.dtype == torch.bool for x in flat(args[1:]))


def unwrapped(x: Any) -> Any:
    return x.held if isinstance(x, OnGPU) else x


@contextmanager
def pretended() -> Iterator[Pretended]:
    """While this lasts, device="lazy", a name that torch has and nobody uses, is the one that is not there."""
    with Pretended() as mode:
        yield mode
