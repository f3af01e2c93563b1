"""A solver whose network is somewhere else: a run that is interrupted wherever it asks.

The solver's model here is an `OutsideModel`. Where it is asked, the solver is left as it is, and what it asks is handed
out; with the answer it goes on from there. Nothing is kept, repeated or approximated for that.

A pipeline may change a sample between two calls, as inpainting does. The network was then asked about the changed one,
and so is what it said. Where a step begins there, the step begins anew from the changed sample.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim_ode.checkpoints.frames import Frame
from ddim_ode.integrations.coroutines import Coroutine, ask
from ddim_ode.integrations.handed import SchedulerError
from ddim_ode.integrations.sharing import sharing
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Denoiser, NonFiniteError, Prediction
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.solvers import Control, Method, Outcome, Step, moves

OTHERS = "use one of one evaluation a step, such as 'dpmpp_2m'"


class Question(NamedTuple):
    """What the network is asked about: x (B, *shape) in its own scale, at sigma, a float64 scalar."""

    x: Tensor
    sigma: Tensor
    begins: bool  # whether x is a state, and not a point in the midst of a step


class Answer(NamedTuple):
    """What the network has returned, and about what, if that is not what was asked."""

    out: Tensor
    about: Tensor | None


class EditedError(Exception):
    """The state has been changed to `about` where a step begins, of which the network said `out`."""

    def __init__(self, out: Tensor, about: Tensor):
        super().__init__()
        self.out, self.about = out, about


class OutsideNetwork:
    """A network that returns what has been put into it."""

    def __init__(self) -> None:
        self.out = torch.empty(0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.out


class OutsideModel:
    """A model that asks whoever resumes the run; a `Model` for solvers.

    begins: whether the next question is about the state itself. ready: what was said of it already, instead of asking.
    image: the one that was predicted last, (B, *shape).
    """

    num_classes = 0
    device = torch.device("cpu")

    def __init__(self, frame: Frame, shape: tuple[int, ...]):
        self.frame, self.shape, self.path = frame, shape, frame.path
        self.begins = True
        self.ready: Tensor | None = None
        self.image: Tensor | None = None
        self._net = OutsideNetwork()
        self._denoiser = Denoiser(self._net, frame.path, frame.predicts, shape)

    @property
    def sigma_min(self) -> float:
        return self.path.sigma_min

    @property
    def sigma_max(self) -> float:
        return self.path.sigma_max

    def evaluations(self, sigma: float) -> int:
        """One call of the network."""
        return 1

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        a = along(self.path.scale(sigma), xbar)
        x = a * xbar
        out, self.ready = self.ready, None
        if out is None:
            answer: Answer = ask(Question(x, sigma.reshape(()), self.begins))
            if answer.about is not None:
                if self.begins:
                    raise EditedError(answer.out, answer.about)
                x = answer.about.to(x)
                xbar = x / a
            out = answer.out
        self.begins = False
        self._net.out = self.frame.answer(out.to(x), x, sigma)
        found = self._denoiser(xbar, sigma)
        self.image = found.data
        return found


class Batch:
    """A model whose samples (1, B, *shape) are batches of another's."""

    def __init__(self, model: OutsideModel):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        self.model.begins = True  # of which nothing can be changed
        found = self.model(xbar[0], torch.as_tensor(sigma).reshape(()))
        return Prediction(found.data[None], found.noise[None], found.evaluations)


def on_grid(model: OutsideModel, method: Method, sigmas: Tensor, x: Tensor) -> Tensor:
    """Carry x (B, *shape), in the network's scale, along a grid; returns xbar at its last sigma.

    Raises:
        SchedulerError: the sample was changed on the way, and the method cannot take that up.
    """
    ode = ProbabilityFlow(model, method.path, (float(sigmas[sigmas > 0][-1]), float(sigmas[0])))

    def enter(x: Tensor, n: int) -> Tensor:
        return ode.enter(x / along(model.path.scale(sigmas[n]), x), sigmas[n])

    step = 0
    try:
        y = enter(x, 0)
        at = Step(y, method.solver.init(ode, sigmas, y))
        for step, move in enumerate(moves(ode, method.solver, sigmas)):
            model.begins = True
            try:
                at = move(at)
            except EditedError as edit:
                if method.invertible or method.own_grids:
                    raise SchedulerError(
                        f"the sample was changed in between, where this method cannot take it up; {OTHERS}"
                    ) from None
                model.ready = edit.out
                at = move(Step(enter(edit.about.to(x), step), at.state))
    except NonFiniteError as error:
        error.step = step + 1
        raise
    return at.y


