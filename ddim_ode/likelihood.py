"""The log-likelihood of data under the probability flow: carried to the prior at sigma_max (see `density`), where it is
known (Song et al. 2021, "Score-Based ...", Sec. 4.3 and App. D.2).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ddim_ode.grids import Grid
from ddim_ode.models.denoiser import Model
from ddim_ode.ode.density import DensityFlow, LikelihoodError
from ddim_ode.ode.probes import LEVELS, PROBES, centred, dequantized, draw_probes
from ddim_ode.paths import Path
from ddim_ode.planning.inputs import Labels, asked, check_callback, check_data, check_model, check_size
from ddim_ode.planning.options import DEFAULT_BATCH, DEFAULT_MOST, SolveOptions
from ddim_ode.planning.plan import Callback, Plan, prepare
from ddim_ode.solvers import METHODS, PATHS, Method, Watch, get_method
from ddim_ode.support.checks import choice, described, flag, of_kind, shown, whole
from ddim_ode.support.resources import check_memory
from ddim_ode.support.scalars import index, number

DEFAULT_TOL = 1e-3
DEFAULT_GRID = "near_image"  # where data lie near a surface the trace grows as 1 / sigma
MOST_PRODUCTS = 4096  # vector-Jacobian products a slope: of the exact trace one a dimension, else one a probe
TRACES = ("hutchinson", "exact")


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of B samples of D dimensions, and what they cost.

    nats: (B,) float64, log p of xbar at sigma_min, the mean over probes.
    bits_per_dim: (B,) float64, -nats / (D ln 2); of bytes + log2(127.5), because a byte is 1 / 127.5 wide.
    standard_error: (B,) float64, of nats, over probes: NaN with one probe, 0 with the exact trace.
    nfe: (B,) int64, network passes spent on each sample: forward, and one for each vector-Jacobian product.
    """

    nats: Tensor
    bits_per_dim: Tensor
    standard_error: Tensor
    nfe: Tensor

    @property
    def mean(self) -> float:
        """Bits per dimension, the mean over samples."""
        return float(self.bits_per_dim.mean())

    @property
    def mean_error(self) -> float:
        """The standard error of `mean` over samples, what the probes add included; NaN with one sample."""
        return float(_standard_error(self.bits_per_dim[None]))


@dataclass(frozen=True)
class Likelihood(Likelihoods):
    """Log-likelihoods of B samples, and where the flow has taken them.

    latent: (B, *shape) in the state's dtype, xbar at sigma_max over the standard deviation of the prior there.
    """

    latent: Tensor


