"""The methods of this library as a scheduler of diffusers, for any pipeline whose network is that of an ODE.

A solver of ours calls the network; a pipeline calls the network itself and asks the scheduler what to call it with. So
a run is interrupted wherever its solver asks: see `integrations.runs`.
"""

import copy
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim_ode.checkpoints.frames import Frame, frame_of
from ddim_ode.checkpoints.scheduler_config import Scheduler, read_scheduler, with_defaults
from ddim_ode.grids import Final, shape_of
from ddim_ode.integrations.callers import calling_pipeline, refuse_flows, refuse_stop
from ddim_ode.integrations.contract import PipelineContract
from ddim_ode.integrations.handed import SchedulerError, check_sample
from ddim_ode.integrations.originals import (
    check_scheduler,
    class_name,
    original_of,
    scheduler_class,
    stated,
)
from ddim_ode.integrations.plans import on_flow, stand_in
from ddim_ode.integrations.tables import method_for
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.origins import check_range
from ddim_ode.support.checks import flag, of_kind, shown

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
except ImportError as error:
    raise ImportError("a scheduler of diffusers needs diffusers; pip install 'ddim_ode[diffusers]'") from error

OWN = {"method", "tol", "tuned", "grid", "final", "quantize"}  # arguments that say nothing of the network


@dataclass
class ODESchedulerOutput(SchedulerOutput):  # type: ignore[misc]  # diffusers has no types
    """What `step` returns: the sample to go on with, and the image that the network has predicted, as in DDIM's."""

    pred_original_sample: Tensor | None = None


