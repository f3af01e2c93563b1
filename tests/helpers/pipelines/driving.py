"""Pipelines of the zoo, driven: with any scheduler, counted, and as models."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import ddim_ode
from ddim_ode.integrations.calls import SOLVED
from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.integrations.pipelines import PipelineModel
from tests.helpers.pipelines.tiny import Tiny


def calls(steps: int) -> int:
    return steps


#: our method that is the scheduler's own, and how many calls it makes where that is set to so many steps
COUNTERPARTS: dict[str, tuple[str, Callable[[int], int]]] = {
    "EulerDiscreteScheduler": ("euler", calls),
    "EDMEulerScheduler": ("euler", calls),
    "FlowMatchEulerDiscreteScheduler": ("euler", calls),
    "DDIMScheduler": ("ddim", calls),
    "CogVideoXDDIMScheduler": ("ddim", calls),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", calls),
    "EDMDPMSolverMultistepScheduler": ("dpmpp_2m", calls),
    "UniPCMultistepScheduler": ("unipc_2", calls),
    "DEISMultistepScheduler": ("deis_log2", calls),
    "LMSDiscreteScheduler": ("lms", calls),
    "HeunDiscreteScheduler": ("heun", lambda steps: 2 * steps - 1),
    "FlowMatchHeunDiscreteScheduler": ("heun", lambda steps: 2 * steps - 1),
    "PNDMScheduler": ("plms", lambda steps: steps + 1),  # it makes its second step twice
}


def counterpart(scheduler: Any, steps: int) -> tuple[str, int] | None:
    """Our method that is the scheduler's own, and its calls; None where it draws noise, or has none here."""
    config, name = scheduler.config, type(scheduler).__name__
    if config.get("stochastic_sampling") or "sde" in str(config.get("algorithm_type")) or name not in COUNTERPARTS:
        return None
    method, called = COUNTERPARTS[name]
    return method, called(steps)


def run(tiny: Tiny, scheduler: Any, steps: int, **changes: Any) -> Tensor:
    """What the pipeline makes with a scheduler, always from the same noise."""
    own, tiny.pipe.scheduler = tiny.pipe.scheduler, scheduler
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            call = {**tiny.call, **changes}
            return tiny.read(tiny.pipe(**call, num_inference_steps=steps, generator=generator))
    finally:
        tiny.pipe.scheduler = own


class Counted:
    """How often the networks of a pipeline are called within: calls, and passes, one for each sample they return."""

    def __init__(self, tiny: Tiny):
        self.tiny, self.calls, self.passes = tiny, 0, 0

    def __enter__(self) -> "Counted":
        self._hooks = [net.register_forward_hook(self._note) for net in self.tiny.networks.values()]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, _net: Any, _given: Any, output: Any) -> None:
        self.calls += 1
        self.passes += len(output[0])


def as_model(tiny: Tiny, **changes: Any) -> PipelineModel:
    """The pipeline's own call as a model, without the arguments that a solver decides."""
    call = {name: value for name, value in {**tiny.call, **changes}.items() if name not in SOLVED}
    made = ddim_ode.from_pipeline(tiny.pipe, call.pop("prompt", None), call.pop("negative_prompt", None), **call)
    assert isinstance(made, PipelineModel)
    return made


class Followed(ODEScheduler):
    """A scheduler that remembers the samples between its steps, as the pipeline has them."""

    samples: tuple[Tensor, ...] = ()

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        said = super().step(model_output, timestep, sample, *args, **kwargs)
        self.samples = (*self.samples, sample.clone())
        self.last = said[0] if isinstance(said, tuple) else said.prev_sample
        return said

    def states(self, shape: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """The sigmas (n + 1,) of a run that made n calls, and xbar (1, *shape) at each."""
        assert self._plan is not None
        plan = self._plan.rest(self._begin)
        assert plan is not None
        scales = [1.0 if plan.exploding else float(plan.frame.path.scale(sigma)) for sigma in plan.sigmas]
        samples = [*self.samples, self.last]
        found = [(x[:1] if x.ndim > len(shape) else x[None]) / a for x, a in zip(samples, scales, strict=True)]
        return plan.sigmas, found
