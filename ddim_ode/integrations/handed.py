"""Samples that a scheduler is given and hands out: whether they can be, and whose they are."""

from collections import deque
from typing import Any

from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import described, of_kind

REMEMBERED = 4  # runs that were left before their end
SAME = 0.1  # share of equal numbers that makes a sample one of a run: in bfloat16 chance makes one in a hundred equal


class SpentWarning(UserWarning):
    """An adaptive run that its largest number of calls has ended before its tolerance let it."""


class SchedulerError(DDIMError):
    """A scheduler that cannot be, or a call that it has no answer to."""


class Left:
    """What the last few runs handed out that were left before their end, to know it again."""

    def __init__(self) -> None:
        self.given: deque[tuple[Tensor, bool]] = deque(maxlen=REMEMBERED)

    def remember(self, given: Tensor, within: bool) -> None:
        """What was handed out last, and whether in the midst of a step."""
        self.given.append((given, within))

    def refuse(self, sample: Tensor, given: Tensor | None = None) -> None:
        """Raise SchedulerError for a sample of one of them, where another run goes on from `given`, or one begins.

        A run that begins may have any start but what the midst of a step asked about.
        """
        here = 0.0 if given is None else equal(sample, given)
        for other, within in self.given:
            if (same := equal(sample, other)) < SAME or same <= here:
                continue
            if given is not None:
                raise SchedulerError(
                    "this sample belongs to a run that set_timesteps has ended; use one scheduler for each request"
                )
            if within:
                raise SchedulerError(
                    "this sample was handed out in the midst of a step, and is no state to begin from; use a method of"
                    " one evaluation a step, such as 'dpmpp_2m'"
                )


def equal(sample: Tensor, given: Tensor) -> float:
    """The share of numbers that are the same in both."""
    if sample.shape != given.shape or sample.device != given.device:
        return 0.0
    return float((sample == given).double().mean())


def check_sample(sample: Any, answer: Any) -> None:
    """Raise unless a network that was asked about the sample (B, C, *) can have given the answer (B, C or 2 C, *)."""
    for name, value in (("sample", sample), ("model_output", answer)):
        of_kind(name, value, Tensor, "a tensor (B, C, ...)")
        if value.ndim < 2 or not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise SchedulerError(f"{name} is {described(value)} of {kind}; give a tensor (B, C, ...) of floats")
    one, two = ((sample.shape[0], n * sample.shape[1], *sample.shape[2:]) for n in (1, 2))
    if tuple(answer.shape) not in (one, two):
        raise SchedulerError(
            f"model_output has shape {tuple(answer.shape)} for a sample of shape {one}; give the network's answer to"
            " that sample"
        )