@torch.inference_mode(False)  # autograd is of no use in it
def log_likelihood(
    model: Model,
    x: Tensor,
    labels: Labels = None,
    *,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    method: str | Method = "dopri5",
    nfe: int | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    grid: Grid | None = None,
    tol: float | None = None,
    max_nfe: int | None = None,
    path: str | Path | None = None,
    trace: Literal["hutchinson", "exact"] = "hutchinson",
    probes: int = 1,
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    seed: int = 0,
    first: int = 0,
    dequantize: bool | None = None,
    prior: Callable[[Tensor], Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Likelihood:
    """log p(x). On a grid sample i depends on x[i] and (seed, i) alone; the adaptive methods share their steps in a
    batch, so that its companions move a sample within tol.

    Args:
        model: a `Denoiser`, or something around one. Autograd must see through its network: one that computes under
            `torch.no_grad` looks like a constant, which no error can tell.
        x: (B, *shape), bytes as uint8, or floats in [-1, 1].
        labels: (B,) or one int for all, in 0..num_classes-1; None is the null class.
        conditions, null, dtype: as in `sample`.
        method: a Runge-Kutta method, on a grid or adaptive.
        nfe: the most network passes a sample may cost, on a grid (default: those of 20 slopes). A slope costs one pass
            forward and one for each vector-Jacobian product: 1 + probes, or 1 + D; under guidance twice that.
        tol: of an adaptive method, the RMS error to accept in data units and in nats per dimension (default 0.001).
        max_nfe: where an adaptive method gives up, in network passes (default: those of 1000 slopes).
        grid: a name in `GRIDS` (default: near_image), or decreasing sigmas > 0, of an adaptive method two. x is xbar
            at the last.
        path: the solver's coordinates, a name or a `Path` (default: the method's).
        trace: "hutchinson", or "exact" for at most 4096 dimensions.
        probes: how many for Hutchinson's estimate, at most 4096, each fixed all along the trajectory.
        probe: "rademacher" or "gaussian".
        seed: probe k of sample i is a function of (seed, i, k), and its dequantisation of (seed, i).
        first: what i is for x[0], of a part of a larger set.
        dequantize: bytes become (byte + U(0, 1) - 0.5) / 127.5 - 1, whose density bounds theirs (Theis et al. 2016,
            Sec. 3.1); with False they stay at the centre. None is True for bytes.
        prior: xbar (B, *shape) at the first sigma -> log-density in nats (B,); default: the model path's Gaussian.
        batch_size: samples integrated at once (default: up to 128).
        guidance, guidance_range: of classifier-free guidance; the density is then that of the guided flow.
        callback: called with a `Progress` after every step.

    Raises:
        DDIMError: arguments that cannot be, or max_nfe met.
        NonFiniteError, DivergedError: as in `sample`.
    """
    check_model(model)
    check_callback(callback)
    row = _method(method, path)
    if (root := index(seed)) is None:
        raise LikelihoodError(f"seed={shown(seed)} is not a whole number")
    begin = whole("first", first, LikelihoodError, least=0)
    numbers = range(begin, begin + len(check_data(model, x)))
    if dequantize is not None:
        flag("dequantize", dequantize)
    if prior is not None and not callable(prior):
        raise LikelihoodError(f"prior is {described(prior)}; give a function, xbar (B, *shape) -> nats (B,)")
    products = _products(model, trace, probes, probe)
    dearest = model.evaluations(model.sigma_max) if number(guidance) == 1 else 2  # passes a prediction
    if row.adaptive:
        if nfe is not None:
            raise LikelihoodError(f"nfe={shown(nfe)} is for methods on a grid; an adaptive one takes tol and max_nfe")
        tol = DEFAULT_TOL if tol is None else tol
        max_nfe = DEFAULT_MOST * dearest * (1 + products) if max_nfe is None else max_nfe
    elif nfe is not None:
        if grid is not None and not isinstance(grid, str):
            raise LikelihoodError(f"nfe={shown(nfe)} contradicts an explicit grid; leave nfe out")
        least = row.evaluations * (1 + products) * (dearest if guidance_range is None else 1)
        if (nfe := whole("nfe", nfe, LikelihoodError)) < least:
            raise LikelihoodError(f"nfe={nfe} is too small: one step costs {least} network passes; use nfe >= {least}")
        nfe = nfe // (1 + products)  # predictions, the unit of `prepare`
    if grid is None and not row.adaptive:
        grid = DEFAULT_GRID
    options = SolveOptions(
        method=method,
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        grid=grid,
        final="sigma_min",
        guidance=guidance,
        guidance_range=guidance_range,
        dtype=dtype,
        batch_size=batch_size,
    )
    data = _data(x, dequantize, numbers, root)
    check_size(model, len(data), dtype, None)
    rows = min(len(data), DEFAULT_BATCH if options.batch_size is None else options.batch_size)
    _check_probes(model, 0 if trace == "exact" else rows * products, dtype)
    plan = prepare(model, options, len(data), labels=asked(model, labels, conditions, null), upward=True)
    # Labels may be an inference tensor, of which autograd can have a copy only.
    plan = replace(plan, method=row, labels=None if plan.labels is None else plan.labels.clone())
    std = float(model.path.prior_std(plan.sigmas[-1]))

    def go(rows: slice, watch: Watch | None) -> Carried:
        xbar = data[rows].to(model.device, dtype)
        vectors = None if trace == "exact" else draw_probes(probe, xbar, numbers[rows], root, probes)
        end = carry_density(plan, xbar, vectors, rows, watch)
        weight = _normal(end.xbar, std) if prior is None else _weighed(prior, end.xbar)
        return end._replace(nats=weight.detach()[:, None] + end.nats)

    ends = plan.each(len(data), go, callback)
    each = torch.cat([end.nats for end in ends]).cpu()
    nats = each.mean(1)
    bits = -nats / (math.log(2) * math.prod(model.shape))
    return Likelihood(
        nats=nats,
        bits_per_dim=bits + math.log2(LEVELS) if x.dtype == torch.uint8 else bits,
        standard_error=torch.zeros_like(nats) if trace == "exact" else _standard_error(each),
        nfe=torch.cat([end.nfe for end in ends]),
        latent=torch.cat([end.xbar for end in ends]) / std,
    )


class Carried(NamedTuple):
    """A batch at the other end of the flow."""

    xbar: Tensor  # (B, *shape)
    nats: Tensor  # (B, K) float64, log p here less that at the end: K estimates, one a probe, or one exact
    nfe: Tensor  # (B,) int64


def carry_density(
    plan: Plan,
    xbar: Tensor,
    probes: Tensor | None = None,
    rows: slice = slice(None),
    watch: Watch | None = None,
) -> Carried:
    """Carry a batch and its log-density along a plan, downwards or upwards.

    probes are (K, B, D); None is the exact trace.
    """
    ode = DensityFlow(plan.flow(rows, differentiable=True), probes)
    state = torch.cat([xbar.reshape(len(xbar), -1), xbar.new_zeros(len(xbar), ode.columns)], dim=1)
    seen: Watch | None = watch and (lambda n, share, sigma, state: watch(n, share, sigma, ode.split(state)[0]))
    xbar, column = ode.split(plan.run(ode, state, seen).x)
    return Carried(xbar, -column.double() * ode.unit, torch.full((len(xbar),), int(ode.nfe)))


def _normal(xbar: Tensor, std: float) -> Tensor:
    """log N(xbar; 0, std^2 I), (B,) float64."""
    flat = xbar.double().reshape(len(xbar), -1) / std
    return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2 * math.pi * std**2))


