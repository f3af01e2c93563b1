"""diffusers' schedulers on the problems of the zoo, with the grids that they have by default and Karras's.

Each gets what its pipeline gives it: the state in its own scale, the noise, F of EDM or the velocity that the model
predicts there. The last of them is the image; nothing is clipped.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from benchmarks.zoo.problems import PATHS, Problem, ShiftedFlow
from ddim_ode.paths import DiscreteVP, Flow

Rival = Callable[[int], tuple[Tensor, float]]

# name -> (class, settings, evaluations a step)
VP: dict[str, tuple[str, dict[str, Any], int]] = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False}, 1),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}, 1),
    "Euler": ("EulerDiscreteScheduler", {}, 1),
    "Euler, Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, 1),
    "Heun": ("HeunDiscreteScheduler", {}, 2),
    "Heun, Karras": ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, 2),
    "LMS, Karras": ("LMSDiscreteScheduler", {"use_karras_sigmas": True}, 1),
    "DEIS": ("DEISMultistepScheduler", {}, 1),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}, 1),
    "DPM++ 2M, Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, 1),
    "DPM++ 3M, Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 3}, 1),
    "UniPC": ("UniPCMultistepScheduler", {}, 1),
    "UniPC, Karras": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}, 1),
}
EDM: dict[str, tuple[str, dict[str, Any], int]] = {
    "EDM Euler": ("EDMEulerScheduler", {}, 1),
    "EDM DPM++ 2M": ("EDMDPMSolverMultistepScheduler", {}, 1),
    "EDM DPM++ 3M": ("EDMDPMSolverMultistepScheduler", {"solver_order": 3}, 1),
}
FLOW: dict[str, tuple[str, dict[str, Any], int]] = {
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {}, 1),
    "flow Euler, Karras": ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}, 1),
    "flow Heun": ("FlowMatchHeunDiscreteScheduler", {}, 2),
    "flow DPM++ 2M": ("DPMSolverMultistepScheduler", {}, 1),
    "flow UniPC": ("UniPCMultistepScheduler", {}, 1),
}


def rivals(on: Problem) -> dict[str, Rival]:
    path = PATHS[on.name.split("/")[1]]
    if isinstance(path, DiscreteVP):
        kinds, settings = VP, {"trained_betas": betas(path), "prediction_type": "epsilon"}
        make = vp
    elif isinstance(path, Flow):
        kinds, settings, make = FLOW, {"shift": getattr(path, "shift", 1.0)}, flow
    else:
        kinds, settings, make = EDM, {"sigma_min": path.sigma_min, "sigma_max": path.sigma_max}, edm
    return {name: make(on, kind, settings | told, each) for name, (kind, told, each) in kinds.items()}


def betas(path: DiscreteVP) -> np.ndarray:
    return 1 - path.alphas_cumprod / np.concatenate([[1.0], path.alphas_cumprod[:-1]])


def _run(on: Problem, scheduler: Any, asked: Callable[[Tensor, Any], Tensor], begun: Tensor) -> tuple[Tensor, float]:
    """The loop of a pipeline; asked: (input, timestep) -> what the network of such a pipeline returns."""
    x, spent = begun.double(), 0
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x, spent = scheduler.step(asked(scaled, t), t, x, return_dict=False)[0], spent + 1
    return x, float(spent * on.model.evaluations(1.0))


def _steps(on: Problem, budget: int, each: int) -> int:
    """Of `each` evaluations, the last of which is one, that a budget pays."""
    return (budget // on.model.evaluations(1.0) + each - 1) // each


def vp(on: Problem, kind: str, settings: dict[str, Any], each: int) -> Rival:
    path = on.model.path

    def asked(x: Tensor, t: Any) -> Tensor:
        u = torch.as_tensor(float(t)).double()
        return on.model(x / path.coefficients(u)[0], path.sigma(u), on.labels).noise

    def rival(budget: int) -> tuple[Tensor, float]:
        scheduler = getattr(diffusers, kind)(**settings)
        steps = _steps(on, budget, each)
        scheduler.set_timesteps(steps - 1 if kind == "PNDMScheduler" else steps)  # which asks twice at the second
        return _run(on, scheduler, asked, on.noise * float(scheduler.init_noise_sigma))

    return rival


def edm(on: Problem, kind: str, settings: dict[str, Any], each: int) -> Rival:
    def rival(budget: int) -> tuple[Tensor, float]:
        scheduler = getattr(diffusers, kind)(**settings)
        scheduler.set_timesteps(_steps(on, budget, each))
        data = scheduler.config.sigma_data

        def asked(scaled: Tensor, t: Any) -> Tensor:
            sigma = float(torch.exp(4 * torch.as_tensor(float(t)).double()))
            xbar = scaled * (sigma**2 + data**2) ** 0.5
            skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2) ** 0.5
            return (on.model(xbar, min(sigma, on.model.sigma_max), on.labels).data - skip * xbar) / out

        return _run(on, scheduler, asked, on.noise * float(on.model.path.sigma_max))

    return rival


def flow(on: Problem, kind: str, settings: dict[str, Any], each: int) -> Rival:
    shift = settings["shift"]
    most = float(ShiftedFlow().u(torch.tensor(on.model.sigma_max).double()))

    def asked(x: Tensor, t: Any) -> Tensor:
        u = min(float(t) / 1000, most)  # theirs begin at 1, where nothing but noise is left
        found = on.model(x / (1 - u), u / (1 - u), on.labels)
        return found.noise - found.data

    def rival(budget: int) -> tuple[Tensor, float]:
        steps = _steps(on, budget, each)
        if kind.startswith("FlowMatch"):
            scheduler = getattr(diffusers, kind)(**settings)
            if kind == "FlowMatchEulerDiscreteScheduler":
                scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
            else:
                scheduler.set_timesteps(steps)
        else:
            rest = {name: value for name, value in settings.items() if name != "shift"}
            told = {"use_flow_sigmas": True, "flow_shift": shift, "prediction_type": "flow_prediction"}
            scheduler = getattr(diffusers, kind)(**told, **rest)
            scheduler.set_timesteps(steps)
        return _run(on, scheduler, asked, on.noise)

    return rival
