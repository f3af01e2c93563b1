"""The nodes: a method on the sigmas that it is given, a method that chooses its steps, and sigmas for a model."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ddim_ode.grids import GRIDS, make_grid
from ddim_ode.integrations.charts import NEAR_NOISE, SamplerError, is_const
from ddim_ode.integrations.k_diffusion import MOST_CALLS, sampler
from ddim_ode.paths import DiscreteVP, Flow, Noise, Path, f64
from ddim_ode.planning.options import DEFAULT_TOL
from ddim_ode.solvers import METHODS

CATEGORY = "sampling/ddim_ode"
SAME = ("ipndm_v", "deis_rhoab3", "sde_milstein")  # as lms and sde_euler

#: what can be chosen: no method whose point is the way back, which nobody goes here
ON_A_GRID = [name for name, row in METHODS.items() if not row.adaptive and not row.invertible and name not in SAME]
ADAPTIVE = [name for name, row in METHODS.items() if row.tells_steps]

BY_SIGMA = ("karras", "log_snr")  # of a flow by s, as ComfyUI's: by a ratio that ends at infinity they would be there

Inputs = dict[str, dict[str, tuple[Any, dict[str, Any]]]]


def ksampler(function: Any) -> Any:
    """What ComfyUI's nodes take for a SAMPLER. Raises SamplerError where there is no ComfyUI."""
    try:
        samplers = import_module("comfy.samplers")
    except ImportError as error:
        raise SamplerError("this node runs inside of ComfyUI, whose module comfy.samplers is not here") from error
    return samplers.KSAMPLER(function)


class GridSampler:
    """A method that steps on the sigmas it is given."""

    CATEGORY = CATEGORY
    DESCRIPTION = "A method of ddim_ode for SamplerCustom, on the sigmas that it is given."
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get_sampler"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        tooltip = "Calls of the model a step are 1 but for: " + ", ".join(
            f"{name} {METHODS[name].evaluations}" for name in ON_A_GRID if METHODS[name].evaluations > 1
        )
        return {"required": {"method": (ON_A_GRID, {"default": "dpmpp_2m", "tooltip": tooltip})}}

    def get_sampler(self, method: str) -> tuple[Any]:
        return (ksampler(sampler(method)),)


class AdaptiveSampler:
    """A method that takes the first and the last of the sigmas, and chooses the steps between them."""

    CATEGORY = CATEGORY
    DESCRIPTION = "A method of ddim_ode that chooses its steps for a tolerance, from the first sigma to the last."
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get_sampler"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        tol = {
            "default": DEFAULT_TOL,
            "min": 1e-6,
            "max": 10.0,
            "step": 1e-6,
            "round": False,
            "tooltip": "Error to accept, RMS in units of the latents. 0.1 is quick, 0.01 is accurate.",
        }
        most = {"default": MOST_CALLS, "min": 2, "max": 10000, "tooltip": "Calls of the model, at most."}
        method = {"default": "adaptive", "tooltip": "adaptive needs the fewest calls; the others are for comparison."}
        return {"required": {"method": (ADAPTIVE, method), "tol": ("FLOAT", tol), "max_nfe": ("INT", most)}}

    def get_sampler(self, method: str, tol: float, max_nfe: int) -> tuple[Any]:
        return (ksampler(sampler(method, tol=tol, max_nfe=max_nfe)),)


class GridSigmas:
    """A named grid over a model's range of sigma."""

    CATEGORY = CATEGORY
    DESCRIPTION = "The sigmas of a grid of ddim_ode for a model, with a 0 at the end."
    RETURN_TYPES = ("SIGMAS",)
    FUNCTION = "get_sigmas"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        grid = {
            "default": "logistic",
            "tooltip": "leading and quadratic need a model that was trained on discrete timesteps; karras and log_snr"
            " go by a flow's own sigma, as ComfyUI's karras and exponential do.",
        }
        steps = {"default": 20, "min": 1, "max": 10000}
        denoise = {
            "default": 1.0,
            "min": 0.0,
            "max": 1.0,
            "step": 0.01,
            "tooltip": "Below 1 the last steps of a longer grid, as in BasicScheduler, to begin from an image.",
        }
        return {
            "required": {
                "model": ("MODEL", {}),
                "grid": (list(GRIDS), grid),
                "steps": ("INT", steps),
                "denoise": ("FLOAT", denoise),
            }
        }

    def get_sigmas(self, model: Any, grid: str, steps: int, denoise: float) -> tuple[Tensor]:
        if denoise <= 0:
            return (torch.empty(0),)
        return (sigmas_for(model.get_model_object("model_sampling"), grid, steps, denoise),)


def sigmas_for(sampling: Any, grid: str, steps: int, denoise: float = 1.0) -> Tensor:
    """The last steps + 1 sigmas, float32 with a 0 at the end, of a named grid of int(steps / denoise) steps.

    sampling: ComfyUI's `model_sampling`, of which sigma_min, sigma_max and a table of discrete timesteps are read. Of a
    flow sigma is s, in x = (1 - s) x0 + s eps.

    Raises:
        GridError: a name that is unknown, or a grid that this model cannot have.
    """
    path = path_of(sampling, grid)
    sigmas = make_grid(grid, path, max(steps, int(steps / min(denoise, 1.0))), "denoise")
    if isinstance(path, Flow):
        sigmas = sigmas / (1 + sigmas)
        sigmas = torch.where(sigmas < 1 - 2 * NEAR_NOISE, sigmas, float(sampling.sigma_max))
    return sigmas[-(steps + 1) :].float()


def path_of(sampling: Any, grid: str) -> Path:
    """The path that a model of ComfyUI was trained on, as far as a grid goes by it."""
    low, high = float(sampling.sigma_min), float(sampling.sigma_max)
    if is_const(sampling) and grid not in BY_SIGMA:
        high = min(high, 1 - NEAR_NOISE)
        return Flow(low / (1 - low), high / (1 - high))
    if any(kind.__name__ == "ModelSamplingDiscrete" for kind in type(sampling).__mro__):
        return DiscreteVP(1 / (1 + f64(sampling.sigmas.detach().cpu().double()) ** 2))
    return Noise(low, high)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "DdimOdeSampler": GridSampler,
    "DdimOdeAdaptiveSampler": AdaptiveSampler,
    "DdimOdeSigmas": GridSigmas,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "DdimOdeSampler": "ODE Sampler",
    "DdimOdeAdaptiveSampler": "ODE Sampler (adaptive)",
    "DdimOdeSigmas": "ODE Sigmas",
}
