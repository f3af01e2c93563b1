"""A pipeline's own call as a network: suspended at each step of its loop, and asked what it makes of any sample.

The pipeline runs in a coroutine, with a scheduler whose `step` hands out what the pipeline has computed and returns the
next sample to compute with. So whatever the pipeline does for its network comes along: prompts and guidance,
ControlNets, adapters, masks, several transformers, offloading.
"""

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from ddim_ode.integrations.coroutines import Coroutine, ask
from ddim_ode.integrations.diffusers import ODEScheduler, ODESchedulerOutput
from ddim_ode.integrations.embeddings import PipelineError
from ddim_ode.integrations.originals import most_steps, own_grid
from ddim_ode.integrations.plans import PipelinePlan
from ddim_ode.integrations.timesteps import LiveTimesteps
from ddim_ode.support.scalars import number

STEPS = 200  # network calls after which a pipeline begins anew
CROSSED = 8  # network calls in which a pipeline is made to go from its first step to its last
FEW = 3  # with which a pipeline is run to see whether it can be asked
NETWORKS = ("unet", "transformer", "decoder", "prior", "dit")  # how the names begin of what one pass is one of


class Said(NamedTuple):
    """What a pipeline has computed: the network's output for a sample at a timestep."""

    sample: Tensor
    timestep: float
    out: Tensor


class Asked(NamedTuple):
    """What it is to compute next, or the image that it is to go on with."""

    sample: Tensor
    timestep: float | None


class AskingScheduler(ODEScheduler):
    """A scheduler whose steps are somebody else's questions, about samples as the network sees them."""

    steps: int

    def _planned(self, calls: int | None, given: Mapping[str, Any]) -> PipelinePlan:
        own = own_grid(self._original, self.steps, given)
        return PipelinePlan(
            frame=own.frame,
            method=self._method,
            sigmas=own.sigmas,
            calls=own.sigmas[: len(own.labels)],
            told=own.labels,
            begin=own.begin,
            exploding=own.exploding,
        )

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.timesteps = LiveTimesteps.of(self._times, self._over)

    # Pipelines look for the names of arguments.
    set_timesteps.__signature__ = inspect.signature(ODEScheduler.set_timesteps)  # type: ignore[attr-defined]

    @property
    def init_noise_sigma(self) -> float:
        plan = self._plan
        if plan is None or not plan.exploding:
            return super().init_noise_sigma
        return plan.begin * float(plan.frame.path.scale(plan.calls[0]))

    def set_begin_index(self, begin_index: int = 0) -> None:
        self._begin, self._given_begin = begin_index, True

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Any = None,
        *,
        return_dict: bool = True,
        **more: Any,
    ) -> Any:
        """Hand out the output, and return the next sample."""
        for name, value in more.items():
            if value is not None and name != "prev_timestep":
                raise PipelineError(f"this pipeline gives its scheduler {name}, which is not known here")
        handed = sample
        if not self._over.ended:
            asked: Asked = ask(Said(sample.clone(), float(timestep), model_output[:, : sample.shape[1]]))
            handed = asked.sample.clone()
            if asked.timestep is None:
                self._over.ended = True
            else:
                self._times.fill_(asked.timestep)
        return ODESchedulerOutput(prev_sample=handed) if return_dict else (handed, handed)


class EnoughError(Exception):
    """A pipeline has computed all that is to be seen of it."""


