"""What a scheduler of diffusers in memory says about the network that it drives: one frame for every kind.

    betas           `alphas_cumprod`: DDPM's schedule, told timesteps
    flow            FlowMatch..., or use_flow_sigmas: told the share of noise, or what it was before a shift
    preconditioned  `precondition_outputs`: EDM's, told log(sigma) / 4, or Stable Audio's, told the angle
    continuous      timestep_type="continuous", Stable Video Diffusion's: told log(sigma) / 4

The schedule is read off the object wherever it has it, and not off its config, so that no key can be missed. diffusers
is not imported.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim_ode.checkpoints.scheduler_config import FIXED, PREDICTION, SAMPLING, ScheduleError, Scheduler
from ddim_ode.continuous import Preconditioned, TimedFlow
from ddim_ode.errors import unknown
from ddim_ode.paths import DiscreteVP, Path
from ddim_ode.support.checks import described, shown

NEAR = 1e-6  # what is left of the image where sampling begins with pure noise, as in diffusers' UniPC
LEAST_SHARE = 1e-3  # of noise, which flows are trained with
MOST_SIGMA = 1e4  # where sampling from a flow begins on our grids: all but 1e-4 is noise
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
PROBES = (0.1, 1.0, 10.0)  # sigmas at which a preconditioned scheduler is asked what it does

_KNOWN = SAMPLING | set(Scheduler.model_fields)
_OF_FLOWS = "shift use_flow_sigmas base_shift max_shift base_image_seq_len max_image_seq_len invert_sigmas"
_OF_EDM = "sigma_data sigma_schedule rho timestep_type"


@dataclass(frozen=True)
class Frame:
    """What a scheduler says about its network.

    path: whose time is what the network is told. predicts: as in `Denoiser`, of what `answer` returns.
    end: the sigma at which there is nothing left to integrate. shares: whether the scheduler's sigmas are shares of
    noise, and not our noise-to-signal ratios. sign: of what the network returns. preconditioned: whether it returns
    EDM's F, of which the image is made.
    """

    path: Path
    predicts: str
    end: float
    shares: bool = False
    sign: float = 1.0
    preconditioned: bool = False

    def answer(self, out: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """What `predicts` names, of the network's output at x (B, ...) in its own scale; sigma (B,) or ()."""
        out = out if self.sign == 1 else self.sign * out
        if not self.preconditioned:
            return out
        assert isinstance(self.path, Preconditioned)
        sd, a = self.path.sigma_data, self.path.scale(sigma)
        skip, of_out = ((c.to(x) if c.ndim == 0 else c.to(x).reshape(-1, *[1] * (x.ndim - 1))) for c in (a, a * sigma))
        return sd**2 * skip * x + sd * of_out * out

    def on_our_grids(self) -> Path:
        """The path in the range of sigma in which the network was trained."""
        return replace(self.path, sigma_min=self.end, sigma_max=MOST_SIGMA) if self.shares else self.path

    def ratios(self, sigmas: Tensor) -> Tensor:
        """Our sigmas, float64, of the scheduler's own."""
        sigmas = sigmas.detach().cpu().double()
        if not self.shares:
            return sigmas
        share = (1 - sigmas if self._inverted else sigmas).clamp(max=1 - NEAR)
        return share / (1 - share)

    def theirs(self, sigmas: Tensor) -> Tensor:
        """The scheduler's own sigmas, float64, of ours."""
        if not self.shares:
            return sigmas
        share = sigmas / (1 + sigmas)
        return 1 - share if self._inverted else share

    @property
    def _inverted(self) -> bool:
        return isinstance(self.path, TimedFlow) and self.path.inverted


def frame_of(scheduler: Any) -> Frame:
    """The frame of a scheduler of diffusers.

    Raises:
        ScheduleError: it is of no kind that is known here, or has a key or a value in its config that is not.
    """
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise ScheduleError(f"the scheduler is {described(scheduler)} without a config; use one of diffusers")
    for row in ROWS:
        if (found := row(scheduler, config)) is not None:
            return found
    raise ScheduleError(
        f"{_name(scheduler)} is of no kind that is known here: it has neither betas nor the sigmas of a flow, nor the"
        " preconditioning of EDM; give what its network is to Denoiser"
    )


def told_before_shift(frame: Frame, sigmas: Tensor, labels: Tensor, who: str) -> Frame:
    """The frame, or the one of the shift before which the network is told its time, if the labels (N,) that a scheduler
    has for our sigmas (N,) are those.

    Raises ScheduleError for labels that are neither.
    """
    path, labels = frame.path, labels.detach().cpu().double()
    room = 1.0 if isinstance(path, TimedFlow) else 1e-3  # a scheduler may round what it says to whole timesteps
    if ((path.u(sigmas) - labels).abs() <= room).all():
        return frame
    if isinstance(path, TimedFlow) and not path.inverted:
        told = labels / path.timesteps
        shifts = (sigmas * (1 - told) / told)[(told > 0) & (told < 1)]
        if len(shifts) and ((shift := shifts.median()) > 0):
            other = replace(frame, path=replace(path, shift=float(shift)))
            if ((other.path.u(sigmas) - labels).abs() <= room).all():
                return other
    raise ScheduleError(f"{who}: its timesteps are not those of its sigmas by any rule that is known here")