def _weighed(prior: Callable[[Tensor], Tensor], xbar: Tensor) -> Tensor:
    """What somebody's prior says of xbar, (B,). Raises LikelihoodError for anything but nats."""
    nats = prior(xbar)
    wanted = f"it must return nats, ({len(xbar)},)"
    if not isinstance(nats, Tensor) or not nats.is_floating_point():
        raise LikelihoodError(f"prior returned {described(nats)}, no tensor of floats; {wanted}")
    if nats.shape != xbar.shape[:1]:
        raise LikelihoodError(f"prior returned shape {tuple(nats.shape)}; {wanted}")
    if nats.is_meta or nats.layout != torch.strided or nats.isnan().any():
        raise LikelihoodError(f"prior returned NaN, or no numbers; {wanted}")
    return nats


def _check_probes(model: Model, vectors: int, dtype: torch.dtype) -> None:
    """Raise LikelihoodError where there is no memory for the probes, or for those of the exact trace."""
    dimensions = math.prod(model.shape)
    need = (vectors * dtype.itemsize or 4 * dimensions) * dimensions
    remedy = "ask for fewer, or a smaller batch_size"
    check_memory(need, f"the probes of {dimensions} dimensions", remedy, LikelihoodError)


def _standard_error(values: Tensor) -> Tensor:
    """The standard error of the mean of each row; NaN for a single value."""
    return (values.var(1, correction=0) / (values.shape[1] - 1)).sqrt()


def _data(x: Tensor, dequantize: bool | None, numbers: range, seed: int) -> Tensor:
    """x as floats, dequantised."""
    if x.dtype == torch.uint8:
        return centred(x) if dequantize is False else dequantized(x, numbers, seed)
    if dequantize:
        raise LikelihoodError(f"x is {x.dtype}; only bytes, torch.uint8, can be dequantised")
    return x.detach().clone()


def _method(method: str | Method, path: str | Path | None) -> Method:
    """The method, on the path."""
    row = get_method(method)
    if not row.slopes_only or not row.deterministic:
        able = ", ".join(name for name, other in METHODS.items() if other.slopes_only)
        name = method if isinstance(method, str) else "this method"
        raise LikelihoodError(f"{name} cannot carry a density; use one of {able}")
    if path is None:
        return row
    of_kind("path", path, (str, Path), f"a Path, or one of {', '.join(PATHS)}")
    return replace(row, path=path if isinstance(path, Path) else PATHS[choice("path", path, PATHS, LikelihoodError)])


def _products(model: Model, trace: str, probes: int, probe: str) -> int:
    """Vector-Jacobian products a slope."""
    choice("trace", trace, TRACES, LikelihoodError)
    choice("probe", probe, PROBES, LikelihoodError)
    dimensions = math.prod(model.shape)
    count = whole("probes", probes, LikelihoodError, most=MOST_PRODUCTS, why="each a vector-Jacobian product a slope")
    if trace == "hutchinson":
        return count
    if count > 1:
        raise LikelihoodError(f"probes={count} are for trace='hutchinson'; the exact trace has none")
    if dimensions > MOST_PRODUCTS:
        raise LikelihoodError(
            f"trace='exact' takes {dimensions} products a slope here, and the most is {MOST_PRODUCTS}; use 'hutchinson'"
        )
    return dimensions
