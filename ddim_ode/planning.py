"""From what was asked for to what a solver needs: a grid that spends the budget, or a tolerance and where to go."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddim_ode.arguments import index, number
from ddim_ode.denoiser import Model, Prediction
from ddim_ode.errors import DDIMError
from ddim_ode.grids import Final, Grid, check_grid, make_grid, most_intervals
from ddim_ode.ode import ProbabilityFlow
from ddim_ode.paths import f64
from ddim_ode.solvers import METHODS, Adaptive, Control, Method, integrate

DEFAULT_NFE = 20
DEFAULT_TOL = 0.01
DEFAULT_MOST = 1000  # evaluations of an adaptive method
LARGEST = 10.0  # that a value can be and still be meant to lie in [-1, 1]; of bytes as floats some are larger
LEAST_TOL = {torch.float32: 1e-6, torch.float64: 1e-12}  # what the state can hold


class SampleError(DDIMError):
    """Arguments that no sample can be drawn with; the message gives the value, the rule and the remedy."""


def plan(
    model: Model, method: Method, nfe: int | None, grid: Grid | None, final: Final, upward: bool = False
) -> Tensor:
    """The grid, (N + 1,) float64 sigmas, that spends as much of the budget `nfe` as the method can.

    They decrease; `upward`, the budget is that of the way from the last of them to the first.
    """

    def cost_of(sigmas: Tensor) -> int:
        return int(_dry(model, method, sigmas.flip(0) if upward else sigmas).nfe)

    _check_final(final)
    if grid is not None and not isinstance(grid, str):
        sigmas = check_grid(grid, model.path)
        if nfe is not None and nfe != (cost := cost_of(sigmas)):
            raise SampleError(f"nfe={nfe} contradicts an explicit grid that costs {cost}; leave nfe out")
        return sigmas
    name = method.grid if grid is None else grid
    budget = whole("nfe", DEFAULT_NFE if nfe is None else nfe)
    most = most_intervals(name, model.path, final)
    each = method.evaluations  # predictions a step
    if upward and most >= 3:
        two, three = (_dry(model, method, make_grid(name, model.path, n, final).flip(0)).calls for n in (2, 3))
        each = three - two
    for intervals in range(int(min(budget, most)), 0, -1):
        if each * (intervals - 1) < budget:
            sigmas = make_grid(name, model.path, intervals, final)
            if _least_cost(model, each, sigmas) <= budget and cost_of(sigmas) <= budget:
                return sigmas
    cost = cost_of(make_grid(name, model.path, 1, final))
    raise SampleError(f"nfe={budget} is too small: one step costs {cost} evaluations; use nfe >= {cost}")


def span(model: Model, method: str, grid: Grid | None, final: Final) -> Tensor:
    """Where an adaptive method begins and ends, float64: (first, last), with a 0 after them to denoise at the last."""
    _check_final(final)
    if isinstance(grid, str):
        raise SampleError(f"{method} chooses its steps; leave grid={grid!r} out, or give the first and the last sigma")
    if grid is None:
        if not 0 < model.sigma_min < model.sigma_max < math.inf:
            raise SampleError(
                f"{method} needs a finite range of sigma, this model's is [{model.sigma_min:g}, {model.sigma_max:g}]"
                "; give its path sigma_min and sigma_max, or the first and the last sigma as grid"
            )
        return f64([model.sigma_max, model.sigma_min, *([0.0] if final == "denoise" else [])])
    sigmas = check_grid(grid, model.path)
    if len(sigmas) == 2 and sigmas[1] == 0:
        if not 0 < model.sigma_min < sigmas[0]:
            begin, least = float(sigmas[0]), model.sigma_min
            raise SampleError(
                f"{method} cannot tell where between sigma={begin:g} and 0 to denoise, with a sigma_min of {least:g}"
                f"; give three sigmas, as in {begin:g}, {begin / 100:g}, 0"
            )
        sigmas = check_grid([float(sigmas[0]), model.sigma_min, 0.0], model.path)
    if len(sigmas) > 3 or (len(sigmas) == 3 and sigmas[2] > 0):
        raise SampleError(f"{method} chooses its steps; give the first and the last sigma, not a grid of {len(sigmas)}")
    return sigmas


def control(
    method: str, tol: float | None, max_nfe: int | None, first_step: float | None, dtype: torch.dtype
) -> Control:
    """What an adaptive method is told, checked."""
    tol = DEFAULT_TOL if tol is None else tol
    least = LEAST_TOL[dtype]
    if not least <= number(tol) < math.inf:
        kind = str(dtype).removeprefix("torch.")
        raise SampleError(
            f"tol={tol!r} must be a finite number of at least {least:g} with a {kind} state; use tol=0.01"
        )
    if first_step is not None and not 0 < number(first_step) < math.inf:
        raise SampleError(f"first_step={first_step!r} must be a number > 0, in the time sigma / (1 + sigma)")
    return Control(float(tol), DEFAULT_MOST if max_nfe is None else whole("max_nfe", max_nfe), first_step)


def refuse_adaptive(method: str, given: dict[str, object]) -> None:
    """Raises SampleError for an argument that a method on a grid has no use for."""
    for name, value in given.items():
        if value is not None:
            others = ", ".join(name for name, row in METHODS.items() if row.adaptive)
            raise SampleError(f"{name}={value!r} is for adaptive methods ({others}); {method} takes nfe")


def _check_final(final: Final) -> None:
    if final not in ("denoise", "sigma_min"):
        raise SampleError(f"final={final!r} is unknown; choose 'denoise' or 'sigma_min'")


def _least_cost(model: Model, each: int, sigmas: Tensor) -> int:
    """A bound that is quick to find: an evaluation where each interval begins, and single passes for the others."""
    steps = int((sigmas > 0).sum()) - 1
    return sum(model.evaluations(sigma) for sigma in sigmas[:-1].tolist()) + steps * (each - 1)


def _dry(model: Model, method: Method, sigmas: Tensor) -> "_Dry":
    """What the method does on a grid, on one pixel and without the network."""
    assert not isinstance(method.solver, Adaptive)
    ode = _Dry(model, method.path, domain=(0.0, max(float(sigmas.max()), model.sigma_max)))
    integrate(ode, method.solver, sigmas, torch.zeros(1, *(1 for _ in model.shape)))
    return ode


class _Still:
    """No noise."""

    def increment(self, sigma0: Tensor | float, sigma1: Tensor | float) -> tuple[Tensor, Tensor]:
        return torch.zeros(1), torch.zeros(1)


class _Dry(ProbabilityFlow):
    calls = 0  # predictions

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.brownian = _Still()

    def predict(self, xbar: Tensor, sigma: Tensor) -> Prediction:
        spent = self.model.evaluations(float(sigma))
        self.nfe += spent
        self.calls += 1
        return Prediction(xbar, xbar, spent)


def whole(name: str, value: int) -> int:
    found = index(value)
    if found is None or found < 1:
        raise SampleError(f"{name}={value!r} must be a whole number >= 1")
    return found


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as ints. torch's CPU generator ignores the higher bits of one."""
    try:
        given = tuple(seeds)
    except TypeError:
        raise SampleError(
            f"seeds={seeds!r} is not a sequence; give one int a sample, such as range(64) or [{seeds}]"
        ) from None
    found = []
    for seed in given:
        value = index(seed)
        if value is None or not 0 <= value < 2**32:
            raise SampleError(f"seed {seed!r} is not a whole number in 0..2^32-1")
        found.append(value)
    if not found:
        raise SampleError("seeds is empty; give at least one")
    return tuple(found)


def check_data(model: Model, x: Tensor) -> Tensor:
    """x, if it can be data: (B, *shape), bytes as uint8 or finite floats that may well lie in [-1, 1]."""
    if not isinstance(x, Tensor) or tuple(x.shape[1:]) != model.shape or not len(x):
        found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise SampleError(f"x has {found}; this model needs a tensor (B, {str(model.shape)[1:]}")
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise SampleError(f"x is {x.dtype}; give floats in [-1, 1], or bytes as torch.uint8")
    wrong = ~torch.isfinite(x.flatten(1)).all(1)
    if wrong.any():
        raise SampleError(f"x[{int(wrong.nonzero()[0])}] holds NaN or infinity")
    if (largest := float(x.abs().max())) > LARGEST:
        raise SampleError(f"x reaches {largest:g}, and data lie in [-1, 1]; give bytes as torch.uint8")
    return x


def check_labels(model: Model, labels: Tensor | Sequence[int] | int | None, total: int) -> Tensor | None:
    """Labels as (total,) int64, of one for all if that is what there is."""
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
