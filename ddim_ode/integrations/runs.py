"""A solver that is asked one question at a time: a run on a grid whose network is somewhere else.

The solver's network here is an `OutsideNetwork`, a list of answers. Where it runs out, the solver is interrupted, and
what it asked for is what is handed out; with the next answer, the interval that was interrupted begins again from its
start. An interval is a function of what came before it and of its answers, and few evaluations long: nothing but those
is kept, nothing is approximated, and what is repeated is arithmetic, never the network.
"""

from collections import deque
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.solvers import Method, Step, moves
from ddim_ode.support.checks import described, of_kind

REMEMBERED = 4  # runs that were left before their end
SAME = 0.1  # share of equal numbers that makes a sample one of a run: in bfloat16 chance makes one in a hundred equal


class SchedulerError(DDIMError):
    """A scheduler that cannot be, or a call that it has no answer to."""


class AskedError(Exception):
    """The network is asked for an answer that is not there yet."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.x = x


class OutsideNetwork:
    """A network whose answers come from elsewhere."""

    def __init__(self) -> None:
        self.known: list[Tensor] = []
        self.used = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.used == len(self.known):
            raise AskedError(x)
        self.used += 1
        return self.known[self.used - 1]


class PipelineRun:
    """One batch on its way, interrupted wherever the network is asked.

    given: (B, *shape), what the network is asked next, or the image, in the pipeline's precision.
    asked: how many answers there have been.
    """

    def __init__(self, model: Denoiser, method: Method, sigmas: Tensor, x: Tensor):
        self.answers, self.asked, self.given = OutsideNetwork(), 0, x
        self.method, self.sigmas = method, sigmas
        model = replace(model, net=self.answers, shape=tuple(x.shape[1:]))
        self.ode = ProbabilityFlow(model, method.path, (float(sigmas[sigmas > 0][-1]), float(sigmas[0])))
        self.way = [self._init, *moves(self.ode, method.solver, sigmas)]
        self.done = 0  # of the way
        self.at = Step(self._enter(x), None)
        self._advance()

    @property
    def ended(self) -> bool:
        """Whether what was given is the image."""
        return self.done == len(self.way)

    @property
    def within(self) -> bool:
        """Whether what was given is a question in the midst of a step, and no state."""
        return bool(self.answers.known)

    def restart(self, x: Tensor) -> None:
        """Begin the next step from x instead of from what was given."""
        if x.shape != self.given.shape:
            raise SchedulerError(
                f"the sample has shape {tuple(x.shape)}, where this run has {tuple(self.given.shape)}; call"
                " set_timesteps before another run"
            )
        if self.answers.known or self.method.invertible or self.method.own_grids:
            raise SchedulerError(
                "the sample was changed in between, where this method cannot take it up; use one of one evaluation a"
                " step, such as 'dpmpp_2m'"
            )
        self.at = Step(self._enter(x), self.at.state)

    def go(self, answer: Tensor) -> None:
        """On to the next question, or to the image."""
        self.answers.known.append(answer)
        self.asked += 1
        self._advance()

    def _advance(self) -> None:
        while self.done < len(self.way):
            self.answers.used = 0
            try:
                self.at = self.way[self.done](self.at)
            except AskedError as question:
                self.given = question.x.to(self.given.dtype)
                return
            except NonFiniteError as error:
                error.step = max(self.done, 1)
                raise
            self.done += 1
            self.answers.known.clear()
        self.given = self.at.y.to(self.given.dtype)

    def _init(self, at: Step) -> Step:
        return Step(at.y, self.method.solver.init(self.ode, self.sigmas, at.y))

    def _enter(self, x: Tensor) -> Tensor:
        """The state of x, in the network's scale, where the next step begins."""
        sigma = self.sigmas[max(self.done - 1, 0)]
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.ode.enter(x / along(self.ode.model.path.scale(sigma), x), sigma)


class Left:
    """What the last few runs handed out that were left before their end, to know it again."""

    def __init__(self) -> None:
        self.given: deque[tuple[Tensor, bool]] = deque(maxlen=REMEMBERED)

    def remember(self, run: PipelineRun) -> None:
        self.given.append((run.given, run.within))

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
