"""The methods of this library as a scheduler of diffusers, for any pipeline of a variance-preserving model.

A solver of ours calls the network; a pipeline calls the network itself and asks the scheduler what to call it with.
So the solver's network here is an `OutsideNetwork`, a list of answers. Where it runs out, the solver is interrupted,
and what it asked for is what the pipeline gets; with the next answer, the interval that was interrupted begins again
from its start. An interval is a function of what came before it and of its answers, and few evaluations long: nothing
but those is kept, nothing is approximated, and what is repeated is arithmetic, never the network.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim_ode.checkpoints.scheduler_config import read_scheduler
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.grids import GRIDS, GridError
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.paths import f64
from ddim_ode.planning.budget import DryRun, grid_for
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import Method, Step, get_method, moves

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
except ImportError as error:
    raise ImportError("a scheduler of diffusers needs diffusers; pip install 'ddim_ode[diffusers]'") from error


class SchedulerError(DDIMError):
    """A scheduler that cannot be, or a call that it has no answer to."""


class ODEScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # the two differ in a declaration
    """A fixed-grid, deterministic method of `METHODS` as `pipe.scheduler`.

    `ODEScheduler.from_config(pipe.scheduler.config, method="unipc_2")` takes over the model's schedule and prediction.

    `set_timesteps(n)` takes n as the most predictions that a sample may cost, as `sample(nfe=n)` does; `timesteps` has
    one entry for each, in fractions, methods of several evaluations a step included. So `order` is 1. Under guidance a
    prediction costs a pipeline two passes of the network, which `nfe` counts and n does not.

    Clipping and thresholding of the prediction (`clip_sample`, `thresholding`) are no part of an ODE; they stay in the
    config, for whoever is made from it, and do nothing. Half-precision pipelines get a float32 state.

    Args:
        method: a name in `METHODS`.
        grid: a name in `GRIDS`; None is the method's own.
        final: "denoise", or "sigma_min" to stop at the model's smallest sigma.
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the schedule
            that the model was trained on, as in `DDIMScheduler`; "linear", "scaled_linear" or "squaredcos_cap_v2".
        prediction_type: "epsilon", "sample" or "v_prediction".
        quantize: round timesteps, for a network that cannot take fractions.

    Raises:
        MethodError, GridError, SchedulerError: a name that is unknown, a method that is adaptive or draws noise.
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
        quantize: bool = False,
    ):
        if not isinstance(method, str):
            raise SchedulerError(
                f"method is a {type(method).__name__}, which no config can hold; give a name in METHODS"
            )
        self._method = get_method(method)
        if self._method.adaptive or not self._method.deterministic:
            why = "chooses its timesteps on the way" if self._method.adaptive else "draws noise on the way"
            raise SchedulerError(f"method={method!r} {why}, and a pipeline cannot follow; use one such as 'dpmpp_2m'")
        if grid is not None and grid not in GRIDS:
            raise GridError(unknown("grid", grid, GRIDS))
        schedule, predicts = read_scheduler(self.config)
        self._model = Denoiser(OutsideNetwork(), schedule.path(), predicts, (1, 1, 1), quantize=quantize)
        self.timesteps = torch.empty(0)
        self.num_inference_steps: int | None = None
        self._sigmas = f64([])
        self._begin = 0
        self._run: PipelineRun | None = None

    @classmethod
    def from_config(
        cls, config: dict[str, Any] | None = None, return_unused_kwargs: bool = False, **changes: Any
    ) -> Any:
        """The scheduler of a config, such as `pipe.scheduler.config`, with some entries changed.

        Raises:
            ScheduleError: a scheduler without betas, of a flow model for instance.
        """
        config = config or {}
        read_scheduler({**config, **changes})  # diffusers would take the betas to be ours by default
        return super().from_config(config, return_unused_kwargs, **changes)

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Plan for so many evaluations, or along explicit sigmas as `sample(grid=...)` takes them; forget the last run.

        Raises:
            SampleError, GridError: a budget that one step exceeds, a grid that the model cannot have.
        """
        options = SolveOptions(
            method=self.config["method"],
            nfe=num_inference_steps,
            grid=self.config["grid"] if sigmas is None else sigmas,
            final=self.config["final"],
        )
        self._sigmas = grid_for(self._model, options)
        self.timesteps = self._times(self._sigmas).to(device)
        self.num_inference_steps = num_inference_steps or len(self.timesteps)
        self._begin, self._run = 0, None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at timesteps[begin_index], as pipelines do that start from an image.

        Raises:
            SchedulerError: no step of the method begins there.
        """
        rest = self.timesteps[begin_index:].cpu()
        for n in range(len(self._sigmas) - 1):
            times = self._times(self._sigmas[n:])
            if len(times) == len(rest) and torch.allclose(times, rest):
                self._sigmas, self._begin = self._sigmas[n:], begin_index
                return
        raise SchedulerError(
            f"no step of {self.config['method']!r} begins at timesteps[{begin_index}]; use another strength"
            ", or a method of one evaluation a step, such as 'dpmpp_2m'"
        )

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """The sample itself: it is in the network's own scale."""
        return sample

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
            raise SchedulerError(f"eta={eta} and clipped outputs are no part of an ODE; leave them out")
        run = self._run
        place = self._begin + (run.asked if run else 0)
        if place >= len(self.timesteps) or abs(float(timestep) - float(self.timesteps[place])) > 1e-2:
            turn = f"timesteps[{place}]" if place < len(self.timesteps) else "set_timesteps"
            raise SchedulerError(f"step was called at timestep={float(timestep):g}, where it is the turn of {turn}")
        if run is None:
            run = self._run = PipelineRun(self._model, self._method, self._sigmas, sample)
        elif not torch.equal(sample, run.given):
            run.restart(sample)
        run.go(model_output[:, : sample.shape[1]])
        handed = run.given.clone()  # which a pipeline may change in place
        return SchedulerOutput(prev_sample=handed) if return_dict else (handed,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """a(t) x0 + b(t) eps for timesteps (B,), fractions included."""
        a, b = self._model.path.coefficients(timesteps.double().cpu())
        return along(a, original_samples) * original_samples + along(b, noise) * noise

    def _times(self, sigmas: Tensor) -> Tensor:
        """The timesteps, float32, at which the method asks the network."""
        return self._model.time(f64(DryRun(self._model, self._method.path, self._method.solver, sigmas).asked)).float()


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

    def restart(self, x: Tensor) -> None:
        """Begin the next step from x instead of from what was given."""
        if self.answers.known or self.method.invertible:
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
