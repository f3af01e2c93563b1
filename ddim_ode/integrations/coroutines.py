"""Functions that are interrupted in the middle: they ask, wait for the answer somewhere else, and go on.

A solver calls its network, and a pipeline calls its scheduler. Where the one is to be driven by the other, one of them
has to be left in the middle of a call and taken up again. Greenlets do that on one thread: nothing is repeated, nothing
runs by itself, an exception comes out where it belongs, and one that nobody takes up again is ended with its last
reference. The library is greenlet's, which torch's modes, kept for each thread, do not know of: see `_switch`.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

try:
    from greenlet import getcurrent, greenlet
except ImportError as error:
    raise ImportError("pipelines of diffusers need greenlet; pip install 'ddim_ode[diffusers]'") from error


class Coroutine:
    """work(), which may `ask` on its way.

    It belongs to the thread that makes it, and ends with that. What it refers to lives as long as it does, so `work`
    must not refer to the coroutine's owner: the frames of something suspended are out of the garbage collector's sight.
    """

    def __init__(self, work: Callable[[], Any]):
        self._of_thread = threading.local()  # which is cleared where a thread ends, as nothing else could be
        self._of_thread.inside = greenlet(lambda _: work())

    def __del__(self) -> None:
        """End what is suspended, whose contexts close then: they must not set torch's modes for whoever is running."""
        if not sys.is_finalizing() and self.here and not self.ended:
            self._of_thread.inside.parent = getcurrent()
            recorded = torch.is_grad_enabled()
            self._of_thread.inside.throw()
            torch.set_grad_enabled(recorded)

    @property
    def here(self) -> bool:
        """Whether it belongs to this thread."""
        return hasattr(self._of_thread, "inside")

    @property
    def ended(self) -> bool:
        """Whether work has returned, or raised."""
        return bool(self._of_thread.inside.dead)

    def resume(self, answer: Any = None) -> Any:
        """Begin, or go on with an answer: what it asks next, or when it has ended what it has returned.

        Raises what work raises.
        """
        inside = self._of_thread.inside
        inside.parent = getcurrent()
        return _switch(inside, answer)


def ask(question: Any) -> Any:
    """From inside of a coroutine: hand out a question, and return with what it is resumed with."""
    return _switch(getcurrent().parent, question)


def _switch(to: Any, value: Any) -> Any:
    """Go on elsewhere. Whether gradients are recorded there is no matter of here, and here as it was when back."""
    recorded = torch.is_grad_enabled()
    try:
        return to.switch(value)
    finally:
        torch.set_grad_enabled(recorded)
