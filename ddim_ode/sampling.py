"""Sampling: from a seed, or a state, to an image."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, SupportsIndex

import torch
from torch import Tensor

from ddim_ode.denoiser import Model, NonFiniteError, Prediction
from ddim_ode.errors import DDIMError
from ddim_ode.grids import Final, Grid, check_grid, make_grid, most_intervals
from ddim_ode.guidance import Guided
from ddim_ode.ode import ProbabilityFlow
from ddim_ode.solvers import Method, Solution, Watch, get_method, integrate

DEFAULT_NFE = 20
DEFAULT_BATCH = 128


class SampleError(DDIMError):
    """Arguments that no sample can be drawn with; the message gives the value, the rule and the remedy."""


class Progress(NamedTuple):
    """What a callback is told after every step of every batch."""

    samples: range  # which samples the batch holds
    step: int  # steps done, 1..steps
    steps: int
    sigma: float  # reached
    xbar: Tensor  # (batch, *shape), the state x0 + sigma eps there


def sample(
    model: Model,
    method: str | Method = "ddim",
    nfe: int | None = None,
    seeds: Iterable[int] | None = None,
    labels: Tensor | Sequence[int] | int | None = None,
    guidance: float = 1.0,
    grid: Grid | None = None,
    final: Final = "denoise",
    noise: Tensor | None = None,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Solution:
    """Draw samples. Sample i depends on its seed alone, not on its companions.

    Args:
        model: a `Denoiser`, or something around one.
        method: a name in `METHODS`, or a `Method` such as `adams(3, path="data", basis="log_snr")` makes.
        nfe: the most network evaluations a sample may cost; the number of steps follows from it (default 20).
            With an explicit grid leave it out: the grid decides.
        seeds: one int a sample (default: 0); its noise is drawn on the CPU from its own generator.
        labels: (B,) or one int for all, in 0..num_classes-1; None is the null class.
        guidance: scale of classifier-free guidance; any but 1 costs two evaluations a prediction.
        grid: a name in `GRIDS` (default: the method's), or an explicit decreasing sequence of sigmas
            whose last may be 0.
        final: "denoise" ends with one evaluation that returns the predicted image; "sigma_min" stops at
            the model's smallest sigma. An explicit grid says so itself.
        noise: (B, *shape) standard normal latents, instead of seeds.
        start: (B, *shape) states xbar at the grid's first sigma, instead of seeds or noise.
        dtype: of the state, float32 or float64. A network with parameters computes in its own precision.
        batch_size: samples integrated at once (default: up to 128).
        callback: called with a `Progress` after every step.

    Returns:
        A `Solution`; its x is on the model's device.

    Raises:
        SampleError, MethodError, GridError, GuidanceError: arguments that cannot be.
        NonFiniteError: the network returned NaN or infinity.
        DivergedError: the solver diverged.
    """
    row = get_method(method)
    if guidance != 1:
        if isinstance(model, Guided):
            raise SampleError(f"the model is guided already, at scale {model.scale:g}; leave guidance={guidance:g} out")
        model = Guided(model, guidance)
    if dtype not in (torch.float32, torch.float64):
        raise SampleError(f"dtype={dtype} is no dtype for a state; use torch.float32 or torch.float64")
    sigmas = plan(model, row, nfe, grid, final)
    latents = _latents(model, seeds, noise, start).to(dtype)
    total = len(latents)
    classes = _labels(model, labels, total)
    size = _whole("batch_size", DEFAULT_BATCH if batch_size is None else batch_size)
    scale = 1.0 if start is not None else float(model.path.prior_std(sigmas[0]))

    done: list[Tensor] = []
    spent: list[int] = []
    for first in range(0, total, size):
        rows = range(first, min(first + size, total))
        batch = slice(rows.start, rows.stop)
        ode = ProbabilityFlow(
            model,
            row.path,
            domain=(float(sigmas[sigmas > 0][-1]), float(sigmas[0])),
            labels=None if classes is None else classes[batch].to(model.device),
        )
        begin = scale * latents[batch].to(model.device)
        try:
            done.append(integrate(ode, row.solver, sigmas, begin, _watch(callback, rows, len(sigmas) - 1)))
        except NonFiniteError as error:
            error.sample += first
            raise
        spent += [ode.nfe] * len(rows)
    return Solution(
        x=torch.cat(done),
        nfe=torch.tensor(spent),
        steps=torch.full((total,), len(sigmas) - 1),
        rejected=torch.zeros(total, dtype=torch.int64),
        sigmas=sigmas,
    )


def plan(model: Model, method: Method, nfe: int | None, grid: Grid | None, final: Final) -> Tensor:
    """The grid, (N + 1,) float64 sigmas, that spends as much of the budget `nfe` as the method can."""
    if final not in ("denoise", "sigma_min"):
        raise SampleError(f"final={final!r} is unknown; choose 'denoise' or 'sigma_min'")
    if grid is not None and not isinstance(grid, str):
        sigmas = check_grid(grid, model.path)
        if nfe is not None and nfe != (cost := _cost(model, method, sigmas)):
            raise SampleError(f"nfe={nfe} contradicts an explicit grid that costs {cost}; leave nfe out")
        return sigmas
    name = method.grid if grid is None else grid
    budget = _whole("nfe", DEFAULT_NFE if nfe is None else nfe)
    for intervals in range(int(min(budget, most_intervals(name, model.path, final))), 0, -1):
        if method.evaluations * (intervals - 1) < budget:
            sigmas = make_grid(name, model.path, intervals, final)
            if _least_cost(model, method, sigmas) <= budget and _cost(model, method, sigmas) <= budget:
                return sigmas
    cost = _cost(model, method, make_grid(name, model.path, 1, final))
    raise SampleError(f"nfe={budget} is too small: one step costs {cost} evaluations; use nfe >= {cost}")


def _least_cost(model: Model, method: Method, sigmas: Tensor) -> int:
    """A bound that is quick to find: an evaluation where each interval begins, and single passes for the others."""
    steps = int((sigmas > 0).sum()) - 1
    return sum(model.evaluations(sigma) for sigma in sigmas[:-1].tolist()) + steps * (method.evaluations - 1)


def _cost(model: Model, method: Method, sigmas: Tensor) -> int:
    """Evaluations that the method will spend on a grid: what it does spend, on one pixel and without the network."""
    ode = _Dry(model, method.path, domain=(0.0, math.inf))
    integrate(ode, method.solver, sigmas, torch.zeros(1, *(1 for _ in model.shape)))
    return ode.nfe


class _Dry(ProbabilityFlow):
    def predict(self, xbar: Tensor, sigma: Tensor) -> Prediction:
        spent = self.model.evaluations(float(sigma))
        self.nfe += spent
        return Prediction(xbar, xbar, spent)


def seeded_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) float32 standard normals, each row a function of its own seed only."""
    if not isinstance(seeds, Iterable):
        raise SampleError(f"seeds={seeds!r} is not a sequence; give one int a sample, such as range(64) or [{seeds}]")
    rows = []
    for seed in seeds:
        value = _index(seed)
        if value is None or not 0 <= value < 2**32:  # torch's CPU generator ignores the higher bits of a seed
            raise SampleError(f"seed {seed!r} is not a whole number in 0..2^32-1")
        rows.append(torch.randn(shape, generator=torch.Generator().manual_seed(value)))
    if not rows:
        raise SampleError("seeds is empty; give at least one")
    return torch.stack(rows)


def _watch(callback: Callable[[Progress], None] | None, rows: range, steps: int) -> Watch | None:
    if callback is None:
        return None
    return lambda step, sigma, xbar: callback(Progress(rows, step, steps, sigma, xbar))


def _latents(model: Model, seeds: Iterable[int] | None, noise: Tensor | None, start: Tensor | None) -> Tensor:
    given = [name for name, x in [("seeds", seeds), ("noise", noise), ("start", start)] if x is not None]
    if len(given) > 1:
        raise SampleError(f"{' and '.join(given)} exclude each other; give one")
    latents = start if start is not None else noise
    if latents is None:
        return seeded_noise((0,) if seeds is None else seeds, model.shape)
    if not isinstance(latents, Tensor):
        raise SampleError(f"{given[0]} is a {type(latents).__name__}; give a tensor (B, {model.shape})")
    if tuple(latents.shape[1:]) != model.shape or not len(latents):
        raise SampleError(f"{given[0]} has shape {tuple(latents.shape)}; this model needs (B, {model.shape})")
    if not torch.isfinite(latents).all():
        raise SampleError(f"{given[0]} holds NaN or infinity")
    return latents


def _labels(model: Model, labels: Tensor | Sequence[int] | int | None, total: int) -> Tensor | None:
    if labels is None:
        return None
    if not model.num_classes:
        raise SampleError("this model has no classes; leave labels out")
    try:
        values = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise SampleError(f"labels are not whole numbers in 0..{model.num_classes - 1}") from None
    if values.is_floating_point() or values.dtype == torch.bool:
        raise SampleError(f"labels are {values.dtype}; they must be whole numbers in 0..{model.num_classes - 1}")
    values = values.long().expand(total) if values.ndim == 0 else values.long()
    if values.shape != (total,):
        raise SampleError(f"labels have shape {tuple(values.shape)}; give one label, or one a sample ({total})")
    wrong = values[(values < 0) | (values >= model.num_classes)]
    if len(wrong):
        raise SampleError(f"label {int(wrong[0])} does not exist; this model has labels 0..{model.num_classes - 1}")
    return values


def _whole(name: str, value: int) -> int:
    whole = _index(value)
    if whole is None or whole < 1:
        raise SampleError(f"{name}={value!r} must be a whole number >= 1")
    return whole


def _index(value: object) -> int | None:
    """A Python, NumPy or torch integer as an int; anything else (1.5, True, "ten", nan) as None."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # every tensor has __index__, and it fails unless the tensor is one integer
        return None
