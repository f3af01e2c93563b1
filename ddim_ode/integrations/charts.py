"""What sigmas of k-diffusion are here: which of them are steps, and by which sigma a method of ours goes.

A method on the path `noise` or `data` takes them as they are given, of a flow too: see `integrations.k_diffusion`.
All others go by the noise-to-signal ratio, which of a flow's s is s / (1 - s), and infinite at its beginning.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import Flow, Noise, Path, data, f64, flow, noise
from ddim_ode.planning.budget import DryRun
from ddim_ode.solvers import Method
from ddim_ode.support.checks import described, of_kind, shown

NEAR_NOISE = 1e-6  # how far from s = 1, where sigma is infinite, a flow begins; diffusers' UniPC has the same
NEAR_SDE = 1e-3  # the same for noise on the way, whose steps of log sigma would begin with one of 10
NEAR_IMAGE = 1e-4  # where rising sigmas begin that say 0, as ComfyUI's do
ROUNDED = 1e-3  # by which sigmas may miss those of a table: UIs show four digits


class SamplerError(DDIMError):
    """A sampler that cannot be, or a call that it has no answer to."""


class Given(NamedTuple):
    """Sigmas as they were handed over.

    sigmas: (N + 1,) float64, of which none is like the one before. begins: which of the given intervals each of theirs
    is. total: how many were given.
    """

    sigmas: Tensor
    begins: list[int]
    total: int


class Chart(NamedTuple):
    """The run in terms of ours.

    method: as it is to be used. path: of the model. sigmas: (N + 1,) float64, strictly monotone. begins: as of `Given`.
    top: what the network is told at the largest of them; None is the same.
    """

    method: Method
    path: Path
    sigmas: Tensor
    begins: list[int]
    top: float | None

    @property
    def up(self) -> bool:
        """Whether it leads from the image to the noise."""
        return bool(self.sigmas[-1] > self.sigmas[0])

    @property
    def nodes(self) -> Tensor:
        """The sigmas at which there is a state: all but a last 0."""
        return self.sigmas[self.sigmas > 0]


def check_state(x: Any) -> None:
    """Raise unless x is a tensor (B, *) of floats."""
    of_kind("x", x, Tensor, "a tensor (B, ...)")
    if x.ndim < 2 or not x.is_floating_point() or not x.numel():
        raise SamplerError(f"x is {described(x)} of {str(x.dtype).removeprefix('torch.')}; give floats (B, ...)")


def check_sigmas(sigmas: Any) -> Given:
    """Raise SamplerError unless they are finite, none is negative and all run one way; duplicates go."""
    of_kind("sigmas", sigmas, Tensor, "a tensor of sigmas")
    s = sigmas.detach().to("cpu", torch.float64)
    if s.ndim != 1 or not torch.isfinite(s).all() or (s < 0).any():
        raise SamplerError(
            f"sigmas={shown(sigmas.tolist())} are not finite numbers >= 0 in a row; use another scheduler"
        )
    s, begins = distinct(s, list(range(len(s) - 1)))
    falls = s[1:] < s[:-1]
    if len(s) > 1 and not (falls.all() or not falls.any()):
        n = int((falls != falls[0]).nonzero()[0])
        raise SamplerError(
            f"sigmas turn round at {float(s[n]):.6g}; give a row that only falls, or, to encode, one that only rises"
        )
    if len(s) > 1 and s[0] == 0:
        s[0] = min(NEAR_IMAGE, float(s[1]) / 10)
    return Given(s, begins, len(sigmas) - 1)


def distinct(sigmas: Tensor, begins: list[int]) -> tuple[Tensor, list[int]]:
    """The sigmas without those that are as the next, and where those intervals begin that are left."""
    kept = [n for n, (a, b) in enumerate(pairwise(sigmas.tolist())) if a != b]
    return sigmas[[*kept, len(sigmas) - 1]] if len(sigmas) else sigmas, [begins[n] for n in kept]


def predicts_flow(model: Any) -> bool:
    """Whether a model, or the one that it is around, is of a flow: `CONST` in ComfyUI, "const" in Forge."""
    for _ in range(10):  # one around the other
        if (sampling := getattr(model, "model_sampling", None)) is not None:
            return is_const(sampling)
        if (predictor := getattr(model, "predictor", None)) is not None:
            return bool(getattr(predictor, "prediction_type", None) == "const")
        model = getattr(model, "inner_model", None)
    return False


def is_const(sampling: Any) -> bool:
    """Whether ComfyUI's `model_sampling` is of a flow, by the name of one of its classes."""
    return any(kind.__name__ == "CONST" for kind in type(sampling).__mro__)


def chart_of(method: Method, given: Given, is_flow: bool) -> Chart:
    """What a method makes of the sigmas.

    Raises:
        SamplerError: sigmas of a flow that are beyond 1, or that a method with grids of its own has no numbers for.
    """
    sigmas, begins, _ = given
    if is_flow and sigmas.max() > 1:
        raise SamplerError(f"sigma={float(sigmas.max()):.6g} is beyond a flow's, from 0 to 1; use another scheduler")
    top = None
    ratio = is_flow and not (method.deterministic and method.path in (noise, data))
    if ratio:
        near = NEAR_NOISE if method.deterministic else NEAR_SDE
        if (most := float(sigmas.max())) > 1 - near:
            top, (sigmas, begins) = most, distinct(sigmas.clamp(max=1 - near), begins)
        sigmas = sigmas / (1 - sigmas)
        method = replace(method, path=flow) if method.path == noise else method
    if method.own_grids and sigmas[-1] < sigmas[0]:
        sigmas = own_grid(method, sigmas)
    low, high = float(sigmas[sigmas > 0].min()), float(sigmas.max())
    low = low if low < high else low / 2  # of one interval to 0
    return Chart(method, Flow(low, high) if ratio else Noise(low, high), sigmas, begins, top)


def own_grid(method: Method, sigmas: Tensor) -> Tensor:
    """The method's own grid that the sigmas are, up to rounding. Raises SamplerError if none is."""
    for grid in map(f64, method.grids):
        if len(grid) == len(sigmas) and torch.allclose(grid, sigmas, rtol=ROUNDED):
            return grid
    counts = ", ".join(str(len(grid) - 1) for grid in method.grids)
    raise SamplerError(
        f"this method has numbers for grids of its own alone, of {counts} steps; give one of them as sigmas, or use"
        " another method, such as 'dpmpp_2m'"
    )


def check_way(name: str, chart: Chart, max_nfe: int | None) -> None:
    """Raise SamplerError where a method cannot go that way, or not for so few calls."""
    method = chart.method
    if chart.up and (method.own_grids or not method.deterministic):
        why = "begins with noise" if method.own_grids else "draws noise on the way"
        raise SamplerError(f"rising sigmas encode, and {name} {why}; use another method, such as 'dpmpp_2m'")
    if max_nfe is not None and not method.adaptive:
        model = Denoiser(lambda x, t: x, chart.path, "data", (1,))
        if (cost := len(DryRun(model, method.path, method.solver, chart.sigmas).asked)) > max_nfe:
            raise SamplerError(f"{name} makes {cost} calls on these sigmas, and max_nfe={max_nfe}; use fewer steps")
