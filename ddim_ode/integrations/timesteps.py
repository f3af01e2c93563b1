"""Timesteps that become known on the way, in the form in which pipelines iterate over them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class Over:
    """Whether a run has ended; its timesteps look there."""

    ended: bool = False


class LiveTimesteps(Tensor):
    """Times (N,) whose iteration ends when the run has, whatever is left of them.

    Slices that go to the end, as pipelines take them to begin later, are of the same kind, and share the storage into
    which the times are written when they are known. Whatever else is made of them is a plain tensor.
    """

    over: Over

    @classmethod
    def of(cls, times: Tensor, over: Over) -> "LiveTimesteps":
        """Times that share the storage of a plain tensor."""
        live = times.as_subclass(cls)
        live.over = over
        return live

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # a generator, and no list of slices
        for time in self.as_subclass(Tensor).unbind():
            if self.over.ended:
                return
            yield time

    def __getitem__(self, key: Any) -> Any:
        found = self.as_subclass(Tensor)[key]
        whole = isinstance(key, slice) and key.step in (None, 1) and (key.stop is None or key.stop >= len(self))
        return LiveTimesteps.of(found, self.over) if whole else found

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.as_subclass(Tensor).clone()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, cls) and not hasattr(found, "over"):
            return found.as_subclass(Tensor)
        return found
