"""From what a pipeline asks of its scheduler to a plan: where a method calls the network, and what of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddim_ode.checkpoints.frames import Frame, frame_of
from ddim_ode.integrations.handed import SchedulerError
from ddim_ode.integrations.originals import most_steps, own_grid
from ddim_ode.integrations.runs import OutsideNetwork, PipelineRun
from ddim_ode.integrations.tables import check_steps, first_scale
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import f64, flow, noise
from ddim_ode.planning.budget import DryRun, grid_for
from ddim_ode.planning.options import DEFAULT_TOL, SolveOptions
from ddim_ode.planning.origins import check_range
from ddim_ode.planning.tolerance import ends_for
from ddim_ode.solvers import Control, Method
from ddim_ode.support.checks import whole

SAME = 1e-6  # by which two sigmas may differ and still be one


@dataclass(frozen=True, kw_only=True)
class PipelinePlan:
    """Where a method asks the network of a pipeline.

    sigmas: its grid, float64 (N + 1,), or of an adaptive method where it begins and ends, with a 0 to denoise there.
    calls: the sigmas of its network calls, float64 (n,); of an adaptive method those at which it may begin.
    told: what the network is told at the calls, if not the time of their sigmas. quantize: whether it is told whole
    timesteps. begin: what a pipeline multiplies noise by, or of a table what the network sees of it. exploding: whether
    samples are xbar, and not what the network sees. ends_at_image: whether what is handed out at the end is xbar in any
    case. control: of an adaptive method.
    """

    frame: Frame
    method: Method
    sigmas: Tensor
    calls: Tensor
    told: Tensor | None = None
    quantize: bool = False
    begin: float = 1.0
    exploding: bool = False
    ends_at_image: bool = True
    control: Control | None = None

    def times(self, sigmas: Tensor) -> Tensor:
        """What the network is told there, float32."""
        path = self.frame.path
        told = path.u(sigmas.clamp(path.sigma_min, path.sigma_max))
        return (told.round() if self.quantize else told).float()

    @property
    def timesteps(self) -> Tensor:
        """What the network is told at each call, float32."""
        if self.told is None or self.quantize:
            return self.times(self.calls)
        return self.told.float()

    def rounded(self, quantize: bool) -> "PipelinePlan":
        """The plan, with whole timesteps or without."""
        return replace(self, quantize=quantize)

    def rest(self, place: int) -> "PipelinePlan | None":
        """The plan that begins with the call of that number; None where no step of the method begins there."""
        if place == 0:
            return self
        if place >= len(self.calls) or self.method.own_grids:
            return None
        first, calls = self.calls[place], self.calls[place:]
        told = None if self.told is None else self.told[place:]
        if self.control:
            sigmas = torch.cat([first.reshape(1), self.sigmas[1:]])
            control = self.control._replace(max_nfe=self.control.max_nfe - place)
            rest = replace(self, sigmas=sigmas, calls=calls, told=told, control=control)
            return rest if sigmas[0] > sigmas[1] else None
        n = int((self.sigmas[:-1].log() - first.log()).abs().argmin())
        asked = calls_of(self.frame, self.method, self.sigmas[n:])
        if len(asked) != len(calls) or not torch.allclose(asked, calls, rtol=SAME):
            return None
        return replace(self, sigmas=self.sigmas[n:], calls=calls, told=told)

    def run(self, x: Tensor) -> PipelineRun:
        """A run that begins with x (B, *shape)."""
        return PipelineRun(
            self.frame,
            self.method,
            self.sigmas,
            x,
            control=self.control,
            exploding=self.exploding,
            ends_at_image=self.ends_at_image,
        )


def stand_in(frame: Frame, shape: tuple[int, ...] = (1, 1, 1)) -> Denoiser:
    """A model of the frame, on our grids, whose network nobody asks."""
    return Denoiser(OutsideNetwork(), frame.on_our_grids(), frame.predicts, shape)


def calls_of(frame: Frame, method: Method, sigmas: Tensor) -> Tensor:
    """The sigmas at which the method calls the network on a grid, float64 (n,)."""
    model = Denoiser(OutsideNetwork(), frame.path, frame.predicts, (1, 1, 1))
    return f64(DryRun(model, method.path, method.solver, sigmas).asked)


def on_flow(method: Method) -> Method:
    """The method for a network of flows: on the path `flow` instead of `noise`, in shares of noise instead of sigma."""
    if method.path != noise:
        return method
    solver = method.solver
    if getattr(solver, "basis", None) == "sigma":
        solver = replace(solver, basis="timestep")
    return replace(method, path=flow, solver=solver)


def plan_on_own_grid(
    scheduler: Any, method: Method, calls: Any, given: Mapping[str, Any], tol: float | None
) -> PipelinePlan:
    """The plan on a scheduler's own grid, of as many steps as so many calls pay.

    Args:
        calls: num_inference_steps, or None where `given` has a list.
        given: see `originals.own_grid`.

    Raises:
        SchedulerError: no number of calls, or too few for one step.
    """
    lists = [given[name] for name in ("sigmas", "timesteps") if given.get(name) is not None]
    if calls is None and lists and hasattr(lists[0], "__len__"):
        calls = len(lists[0])
    most = whole("num_inference_steps", calls, SchedulerError)
    if method.adaptive:
        control = Control(DEFAULT_TOL if tol is None else tol, most)
        return _plan_between_ends(scheduler, method, control, given)
    for intervals in range(max(1, math.ceil((most - 1) / method.evaluations)) + 1, 0, -1):
        own = own_grid(scheduler, intervals, given)
        found = calls_of(own.frame, method, own.sigmas)
        if len(found) <= most:
            return PipelinePlan(
                frame=own.frame,
                method=method,
                sigmas=own.sigmas,
                calls=found,
                told=own.labels if len(own.labels) == len(found) and torch.equal(found, own.sigmas[:-1]) else None,
                begin=own.begin,
                exploding=own.exploding,
                ends_at_image=False,
            )
    raise SchedulerError(
        f"num_inference_steps={most} is too small: one step costs {len(found)} calls; use {len(found)} or more"
    )


def _plan_between_ends(scheduler: Any, method: Method, control: Control, given: Mapping[str, Any]) -> PipelinePlan:
    """The plan of an adaptive method between the ends of a scheduler's own grid; of the finest one where those of few
    steps begin lower.
    """
    most, trained = control.max_nfe, frame_of(scheduler).path.num_timesteps
    own = own_grid(scheduler, min(most, trained) if trained else most, given)  # more than its timesteps none takes
    sigmas, begin = own.sigmas, own.begin
    if trained and all(given.get(name) is None for name in ("sigmas", "timesteps")):
        finest = own_grid(scheduler, most_steps(scheduler, trained), given)
        sigmas, begin = torch.cat([finest.sigmas[:1], sigmas[1:]]), finest.begin
    ends = sigmas[[0, -1]]
    if ends[1] == 0:
        ends = torch.cat([sigmas[:1], f64([own.frame.end, 0.0])])
    starts = sigmas[sigmas > ends[1]][:most]
    starts = torch.cat([starts, starts[-1:].repeat(most - len(starts))])
    return PipelinePlan(
        frame=own.frame,
        method=method,
        sigmas=ends,
        calls=starts,
        begin=begin,
        exploding=own.exploding,
        ends_at_image=False,
        control=control,
    )


def plan_on_our_grid(frame: Frame, method: Method, options: SolveOptions) -> PipelinePlan:
    """The plan on the method's own grid, a named one or explicit sigmas, of as many steps as `options.nfe` pays.

    Raises:
        SampleError, GridError: a budget that one step exceeds, a grid that the model cannot have.
        SchedulerError: a number of calls that a tuned method has no grid for.
    """
    model = stand_in(frame)
    check_range(model.sigma_min, model.sigma_max, method)
    check_steps(model, options)
    if method.adaptive:
        ends = ends_for(model, replace(options, nfe=None))
        most = options.nfe if options.nfe is not None else options.control.max_nfe
        starts = f64(torch.logspace(float(ends[0].log10()), float(ends[1].log10()), most + 1, dtype=torch.float64))[:-1]
        return PipelinePlan(
            frame=frame, method=method, sigmas=ends, calls=starts, control=options.control._replace(max_nfe=most)
        )
    sigmas = grid_for(model, options)
    return PipelinePlan(
        frame=frame,
        method=method,
        sigmas=sigmas,
        calls=calls_of(frame, method, sigmas),
        begin=first_scale(frame, method, sigmas),
    )
