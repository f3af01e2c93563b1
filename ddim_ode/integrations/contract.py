"""What pipelines of diffusers expect of a scheduler besides its steps, and the run that it holds."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim_ode.checkpoints.frames import Frame
from ddim_ode.integrations.callers import shorten_bar
from ddim_ode.integrations.handed import Left, SchedulerError, SpentWarning
from ddim_ode.integrations.noising import noised
from ddim_ode.integrations.originals import check_taken, explodes
from ddim_ode.integrations.plans import PipelinePlan, plan_on_our_grid, plan_on_own_grid
from ddim_ode.integrations.runs import PipelineRun
from ddim_ode.integrations.tables import check_scaled
from ddim_ode.integrations.timesteps import LiveTimesteps, Over
from ddim_ode.ode.flow import along
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import Method
from ddim_ode.support.checks import shown, whole
from ddim_ode.support.scalars import number

FINE = 100  # steps of training, from which on there are pipelines that tell whole ones
WHOLE = 1.01  # timestep, by which pipelines that cut theirs to whole ones may miss it
TURN = 1e-5  # by which a timestep may miss the one whose turn it is, in units of their range
#: facts about a model, which pipelines read off their own scheduler, or change there
FACTS = ("alphas", "alphas_cumprod", "betas", "final_alpha_cumprod", "shift", "sigma_max", "sigma_min")
#: what else some pipelines read off theirs
READ = ("_get_conditioning_c_in", "_step_index", "last_sample", "model_outputs", "sigmas")


class PipelineContract:
    """A scheduler's side of a pipeline: timesteps, noise, where to begin, and one run at a time."""

    order = 1
    config: Any
    _asked: str | Method
    _method: Method
    _frame: Frame
    _original: Any

    def __init__(self) -> None:
        self._original: Any = None
        self.timesteps = self._times = torch.empty(0)
        self.num_inference_steps: int | None = None
        self._plan: PipelinePlan | None = None
        self._begin, self._given_begin, self._scaled = 0, False, False
        self._run: PipelineRun | None = None
        self._left, self._over = Left(), Over()

    def __getattr__(self, name: str) -> Any:
        original = self.__dict__.get("_original")
        if name in FACTS and original is not None:
            return getattr(original, name)
        if name.startswith("__") or name not in READ:
            return super().__getattr__(name)  # type: ignore[misc]  # of diffusers, which says that there is none
        raise AttributeError(
            f"ODEScheduler has no {name}, which this pipeline reads or changes; use the pipeline's own scheduler"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FACTS and self.__dict__.get("_original") is not None:
            setattr(self._original, name, value)
        else:
            super().__setattr__(name, value)

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def __getstate__(self) -> dict[str, Any]:
        """Everything but a run under way, of which there can be one only."""
        own = {name: value.clone() for name, value in vars(self).items() if name in ("_times", "sigmas")}
        return {**vars(self), **own, "_run": None, "_left": Left(), "_over": Over()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._plan:
            self._new_run(self._begin, self._given_begin)

    @property
    def frame(self) -> Frame:
        """What the network is; after `set_timesteps`, with the labels that it is told."""
        return self._plan.frame if self._plan else self._frame

    @property
    def exploding(self) -> bool:
        """Whether samples are xbar, which `scale_model_input` scales for the network."""
        return self._plan.exploding if self._plan else self._original is not None and explodes(self._original)

    @property
    def init_noise_sigma(self) -> float:
        """What a pipeline multiplies its noise by; tables have their own scale in `scale_model_input`."""
        return self._plan.begin if self._plan and not self._method.own_grids else 1.0

    @property
    def step_index(self) -> int | None:
        """How many network calls have been answered, those before the begin included; None before the first."""
        return self._begin + self._run.asked if self._run else None

    @property
    def begin_index(self) -> int | None:
        """With which network call the run begins, if a pipeline has said so."""
        return self._begin if self._given_begin else None

    @property
    def converged(self) -> bool | None:
        """Whether an adaptive run kept to its tolerance all the way; None before its end, and of other methods."""
        outcome = self._run.outcome if self._run else None
        return bool(outcome.converged.all()) if outcome else None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at timesteps[begin_index], as pipelines do that start from an image.

        Raises:
            SchedulerError: no step of the method begins there.
        """
        begin = whole("begin_index", begin_index, SchedulerError, least=0)
        if self._plan is None or self._plan.rest(begin) is None:
            raise SchedulerError(
                f"no step of {self.config['method']!r} begins at timesteps[{begin}]; use another strength"
                ", or a method of one evaluation a step, such as 'dpmpp_2m'"
            )
        self._new_run(begin, said=True)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """What the network sees of the sample; of a table's first one, times the scale of the table."""
        if self._plan is None:
            return sample
        if self._plan.exploding:
            question = self._run.question if self._run else None
            sigma = question.sigma if question else self._plan.calls[self._place_of(timestep) or self._begin]
            return sample * along(self._plan.frame.path.scale(sigma), sample)
        if self._run is not None or not self._method.own_grids or self._plan.begin == 1:
            return sample
        self._scaled = True
        return self._plan.begin * sample

    def _answer(self, out: Tensor, sample: Tensor) -> None:
        """On to the next network call, whose timestep is written where it was not known."""
        run = self._run
        if run is None:
            assert self._plan is not None
            self._left.refuse(sample)
            self._check_sigmas()
            check_scaled(self._plan.begin if self._method.own_grids else 1.0, self._scaled)
            plan = self._plan.rest(self._begin)
            assert plan is not None
            run = self._run = plan.run(sample)
            run.go(out)
        elif torch.equal(sample, run.given):
            run.go(out)
        else:
            self._left.refuse(sample, run.given)
            run.go(out, about=sample)
        self._over.ended = run.ended
        if run.ended and self._method.adaptive:
            shorten_bar()
            if not self.converged:
                warnings.warn(
                    f"{run.asked} network calls did not do for this tolerance, and the rest is one step; give more by"
                    " num_inference_steps, or a larger tol",
                    SpentWarning,
                    stacklevel=4,
                )
        if run.question is not None and self._method.adaptive:
            self._write(self._begin + run.asked, run.question.sigma)

    def _write(self, place: int, sigma: Tensor) -> None:
        """Say where the network is called next, where pipelines look for it."""
        assert self._plan is not None
        self._times[place] = self._plan.times(sigma)
        if self._plan.frame.shares or self._plan.exploding:
            self.sigmas[place] = self._plan.frame.theirs(sigma)

    def _check_turn(self, timestep: Any) -> None:
        """Raise SchedulerError unless it is the turn of that timestep. The first may be any where a step begins."""
        if isinstance(timestep, Tensor) and timestep.numel() == 1:  # of any shape, as other schedulers take it
            timestep = timestep.reshape(())
        time, times, room = number(timestep), self._times, self.room
        if self._run is None and not self._given_begin and (begin := self._place_of(timestep)):
            self.set_begin_index(begin)
        place = self._begin + (self._run.asked if self._run else 0)
        if not (place < len(times) and abs(time - float(times[place])) <= room):
            turn = f"timesteps[{place}]" if place < len(times) else "set_timesteps"
            raise SchedulerError(
                f"step was called at timestep={shown(timestep) if time != time else f'{time:g}'}, where it is the turn"
                f" of {turn}"
            )

    @property
    def room(self) -> float:
        """By how much a timestep may miss the one that it is. Pipelines of flows may have rounded theirs."""
        if self._plan is None or not len(self._times):
            return 0.0
        falls = self._times.double().sort().values.diff()
        least = max(TURN * float(falls.sum()), 1e-6)
        if not self._plan.frame.shares or len(self) < FINE:
            return least
        return max(least, min(WHOLE, float(falls.min()) / 2)) if len(falls) else WHOLE

    def _place_of(self, timestep: Any) -> int | None:
        """The place of a timestep, a number or a tensor of one."""
        if self._plan is None or not len(self._times):
            return None
        away = (self._times - number(timestep)).abs().nan_to_num(torch.inf)
        place = int(away.argmin())
        return place if float(away[place]) <= self.room else None

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """a(t) x0 + b(t) eps for timesteps (B,) or (1,), fractions included.

        Raises:
            SchedulerError: timesteps outside of the schedule, or not as many as samples.
        """
        return noised(self.frame, self._plan, self.exploding, original_samples, noise, timesteps)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` in the words of pipelines of flows."""
        return self.add_noise(sample, noise, timestep)

    def _planned(self, calls: int | None, given: Mapping[str, Any]) -> PipelinePlan:
        grid, final = self.config["grid"], self.config["final"]
        if self._original is None:
            grid = grid if given["sigmas"] is None else given["sigmas"]
            for name in given.keys() - {"sigmas", "mu"}:
                if given[name] is not None:
                    raise SchedulerError(f"{name} does nothing here; give sigmas, or use ODEScheduler.from_scheduler")
        elif grid is None and not self._method.grids:
            if final != "denoise":
                raise SchedulerError(f"final={final!r} is of our grids, and this is the scheduler's own; give a grid")
            return plan_on_own_grid(self._original, self._method, calls, given, self.config["tol"])
        else:
            check_taken(self._original, given)  # pipelines give what their own scheduler would step on
        options = SolveOptions(method=self._asked, nfe=calls, grid=grid, final=final, tol=self.config["tol"])
        return plan_on_our_grid(self._frame, self._method, options)

    def _publish_sigmas(self) -> None:
        """Tell pipelines the sigmas at which their network is called, (n + 1,) with the last, as their own scheduler's
        are: shares of noise of flows, and ratios where samples are xbar. Of others nobody can use them.
        """
        assert self._plan is not None
        if self._plan.frame.shares or self._plan.exploding:
            last = self._plan.sigmas[-1:]
            self.sigmas = self._plan.frame.theirs(torch.cat([self._plan.calls, last])).float()
            self._published = self.sigmas.clone()

    def _check_sigmas(self) -> None:
        """Raise SchedulerError where a pipeline has written into the sigmas, which nobody here would heed."""
        assert self._plan is not None
        published = self._plan.frame.shares or self._plan.exploding
        if published and not torch.equal(torch.as_tensor(self.sigmas).cpu(), self._published):
            raise SchedulerError("this pipeline has changed the sigmas of its scheduler; use its own scheduler")

    def _new_run(self, begin: int, said: bool) -> None:
        """Forget the run, but for what it handed out if that was not its image."""
        if self._run is not None and not self._run.ended:
            self._left.remember(self._run.given, self._run.within)
        self._begin, self._given_begin, self._run, self._scaled = begin, said, None, False
        self._over.ended = False
        self.timesteps = LiveTimesteps.of(self._times, self._over) if self._method.adaptive else self._times