def adaptively(model: OutsideModel, method: Method, sigmas: Tensor, control: Control, x: Tensor) -> Outcome:
    """Carry x (B, *shape), in the network's scale, to the image in steps that the batch shares.

    Raises:
        SchedulerError: the sample was changed on the way.
    """
    whole: Any = model
    solver, xbar = method.solver, x / along(model.path.scale(sigmas[0]), x)
    if method.per_sample:
        shared = sharing(solver)
        if shared is None:
            raise SchedulerError(
                f"{type(solver).__name__} gives every sample steps of its own, and a pipeline has the same for all; use"
                " 'adaptive'"
            )
        whole, solver, xbar = Batch(model), replace(shared, ahead=0.0), xbar[None]  # it begins where it is told
    ode = ProbabilityFlow(whole, method.path, (float(sigmas[1]), float(sigmas[0])))
    try:
        found = solver.solve(ode, sigmas, xbar, control)
    except EditedError:
        raise SchedulerError(
            "the sample was changed in between, where an adaptive method cannot take it up; use one on a grid, such as"
            " 'dpmpp_2m'"
        ) from None
    return found._replace(x=found.x[0]) if method.per_sample else found


class PipelineRun:
    """One batch on its way, interrupted wherever the network is asked.

    given: (B, *shape), what the network is asked next, or the image, in the pipeline's precision and scale.
    question: what is asked; None when the run has ended. asked: how many answers there have been.
    outcome: of an adaptive run that has ended.

    Args:
        control: of an adaptive method, whose sigmas are (first, last) or (first, last, 0).
        exploding: whether the pipeline's samples are xbar, and not what the network sees.
        ends_at_image: whether what is given at the end is xbar in any case.
    """

    def __init__(
        self,
        frame: Frame,
        method: Method,
        sigmas: Tensor,
        x: Tensor,
        *,
        control: Control | None = None,
        exploding: bool = False,
        ends_at_image: bool = True,
    ):
        self.given, self.asked, self.exploding = x, 0, exploding
        self.end = 1.0 if exploding or ends_at_image else float(frame.path.scale(sigmas[-1])) if sigmas[-1] else 1.0
        self.question: Question | None = None
        self.outcome: Outcome | None = None
        self.model = model = OutsideModel(frame, tuple(x.shape[1:]))
        state = self._seen(x.to(torch.promote_types(x.dtype, torch.float32)), sigmas[0])
        if control is None:
            self._way = Coroutine(partial(on_grid, model, method, sigmas, state))
        else:
            self._way = Coroutine(partial(adaptively, model, method, sigmas, control, state))
        self._resume(None)

    def __deepcopy__(self, memo: Any) -> "PipelineRun":
        raise SchedulerError("a run under way cannot be copied; use the pipeline's own scheduler")

    @property
    def ended(self) -> bool:
        """Whether what was given is the image."""
        return self.question is None

    @property
    def image(self) -> Tensor:
        """The image that the network's last answer means, (B, *shape)."""
        assert self.model.image is not None
        return self.model.image.to(self.given.dtype)

    @property
    def within(self) -> bool:
        """Whether what was given is a question in the midst of a step, and no state."""
        return self.question is not None and not self.question.begins

    def go(self, out: Tensor, about: Tensor | None = None) -> None:
        """On to the next question, or to the image; about: the sample, if it is not what was given."""
        if about is not None and about.shape != self.given.shape:
            raise SchedulerError(
                f"the sample has shape {tuple(about.shape)}, where this run has {tuple(self.given.shape)}; call"
                " set_timesteps before another run"
            )
        if not self._way.here:
            raise SchedulerError("this run was begun in another thread; use one scheduler for each request")
        if self._way.ended:
            raise SchedulerError("this run has ended with an error; call set_timesteps before another one")
        self.asked += 1
        if about is not None and self.question is not None:
            about = self._seen(about.to(self.question.x), self.question.sigma)
        self._resume(Answer(out, about))

    def _seen(self, x: Tensor, sigma: Tensor) -> Tensor:
        """What the network sees of a sample of the pipeline."""
        return x * along(self.model.path.scale(sigma), x) if self.exploding else x

    @torch.no_grad()
    def _resume(self, answer: Answer | None) -> None:
        found = self._way.resume(answer)
        if not self._way.ended:
            self.question = found
            x = found.x / along(self.model.path.scale(found.sigma), found.x) if self.exploding else found.x
            self.given = x.to(self.given.dtype)
            return
        self.question = None
        self.outcome = found if isinstance(found, Outcome) else None
        x = found.x if isinstance(found, Outcome) else found
        self.given = (x if self.end == 1 else self.end * x).to(self.given.dtype)
