"""The pipeline that calls: what it was written for, and how far it goes."""

import re
import weakref
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMWuerstchenScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
)
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from ddim_ode.integrations.callers import written_for
from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from tests.helpers.assertions import one_line


class Pipeline:
    """What a pipeline of diffusers is to its scheduler."""

    denoising_end: float | None = None

    def __init__(self, scheduler: Any):
        self.scheduler = scheduler

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.helper(*arguments, **options)

    @staticmethod
    def helper_of(scheduler: Any, *arguments: Any, **options: Any) -> None:
        scheduler.set_timesteps(*arguments, **options)

    @torch.no_grad()
    def helper(self, *arguments: Any, **options: Any) -> None:
        self.helper_of(self.scheduler, *arguments, **options)


def annotated(kind: Any) -> Pipeline:
    class Annotated(Pipeline):
        def __init__(self, scheduler: kind):
            super().__init__(scheduler)

    return Annotated(ODEScheduler())


@pytest.mark.parametrize(
    "kind", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler, DDPMWuerstchenScheduler, "FlowMatchLCMScheduler"]
)
def test_a_pipeline_of_models_without_betas_is_refused_by_name(kind):
    name = kind if isinstance(kind, str) else kind.__name__
    text = one_line(SchedulerError, annotated(kind), 8)
    assert f"Annotated was written for a {name}, and ODEScheduler is for models with betas" in text


@pytest.mark.parametrize(
    "kind",
    [KarrasDiffusionSchedulers, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler | EulerDiscreteScheduler, Any],
)
def test_a_pipeline_of_other_models_is_not(kind):
    pipe = annotated(kind)
    pipe(8)
    assert len(pipe.scheduler.timesteps) == 8


def test_what_pipelines_of_diffusers_were_written_for():
    flow = "FlowMatchEulerDiscreteScheduler"
    found = [written_for(kind.__new__(kind)) for kind in (StableDiffusion3Pipeline, FluxPipeline)]
    assert found == [flow, flow]
    assert [written_for(kind.__new__(kind)) for kind in (StableDiffusionPipeline, DDPMPipeline)] == ["", ""]


def test_what_pipelines_of_flows_give_is_refused_by_name():
    pipe, scheduler = Pipeline(ODEScheduler()), ODEScheduler()
    assert "mu=1.15 is of flow models" in one_line(SchedulerError, scheduler.set_timesteps, 8, mu=1.15)
    for shares in (
        torch.linspace(1, 1 / 6, 6),
        torch.linspace(1, 1 / 6, 6).tolist(),
        torch.linspace(1, 1 / 6, 6).numpy(),
    ):
        assert "shares of noise" in one_line(SchedulerError, pipe, sigmas=shares)
    pipe(sigmas=[1.0, 0.5, 0.2, 0.0])
    scheduler.set_timesteps(sigmas=[1.0, 0.5])  # by hand it is a grid


class LabScheduler(DDIMScheduler):
    """Somebody's own."""


def test_a_pipeline_for_a_scheduler_that_is_not_known_is_not_refused():
    pipe = annotated(LabScheduler)
    pipe(8)
    assert len(pipe.scheduler.timesteps) == 8


def test_the_calls_of_others_are_left_as_they_are():
    scheduler, gone = ODEScheduler(), []

    class Trap:
        @property
        def scheduler(self) -> Any:
            raise RuntimeError("mine")

        denoising_end = scheduler

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("mine")

        def __call__(self) -> None:
            self.helper()

        def helper(self) -> None:
            big = torch.zeros(3)
            gone.append(weakref.ref(big))
            scheduler.set_timesteps(8)
            del big
            assert gone[0]() is None  # as it would not be if its variables had been asked for

    Trap()()
    assert len(scheduler.timesteps) == 8


def test_a_property_of_the_pipeline_is_not_run():
    class Stopping(Pipeline):
        _denoising_end = 0.5

        @property
        def denoising_end(self) -> float:
            raise RuntimeError("mine")

    assert "denoising_end stops the pipeline" in one_line(SchedulerError, Stopping(ODEScheduler(method="heun")), 16)


@pytest.mark.parametrize(
    ("method", "end", "refused"),
    [("heun", 0.5, True), ("rk4", 0.8, True), ("dpmpp_2m", 0.5, False), ("heun", 1.0, False), ("heun", None, False)],
)
def test_a_pipeline_that_stops_within_a_step_is_refused(method, end, refused):
    pipe = Pipeline(ODEScheduler(method=method))
    pipe.denoising_end = end
    if refused:
        text = one_line(SchedulerError, pipe, 16)
        assert re.search(
            rf"denoising_end stops the pipeline at timesteps\[\d+\], in the midst of a step of '{method}'", text
        )
    else:
        pipe(16)