class ODEScheduler(PipelineContract, SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # the two differ in a declaration
    """A deterministic method of `METHODS` as `pipe.scheduler`: on a grid, or adaptive.

    `ODEScheduler.from_scheduler(pipe.scheduler, method="adaptive", tol=0.01)` takes over what the pipeline's own one
    says about its network, and its grid. `from_config(pipe.scheduler.config, method="unipc_2")` of a model with betas
    takes over the schedule alone, and steps on the method's own grid.

    `num_inference_steps` is the most network calls that a sample may cost, as `sample(nfe=n)` means it, and `timesteps`
    has one entry for each, in fractions, methods of several evaluations a step included. So `order` is 1. Of an
    adaptive method the entries are written when they are known, and iterating over them ends when the method has. Under
    guidance a call costs a pipeline two passes of the network, which `nfe` counts and n does not. A batch shares its
    steps; of an adaptive method its worst member decides.

    On networks of flows the methods of the path `noise` move to `flow`: "heun" is `FlowMatchHeunDiscreteScheduler`.

    It holds one run, which `set_timesteps` begins: two requests at a time need a scheduler each. A sample that an
    earlier run handed out, and did not come back for, is refused as long as a tenth of its numbers are unchanged.
    Any other sample that is not the one handed out is taken as an edit, since nothing tells it from one. An edit within
    a step is what the network was asked about; one where a step begins is where it begins. Adaptive, reversible and
    tuned methods take none.

    Between the evaluations of one step, `prev_sample` is a question to the network and no state of the image. A
    pipeline that stops there by its `denoising_end` is refused; one that stops there otherwise has no image.

    What a pipeline switches on or off by the number of a step (`control_guidance_end`, skipped layers) counts to
    `num_inference_steps`, also where an adaptive method ends earlier.

    Clipping and thresholding of the prediction (`clip_sample`, `thresholding`) are no part of an ODE; they stay in the
    config, for whoever is made from it, and do nothing. Half-precision pipelines get a float32 state.

    Args:
        method: a name in `METHODS`, or "tuned".
        tol: of an adaptive method, the error to accept, RMS over a sample in units of the latents; None is 0.01.
        tuned: of the method "tuned" the file, whose budgets alone can be `num_inference_steps`. Whether it was tuned to
            this network and guidance nobody can see here. Tables begin with noise, and with what `scale_model_input`
            makes of it, so that pipelines which start from an image, or never ask for that, are refused.
        grid: a name in `GRIDS`; None is that of `scheduler`, or without one the method's own.
        final: "denoise", or "sigma_min" to stop at the model's smallest sigma; of grids in `GRIDS`.
        scheduler: the class in diffusers whose config this is, which decides the grid and says what the network is.
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the schedule
            that the model was trained on, as in `DDIMScheduler`; "linear", "scaled_linear" or "squaredcos_cap_v2".
        snr_shift_scale: what the schedule's signal-to-noise ratios are divided by, as in `CogVideoXDDIMScheduler`.
        prediction_type: "epsilon", "sample" or "v_prediction".
        quantize: round timesteps, for a network that cannot take fractions.

    Raises:
        MethodError, GridError, SchedulerError: a name that is unknown, a method that draws noise, or one that was tuned
            to sigmas that this schedule does not have.
        SampleError: a tolerance that cannot be, or that the method has no use for.
        TunedError: the file of a tuned method is missing or damaged.
        ScheduleError: a scheduler, a schedule or a prediction that is unknown.
        DenoiserError: noise prediction at zero terminal SNR.
    """

    # Not a ClassVar, as ruff would have it: diffusers declares it so, and looks it up on the class.
    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        method: str = "dpmpp_2m",
        *,
        grid: str | None = None,
        final: Final = "denoise",
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        snr_shift_scale: float = 1.0,
        quantize: bool = False,
        tuned: str | os.PathLike[str] | None = None,
        tol: float | None = None,
        scheduler: str | None = None,
    ):
        PipelineContract.__init__(self)
        if not isinstance(method, str):
            raise SchedulerError(
                f"method is a {type(method).__name__}, which no config can hold; give a name in METHODS"
            )
        self._method = method_for(method, tuned, grid, final)
        if not self._method.deterministic:
            raise SchedulerError(
                f"method={method!r} draws noise on the way, and a pipeline cannot follow; use one such as 'dpmpp_2m'"
            )
        self._asked = method if tuned is None else self._method
        if grid == "auto":
            raise SchedulerError("grid='auto' asks the network; give method='tuned' with a grid of tune(grid_only=...)")
        if grid is not None:
            shape_of(grid)
        flag("quantize", quantize)
        SolveOptions(method=self._asked, tol=tol, final=final)
        # diffusers drops values that nobody gave when it makes another scheduler of a config, and others have others.
        dropped = [key for key in self.config.get("_use_default_values", ()) if key not in Scheduler.model_fields]
        self.register_to_config(_use_default_values=dropped, tuned=None if tuned is None else os.fspath(tuned))
        if scheduler is None:
            schedule, predicts = read_scheduler(self.config)
            path = schedule.path()
            self._frame = Frame(path, predicts, path.sigma_min)
            self._model = stand_in(self._frame)
            check_range(self._model.sigma_min, self._model.sigma_max, self._method)
        else:
            self._adopt(scheduler_class(scheduler)())

    @classmethod
    def from_scheduler(cls, scheduler: Any, method: str = "dpmpp_2m", **changes: Any) -> "ODEScheduler":
        """A scheduler for the network of another one of diffusers, on its grid unless `grid` is given.

        Args:
            scheduler: such as `pipe.scheduler`; it is copied.
            changes: tol, tuned, grid, final or quantize. What the network is says the scheduler alone.

        Raises:
            ScheduleError: a scheduler of a kind that is unknown here.
            SchedulerError: no scheduler, or an argument of another kind. And as `ODEScheduler`.
        """
        for name in changes.keys() - OWN:
            raise SchedulerError(f"{name}={shown(changes[name])} is of the pipeline's scheduler; change it there")
        if isinstance(scheduler, ODEScheduler):
            changes = {name: scheduler.config[name] for name in ("grid", "final", "quantize")} | changes
            if scheduler._original is None:
                return cls.from_config(scheduler.config, **{"tol": None, "tuned": None, "method": method, **changes})
            scheduler = scheduler._original
        check_scheduler(scheduler)
        config = {**stated(scheduler.config), "scheduler": class_name(type(scheduler))}
        made: ODEScheduler = cls.from_config(config, method=method, **changes)
        made._adopt(copy.deepcopy(scheduler))
        return made

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, return_unused_kwargs: bool = False, **changes: Any
    ) -> Any:
        """The scheduler of a config, such as `pipe.scheduler.config`, with some entries changed.

        Raises:
            ScheduleError: a scheduler of a kind that is unknown here, or a key that is unknown and might mean another
                schedule.
        """
        config = {} if config is None else config
        of_kind("config", config, Mapping, "the config of a scheduler, such as pipe.scheduler.config")
        given = {**config, **changes}
        original = original_of(given)
        if original is None:
            read_scheduler(given)  # diffusers would take the betas to be ours by default
            return super().from_config(with_defaults(config), return_unused_kwargs, **changes)
        whole = {**given, **stated(original.config), "scheduler": class_name(type(original))}
        own = {key: value for key, value in whole.items() if key in inspect.signature(cls.__init__).parameters}
        found: Any = super().from_config(own, return_unused_kwargs)
        made = found[0] if return_unused_kwargs else found
        others = {key: value for key, value in whole.items() if key not in own}  # which pipelines read
        unsaid = dict.fromkeys(Scheduler.model_fields.keys() - original.config.keys())  # of betas that it has not
        made.register_to_config(**others, **unsaid)
        made._adopt(original)
        return found

    def _adopt(self, original: Any) -> None:
        """Take the schedule, the prediction and the grid from a scheduler, which is mine from now on."""
        self._original, self._frame = original, frame_of(original)
        self._model = stand_in(self._frame)
        if self._frame.shares and not self._method.grids:  # which were tuned on its path
            self._method = on_flow(self._method)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        **more: Any,
    ) -> None:
        """Plan for so many network calls, and begin a new run.

        Args:
            sigmas, timesteps, mu, more: as the pipeline's own scheduler takes them, where it decides the grid.
                Otherwise sigmas are those that `sample(grid=...)` takes, and nothing else is taken.

        Raises:
            SampleError, GridError: a budget that one step exceeds, a grid that the model cannot have.
            SchedulerError: a pipeline of flows whose scheduler has betas, or one that would stop within a step.
        """
        pipe = calling_pipeline(self)
        given = {"sigmas": sigmas, "timesteps": timesteps, "mu": mu, **more}
        if self._original is None:
            refuse_flows(pipe, sigmas, mu)
        elif pipe is None and self.config["grid"] is not None and not (sigmas is None and timesteps is None):
            raise SchedulerError(f"grid={self.config['grid']!r} says where it steps; leave sigmas and timesteps out")
        self._plan = plan = self._planned(num_inference_steps, given).rounded(self.config["quantize"])
        try:
            times = plan.timesteps.to(device)
        except (RuntimeError, TypeError, AssertionError):  # of torch, for a device that is not there
            raise SchedulerError(f"device={shown(device)} is none that there is here; use 'cpu'") from None
        if self._run is None and self._times.shape == times.shape and self._times.device == times.device:
            self._times.copy_(times)  # which a pipeline that plans twice may go through
        else:
            self._times = times
        self.num_inference_steps = num_inference_steps or len(times)
        self._publish_sigmas()
        self._new_run(0, said=False)
        refuse_stop(pipe, plan, self.timesteps, len(self), self.config["method"])

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        eta: Any = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Any = None,
        *,
        variance_noise: Any = None,
        return_dict: bool = True,
        **more: Any,
    ) -> ODESchedulerOutput | tuple[Tensor, Tensor]:
        """Take the network's answer to sample (B, *shape) at the timestep; return what to ask it next, or the image.

        Where a pipeline changes the sample between two steps, as inpainting does, the next one begins from that.
        Of an answer with twice the channels the second half, learned variances, is left out. generator is not used.
        A call that comes after the end of an adaptive run returns its image.

        Returns:
            `prev_sample` and `pred_original_sample`, as an object or a tuple.

        Raises:
            SchedulerError: timesteps out of turn, a sample that was changed where the method cannot take it up, or eta.
            NonFiniteError, DivergedError: as in `sample`.
        """
        if isinstance(eta, torch.Generator):  # in the place where some schedulers have it
            eta = 0.0
        if eta or use_clipped_model_output or variance_noise is not None:
            raise SchedulerError(f"eta={shown(eta)} and clipped outputs are no part of an ODE; leave them out")
        for name in more.keys() - {"prev_timestep"}:  # which is known here
            if more[name] is not None:
                raise SchedulerError(f"{name} is no argument of a step here; use the pipeline's own scheduler")
        if self._run is None or not self._over.ended or not self._method.adaptive:
            self._check_turn(timestep)
            check_sample(sample, model_output)
            self._answer(model_output[:, : sample.shape[1]], sample)
        elif not torch.equal(sample, self._run.given):
            raise SchedulerError("this run has ended, and the sample is another; call set_timesteps before another run")
        assert self._run is not None
        handed = self._run.given.clone()  # which a pipeline may change in place
        if not return_dict:
            return handed, self._run.image
        return ODESchedulerOutput(prev_sample=handed, pred_original_sample=self._run.image)
