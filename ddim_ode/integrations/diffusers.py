"""The methods of this library as a scheduler of diffusers, for any pipeline of a variance-preserving model.

A solver of ours calls the network; a pipeline calls the network itself and asks the scheduler what to call it with. So
a run is interrupted wherever its solver asks: see `integrations.runs`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim_ode.checkpoints.scheduler_config import Scheduler, read_scheduler, with_defaults
from ddim_ode.grids import shape_of
from ddim_ode.integrations.callers import calling_pipeline, last_timestep, refuse_flows
from ddim_ode.integrations.runs import Left, OutsideNetwork, PipelineRun, SchedulerError, check_sample
from ddim_ode.integrations.tables import check_scaled, check_steps, first_scale, method_for
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.ode.flow import along
from ddim_ode.paths import f64
from ddim_ode.planning.budget import DryRun, grid_for
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.origins import check_range
from ddim_ode.support.checks import flag, of_kind, shown, whole
from ddim_ode.support.scalars import number

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
except ImportError as error:
    raise ImportError("a scheduler of diffusers needs diffusers; pip install 'ddim_ode[diffusers]'") from error


class ODEScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # the two differ in a declaration
    """A fixed-grid, deterministic method of `METHODS` as `pipe.scheduler`.

    `ODEScheduler.from_config(pipe.scheduler.config, method="unipc_2")` takes over the model's schedule and prediction.

    `set_timesteps(n)` takes n as the most predictions that a sample may cost, as `sample(nfe=n)` does; `timesteps` has
    one entry for each, in fractions, methods of several evaluations a step included. So `order` is 1. Under guidance a
    prediction costs a pipeline two passes of the network, which `nfe` counts and n does not.

    It holds one run, which `set_timesteps` begins: two requests at a time need a scheduler each. A sample that an
    earlier run handed out, and did not come back for, is refused as long as a tenth of its numbers are unchanged.
    Any other sample that is not the one handed out is taken as an edit, since nothing tells it from one.

    A pipeline that was written for models without betas, of flows for instance, is refused by the annotation of its
    scheduler, and so are a `mu` and the sigmas that they give. One that says nothing of that kind cannot be told from
    others.

    Between the evaluations of one step, `prev_sample` is a question to the network and no state of the image. A
    pipeline that stops there by its `denoising_end` is refused; one that stops there otherwise has no image.

    Clipping and thresholding of the prediction (`clip_sample`, `thresholding`) are no part of an ODE; they stay in the
    config, for whoever is made from it, and do nothing. Half-precision pipelines get a float32 state.

    Args:
        method: a name in `METHODS`, or "tuned".
        tuned: of the method "tuned" the file, whose budgets alone can be `num_inference_steps`. Whether it was tuned to
            this network and guidance nobody can see here. Tables begin with noise, and with what `scale_model_input`
            makes of it, so that pipelines which start from an image, or never ask for that, are refused.
        grid: a name in `GRIDS`; None is the method's own.
        final: "denoise", or "sigma_min" to stop at the model's smallest sigma.
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the schedule
            that the model was trained on, as in `DDIMScheduler`; "linear", "scaled_linear" or "squaredcos_cap_v2".
        snr_shift_scale: what the schedule's signal-to-noise ratios are divided by, as in `CogVideoXDDIMScheduler`.
        prediction_type: "epsilon", "sample" or "v_prediction".
        quantize: round timesteps, for a network that cannot take fractions.

    Raises:
        MethodError, GridError, SchedulerError: a name that is unknown, a method that is adaptive or draws noise, or one
            that was tuned to sigmas that this schedule does not have.
        TunedError: the file of a tuned method is missing or damaged.
        ScheduleError: a schedule or a prediction that is unknown.
        DenoiserError: noise prediction at zero terminal SNR.
    """

    order = 1
    init_noise_sigma = 1.0
    # Not a ClassVar, as ruff would have it: diffusers declares it so, and looks it up on the class.
    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        method: str = "dpmpp_2m",
        *,
        grid: str | None = None,
        final: str = "denoise",
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
    ):
        if not isinstance(method, str):
            raise SchedulerError(
                f"method is a {type(method).__name__}, which no config can hold; give a name in METHODS"
            )
        self._method = method_for(method, tuned, grid, final)
        if self._method.adaptive or not self._method.deterministic:
            why = "chooses its timesteps on the way" if self._method.adaptive else "draws noise on the way"
            raise SchedulerError(f"method={method!r} {why}, and a pipeline cannot follow; use one such as 'dpmpp_2m'")
        self._asked = method if tuned is None else self._method
        if grid is not None:
            shape_of(grid)
        flag("quantize", quantize)
        # diffusers drops values that nobody gave when it makes another scheduler of a config, and others have others.
        dropped = [key for key in self.config.get("_use_default_values", ()) if key not in Scheduler.model_fields]
        self.register_to_config(_use_default_values=dropped, tuned=None if tuned is None else os.fspath(tuned))
        schedule, predicts = read_scheduler(self.config)
        self._model = Denoiser(OutsideNetwork(), schedule.path(), predicts, (1, 1, 1), quantize=quantize)
        check_range(self._model.sigma_min, self._model.sigma_max, self._method)
        self.timesteps = torch.empty(0)
        self.num_inference_steps: int | None = None
        self._grid = self._sigmas = f64([])
        self._begin, self._scale, self._scaled = 0, 1.0, False
        self._run: PipelineRun | None = None
        self._left = Left()

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, return_unused_kwargs: bool = False, **changes: Any
    ) -> Any:
        """The scheduler of a config, such as `pipe.scheduler.config`, with some entries changed.

        Raises:
            ScheduleError: a scheduler without betas, of a flow model for instance, or a key that is unknown and might
                mean another schedule.
        """
        config = {} if config is None else config
        of_kind("config", config, Mapping, "the config of a scheduler, such as pipe.scheduler.config")
        read_scheduler({**config, **changes})  # diffusers would take the betas to be ours by default
        return super().from_config(with_defaults(config), return_unused_kwargs, **changes)

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Plan for so many evaluations, or along explicit sigmas as `sample(grid=...)` takes them; begin a new run.

        mu: a flow's, which there is none of here.

        Raises:
            SampleError, GridError: a budget that one step exceeds, a grid that the model cannot have.
            SchedulerError: a pipeline of flows, or one that would stop within a step.
        """
        pipe = calling_pipeline(self)
        refuse_flows(pipe, sigmas, mu)
        options = SolveOptions(
            method=self._asked,
            nfe=num_inference_steps,
            grid=self.config["grid"] if sigmas is None else sigmas,
            final=self.config["final"],
        )
        check_steps(self._model, options)
        self._grid = self._sigmas = grid_for(self._model, options)
        self._scale = first_scale(self._model, self._method, self._grid)
        times = self._times(self._grid)
        try:
            self.timesteps = times.to(device)
        except (RuntimeError, TypeError, AssertionError):  # of torch, for a device that is not there
            raise SchedulerError(f"device={shown(device)} is none that there is here; use 'cpu'") from None
        self.num_inference_steps = num_inference_steps or len(self.timesteps)
        self._new_run(0)
        self._check_end(pipe)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at timesteps[begin_index], as pipelines do that start from an image.

        Raises:
            SchedulerError: no step of the method begins there.
        """
        begin = whole("begin_index", begin_index, SchedulerError, least=0)
        n = self._step_at(begin)
        if n is None:
            raise SchedulerError(
                f"no step of {self.config['method']!r} begins at timesteps[{begin}]; use another strength"
                ", or a method of one evaluation a step, such as 'dpmpp_2m'"
            )
        self._sigmas = self._grid[n:]
        self._new_run(begin)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """The sample itself, in the network's own scale; the first one of a table times the scale of the table."""
        if self._run is not None or self._scale == 1:
            return sample
        self._scaled = True
        return self._scale * sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Any = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """Take the network's answer to sample (B, *shape) at the timestep; return what to ask it next, or the image.

        Where a pipeline changes the sample between two steps, as inpainting does, the next one begins from that.
        Of an answer with twice the channels the second half, learned variances, is left out. generator is not used.

        Raises:
            SchedulerError: timesteps out of turn, a sample that was changed within a step, or eta.
            NonFiniteError, DivergedError: as in `sample`.
        """
        if eta or use_clipped_model_output:
            raise SchedulerError(f"eta={shown(eta)} and clipped outputs are no part of an ODE; leave them out")
        if isinstance(timestep, Tensor) and timestep.numel() == 1:  # of any shape, as other schedulers take it
            timestep = timestep.reshape(())
        time, run = number(timestep), self._run
        place = self._begin + (run.asked if run else 0)
        if not (place < len(self.timesteps) and abs(time - float(self.timesteps[place])) <= 1e-2):
            turn = f"timesteps[{place}]" if place < len(self.timesteps) else "set_timesteps"
            raise SchedulerError(
                f"step was called at timestep={shown(timestep) if time != time else f'{time:g}'}, where it is the turn"
                f" of {turn}"
            )
        check_sample(sample, model_output)
        if run is None:
            self._left.refuse(sample)
            check_scaled(self._scale, self._scaled)
            run = self._run = PipelineRun(self._model, self._method, self._sigmas, sample)
        elif not torch.equal(sample, run.given):
            self._left.refuse(sample, run.given)
            run.restart(sample)
        run.go(model_output[:, : sample.shape[1]])
        handed = run.given.clone()  # which a pipeline may change in place
        return SchedulerOutput(prev_sample=handed) if return_dict else (handed,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """a(t) x0 + b(t) eps for timesteps (B,) or (1,), fractions included.

        Raises:
            SchedulerError: timesteps outside of the schedule, or not as many as samples.
        """
        for name, value in (("original_samples", original_samples), ("noise", noise), ("timesteps", timesteps)):
            of_kind(name, value, Tensor, "a tensor")
        t = timesteps.detach().double().cpu()
        last = self._model.path.num_timesteps - 1
        if noise.shape != original_samples.shape or t.ndim > 1 or t.numel() not in (1, len(original_samples)):
            raise SchedulerError(
                f"noise {tuple(noise.shape)} and timesteps {tuple(t.shape)} do not fit original_samples"
                f" {tuple(original_samples.shape)}; give noise of the same shape, and a timestep for each sample"
            )
        if not ((t >= 0) & (t <= last)).all():
            raise SchedulerError(f"timesteps {float(t.min()):g} to {float(t.max()):g} must be within 0 to {last}")
        a, b = self._model.path.coefficients(t)
        if self._model.path.zero_terminal_snr:  # whose last timestep, pure noise, is beyond the path
            a, b = torch.where(t < last, a, 0.0), torch.where(t < last, b, 1.0)
        return along(a, original_samples) * original_samples + along(b, noise) * noise

    def _times(self, sigmas: Tensor) -> Tensor:
        """The timesteps, float32, at which the method asks the network."""
        return self._model.time(f64(DryRun(self._model, self._method.path, self._method.solver, sigmas).asked)).float()

    def _step_at(self, place: int) -> int | None:
        """Which interval of the grid begins with the question at timesteps[place], if any does."""
        if self._method.own_grids:  # tables have no state to begin from but noise
            return None if place else 0
        rest = self.timesteps[place:].cpu()
        for n in range(len(self._grid) - 1):
            times = self._times(self._grid[n:])
            if len(times) == len(rest) and torch.allclose(times, rest):
                return n
        return None

    def _new_run(self, begin: int) -> None:
        """Forget the run, but for what it handed out if that was not its image."""
        if self._run is not None and not self._run.ended:
            self._left.remember(self._run)
        self._begin, self._run, self._scaled = begin, None, False

    def _check_end(self, pipe: Any) -> None:
        """Raise SchedulerError where a pipeline is told to stop between two evaluations of a step."""
        least = last_timestep(pipe, int(self.config["num_train_timesteps"]))
        stop = len(self.timesteps) if least is None else int((self.timesteps >= least).sum())
        if 0 < stop < len(self.timesteps) and self._step_at(stop) is None:
            raise SchedulerError(
                f"denoising_end stops the pipeline at timesteps[{stop}], in the midst of a step of"
                f" {self.config['method']!r}; use a method of one evaluation a step, such as 'dpmpp_2m'"
            )