def _betas(scheduler: Any, config: Mapping[str, Any]) -> Frame | None:
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None or config.get("prediction_type", "epsilon") == "flow_prediction":
        return None
    who = _name(scheduler)
    _check_keys(config, who, _KNOWN, FIXED)
    predicts = _prediction(config, who)
    values = np.atleast_1d(torch.as_tensor(table).detach().cpu().double().numpy()).copy()
    if values[-1] == 0:
        if predicts == "noise":
            raise ScheduleError(f"{who} ends with pure noise, about whose image a prediction of the noise says nothing")
        values[-1] = NEAR**2
    path = DiscreteVP(values)
    return Frame(path, predicts, path.sigma_min)


def _flow(scheduler: Any, config: Mapping[str, Any]) -> Frame | None:
    by_name = any(parent.__name__ in FLOWS for parent in type(scheduler).__mro__)
    if not by_name and not config.get("use_flow_sigmas"):
        return None
    who = _name(scheduler)
    _check_keys(config, who, _KNOWN | set(_OF_FLOWS.split()), {})
    kind = config.get("prediction_type", "flow_prediction" if by_name else "epsilon")
    if not by_name and kind != "flow_prediction":
        raise ScheduleError(f"{who} has use_flow_sigmas and prediction_type={shown(kind)}, which is not known here")
    inverted = bool(config.get("invert_sigmas"))
    path = TimedFlow(NEAR, 1 / NEAR, float(config.get("num_train_timesteps", 1000)), inverted)
    end = LEAST_SHARE / (1 - LEAST_SHARE)
    return Frame(path, "flow", end, shares=True, sign=-1.0 if inverted else 1.0)


def _preconditioned(scheduler: Any, config: Mapping[str, Any]) -> Frame | None:
    if not all(hasattr(scheduler, f"precondition_{what}") for what in ("inputs", "noise", "outputs")):
        return None
    who = _name(scheduler)
    _check_keys(config, who, _KNOWN | set(_OF_EDM.split()), {})
    sigmas, one = torch.tensor(PROBES), torch.ones(())
    told = torch.cat([torch.as_tensor(scheduler.precondition_noise(sigma.reshape(1))).reshape(1) for sigma in sigmas])
    paths = (
        Preconditioned(config["sigma_min"], config["sigma_max"], config["sigma_data"], t) for t in ("log", "angle")
    )
    path = next((path for path in paths if torch.allclose(path.u(sigmas.double()).float(), told, atol=1e-6)), None)
    if path is None:
        raise ScheduleError(f"{who} tells its network neither log(sigma) / 4 nor the angle, which alone are known here")
    for sign in (1.0, -1.0):
        frame = Frame(path, "data", path.sigma_min, sign=sign, preconditioned=True)
        if all(_same_outputs(scheduler, frame, sigma, one) for sigma in sigmas):
            return frame
    raise ScheduleError(f"{who} makes its images by another rule than EDM's, which alone is known here")


def _same_outputs(scheduler: Any, frame: Frame, sigma: Tensor, one: Tensor) -> bool:
    """Whether an image is made of a state xbar = 1 and an output of 1 / 2 as the frame says."""
    x = frame.path.scale(sigma.double()).float() * one
    theirs = torch.as_tensor(scheduler.precondition_outputs(one, one / 2, sigma))
    return torch.allclose(frame.answer(one / 2, x, sigma.double()), theirs.float().reshape(()), rtol=1e-5, atol=1e-6)


def _continuous(scheduler: Any, config: Mapping[str, Any]) -> Frame | None:
    if config.get("timestep_type", "discrete") != "continuous":
        return None
    who = _name(scheduler)
    _check_keys(config, who, _KNOWN | {"timestep_type"}, {})
    low, high = (config.get(key) for key in ("sigma_min", "sigma_max"))
    if low is None or high is None:
        table = torch.as_tensor(scheduler.alphas_cumprod).double()
        ends = torch.sqrt((1 - table) / table)[[0, -1]].tolist()
        low, high = (given if given is not None else own for given, own in zip((low, high), ends, strict=True))
    path = Preconditioned(float(low), float(high))
    return Frame(path, _prediction(config, who), path.sigma_min)


ROWS: tuple[Callable[[Any, Mapping[str, Any]], Frame | None], ...] = (_preconditioned, _flow, _continuous, _betas)


def _prediction(config: Mapping[str, Any], who: str) -> str:
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTION:
        raise ScheduleError(f"{who}: {unknown('prediction_type', kind, PREDICTION)}")
    return PREDICTION[kind]


def _check_keys(config: Mapping[str, Any], who: str, known: Any, fixed: Mapping[str, tuple[Any, str]]) -> None:
    """Raise ScheduleError for a key that is not known, or one of another model whose value is not the usual one."""
    for key, value in config.items():
        if key.startswith("_") or key in known or value is None:
            continue
        if key not in fixed:
            raise ScheduleError(
                f"{who}: {key}={shown(value)} is not known here, and might change what the network is told"
                f"; leave {key} out if it does not"
            )
        usual, remedy = fixed[key]
        if value != usual and not (isinstance(value, float) and math.isnan(value)):
            raise ScheduleError(f"{who}: {key}={shown(value)} is another model than one with betas; {remedy}")


def _name(scheduler: Any) -> str:
    return type(scheduler).__name__
