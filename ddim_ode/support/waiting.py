"""Questions to a device whose answers one would have to wait for, such as whether all numbers of a tensor are finite.

A CPU is asked at once. Of another device `below` and `finite` only note what is asked, within `without_waiting`, and
all answers are had together: a device that is never asked anything in between computes while Python prepares what comes
next. Where something did not hold, nobody knows any more where: what was done is done again, asking at once.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError

PATIENCE = 64  # questions after which the answers are looked at, so that a long run does not go on in vain

CPU = torch.device("cpu")

Done = TypeVar("Done")


class UnsteadyError(DDIMError):
    """Something did not hold in a run, and did when the run was made again."""


class UnmetError(Exception):
    """Something that was asked did not hold."""


class Asked:
    """Questions that nobody has had an answer to: is the absolute value of a number () below a limit?"""

    def __init__(self) -> None:
        self._open: list[tuple[Tensor, float]] = []
        self._unmet = False

    def add(self, value: Tensor, limit: float) -> None:
        """Note a question. Raises UnmetError where enough have come together, and one does not hold."""
        self._open.append((value, limit))
        if len(self._open) >= PATIENCE:
            self.look()

    def look(self, wanted: Tensor | None = None) -> Tensor | None:
        """Wait for all answers, and for the numbers that are wanted, which come in float64 on the CPU by the same copy.

        Raises UnmetError unless everything held.
        """
        asked, self._open = self._open, []
        if self._unmet:
            raise UnmetError
        together = [value.reshape(1) for value, _ in asked]
        if wanted is not None:
            together.append(wanted.detach().reshape(-1))
        if not together:
            return None
        answers = torch.cat([part.to(together[0].device) for part in together]).cpu().double()
        if not all(abs(answer) < limit for answer, (_, limit) in zip(answers.tolist(), asked, strict=False)):
            self._unmet = True  # also where somebody catches it, and goes on
            raise UnmetError
        return None if wanted is None else answers[len(asked) :].reshape(wanted.shape)


_asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


def below(value: Tensor, limit: float) -> bool:
    """Whether the absolute value of a number () is below a limit, and that of NaN is not; where it would have to be
    waited for, within `without_waiting`, it is taken to be, and looked at later.
    """
    asked = _asked.get()
    if asked is None or value.device == CPU:
        return abs(float(value)) < limit
    asked.add(value.detach(), limit)
    return True


def finite(x: Tensor) -> bool:
    """Whether all numbers of x, floats, are finite; taken to be so as of `below`."""
    x = x.detach()
    if x.device == CPU:  # the sum is finite only if all are, and it takes one operation
        return math.isfinite(x.sum()) or bool(torch.isfinite(x).all())
    return not x.numel() or below(torch.linalg.vector_norm(x, math.inf), math.inf)


def fetched(x: Tensor) -> Tensor:
    """The numbers of x in float64 on the CPU. Within `without_waiting`, also a look at all that is asked."""
    asked = _asked.get()
    if asked is None:
        return x.detach().cpu().double()
    found = asked.look(x)
    assert found is not None
    return found


def sent(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """x on a device, in a precision if one is given; a few numbers from the CPU are on their way while it goes on."""
    # Of such copies to MPS numbers have been lost; what arrives on the CPU is read at once.
    return x.to(device, dtype, non_blocking=device.type not in ("cpu", "mps"))


def without_waiting(work: Callable[[], Done], again: Callable[[], Done]) -> Done:
    """What `work` returns, whose questions are asked together. If something did not hold, `again` does the same, asking
    at once, to raise the error that says where; an error of `work` that may come of it is not the one to tell.

    Raises UnsteadyError where all holds then.
    """
    with suppress(UnmetError), _together() as asked:
        try:
            done = work()
        except UnmetError:
            raise
        except Exception:
            asked.look()
            raise
        asked.look()
        return done
    with at_once():
        again()
    raise UnsteadyError(
        "a number that was not finite, or out of range, was neither when the run was made again"
        ": the network answers the same question in two ways; have it compute deterministically"
    )


@contextmanager
def at_once() -> Iterator[None]:
    """Within it, and within `without_waiting`, answers are waited for: somebody else may do something about them."""
    token = _asked.set(None)
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def _together() -> Iterator[Asked]:
    asked = Asked()
    token = _asked.set(asked)
    try:
        yield asked
    finally:
        _asked.reset(token)