class Recorded(ODEScheduler):
    """A scheduler that remembers what it was given, and ends a pipeline with its last step."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen = super().scale_model_input(sample, timestep).clone()  # of what the pipeline may overwrite
        self.said = [*getattr(self, "said", []), Said(seen, float(timestep), model_output[:, : sample.shape[1]])]
        found = super().step(model_output, timestep, sample, *args, **kwargs)
        assert self._run is not None
        if self._run.ended:
            raise EnoughError
        return found

    # Pipelines look for the names of arguments.
    step.__signature__ = inspect.signature(ODEScheduler.step)  # type: ignore[attr-defined]


class Session:
    """One call of a pipeline, suspended. Samples here are what its network sees.

    first, began: the sample with which the pipeline begins, as its scheduler is given it, and the timestep. whole:
    whether that holds several which differ, so that all that the pipeline makes at once is one sample; it may hold
    copies of one. passes: of its networks, that the last question has cost.

    Raises, where it begins, what the pipeline raises.
    """

    def __init__(self, pipe: Any, call: Mapping[str, Any], steps: int = STEPS):
        self.pipe, self.call, self.steps, self.passes = pipe, dict(call), steps, 0
        self.call.setdefault("generator", torch.Generator().manual_seed(0))
        said = self._begin()
        self.first, self.began = said.sample, said.timestep
        self.whole = bool((self.first != self.first[:1]).any())
        self.frame = self.scheduler.frame
        self.exploding = self.scheduler.exploding

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.first.shape if self.whole else self.first.shape[1:])

    def _as_given(self, sample: Tensor) -> Tensor:
        """A sample (1, *shape) as the pipeline has it."""
        sample = sample.to(self.first)
        return sample[0] if self.whole else sample.expand_as(self.first)

    def ask(self, sample: Tensor, timestep: float) -> Tensor:
        """What the network says of a sample (1, *shape) at a timestep.

        Raises:
            PipelineError: the pipeline cannot be asked about any sample at any time.
        """
        asked = Asked(self._as_given(sample), timestep)
        said = None
        if self._way.here and not self._way.ended:
            said = self._resumed(asked)
        if said is None:  # it has come to the end of its timesteps, or the question from another thread
            self._begin()
            said = self._resumed(asked)
        if said is None or abs(said.timestep - float(torch.tensor(timestep))) > self.scheduler.room:
            raise PipelineError("this pipeline has timesteps of its own, and cannot be asked about others")
        if said.sample.shape != asked.sample.shape or not torch.equal(said.sample, asked.sample):
            raise PipelineError(
                "this pipeline steps several samples, or changes them between steps, as inpainting by blending does"
                "; put an ODEScheduler into it instead"
            )
        return self.one_of(said.out)

    def one_of(self, given: Tensor) -> Tensor:
        """What the pipeline has, as one sample (1, *shape)."""
        return given[None] if self.whole else given[:1]

    def finish(self, sample: Tensor, changes: Mapping[str, Any]) -> Any:
        """What the pipeline makes of an image (1, *shape) behind its loop; it costs one question more."""
        session = Session(self.pipe, {**self.call, **changes}, self.steps)
        return session._way.resume(Asked(self._as_given(sample), None))

    def _begin(self) -> Said:
        """Run the pipeline to its first step."""
        scheduler = AskingScheduler.from_scheduler(theirs(self.pipe), method="euler")
        assert isinstance(scheduler, AskingScheduler)
        scheduler.steps = steps = most_steps(scheduler._original, self.steps)
        self.scheduler = scheduler
        call = {**self.call, "num_inference_steps": steps, "generator": _renewed(self.call["generator"])}
        self._way = Coroutine(partial(_called, _with(self.pipe, scheduler), call))
        with _drawing_alike():
            said = self._resumed(None)
        if said is None:
            raise PipelineError(f"{type(self.pipe).__name__} has ended without a step of its scheduler")
        return said

    def _resumed(self, asked: Asked | None) -> Said | None:
        """What the pipeline says next; None where it has ended."""
        counted: list[int] = []
        with ExitStack() as hooks:
            for network in networks_of(self.pipe).values():
                handle = network.register_forward_pre_hook(partial(_count, counted), with_kwargs=True)
                hooks.callback(handle.remove)
            found = self._way.resume(asked)
        if self._way.ended:
            return None
        assert isinstance(found, Said)
        self.passes = max(1, sum(counted))
        return found


def recorded(pipe: Any, call: Mapping[str, Any]) -> list[Said]:
    """What the pipeline itself computes in a few steps of Euler, by samples as its network sees them."""
    scheduler = Recorded.from_scheduler(theirs(pipe), method="euler")
    given = inspect.signature(type(pipe).__call__).parameters.get("strength")
    strength = number(call.get("strength", given.default if given else 1.0))
    steps = math.ceil(FEW / strength) if 0 < strength <= 1 else FEW
    generator = _renewed(call.get("generator", torch.Generator().manual_seed(0)))
    with _drawing_alike(), suppress(EnoughError):
        _called(_with(pipe, scheduler), {**call, "num_inference_steps": steps, "generator": generator})
    said: list[Said] = getattr(scheduler, "said", [])
    if not said:
        raise PipelineError(f"{type(pipe).__name__} steps with copies of its scheduler, and cannot be asked")
    return said


def theirs(pipe: Any) -> Any:
    """The scheduler of diffusers that says what a pipeline's network is."""
    scheduler = pipe.scheduler
    if isinstance(scheduler, ODEScheduler):
        return scheduler._original or DDIMScheduler.from_config(scheduler.config)
    return scheduler


def networks_of(pipe: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline one pass of which is one of its loop."""
    parts = getattr(pipe, "components", None)
    parts = parts if isinstance(parts, Mapping) else vars(pipe)
    return {name: part for name, part in parts.items() if name.startswith(NETWORKS) and isinstance(part, nn.Module)}


def _with(pipe: Any, scheduler: Any) -> Any:
    """The same pipeline with another scheduler; what it keeps of a call does not touch the other's."""
    other = copy.copy(pipe)
    other.scheduler = scheduler
    return other


def _called(pipe: Any, call: Mapping[str, Any]) -> Any:
    progress = vars(pipe).get("_progress_bar_config", {})
    pipe._progress_bar_config = {**progress, "disable": True}
    return pipe(**call)


@contextmanager
def _drawing_alike() -> Iterator[None]:
    """With the same state of torch's own generators each time, for what a pipeline draws from those."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _renewed(generator: Any) -> Any:
    """Copies of generators, so that what draws noise draws the same each time."""
    if isinstance(generator, list | tuple):
        return [_renewed(one) for one in generator]
    if not isinstance(generator, torch.Generator):
        return generator
    other = torch.Generator(generator.device)
    other.set_state(generator.get_state())
    return other


def _count(counted: list[int], network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Note how many samples a network is called with."""
    for value in (*args, *(kwargs[name] for name in ("sample", "hidden_states", "x") if name in kwargs)):
        if isinstance(value, Tensor | list):
            counted.append(len(value))
            return
    counted.append(1)
