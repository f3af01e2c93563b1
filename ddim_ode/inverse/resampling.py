"""RePaint (Lugmayr et al. 2022, arXiv:2201.09865, Algorithm 1) for known pixels, around a solver.

After each interval the known pixels are replaced by their own noisy version, and the interval is gone again so many
times from noise added anew, so that the others can come to terms with them:

    down    xbar1 = solver(xbar0; sigma0 -> sigma1),  known: y + sqrt(sigma1^2 - s^2) eps
    up      xbar0 = xbar1 + sqrt(sigma0^2 - sigma1^2) eps

with s the noise that y has already. From the last sigma above s the way leads to 0 at once, by the prediction of DDNM,
which weighs what the model says of a known pixel against its noise: the paper has none in y.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count as counting
from typing import cast

import torch
from torch import Tensor

from ddim_ode.inverse.measured import with_measurement
from ddim_ode.inverse.measurements import Measurement, MeasurementError, checked_noise
from ddim_ode.inverse.methods import Projected
from ddim_ode.inverse.operators import Mask
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, NonFiniteError
from ddim_ode.planning.budget import DryRun
from ddim_ode.planning.inputs import SampleError, check_reach
from ddim_ode.planning.options import DEFAULT_NFE, SolveOptions
from ddim_ode.planning.plan import Callback, Progress, prepare
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import Solution
from ddim_ode.support.checks import whole
from ddim_ode.support.seeds import generator, mix


@dataclass(frozen=True)
class Resampling:
    """RePaint: how many times each interval is gone, in one step of the solver; the last is one evaluation of any."""

    operator: Measurement
    noise_std: float = 0.0
    times: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Mask):
            name = type(self.operator).__name__
            raise MeasurementError(f"repaint replaces known pixels, and {name} has none; use method='mmps'")
        object.__setattr__(self, "noise_std", checked_noise(self.noise_std))
        object.__setattr__(self, "times", whole("times", self.times, MeasurementError))

    def run(
        self,
        model: Model,
        options: SolveOptions,
        y: Tensor,
        start: Tensor,
        *,
        seeds: Sequence[int],
        told: Told = None,
        callback: Callback | None = None,
    ) -> Solution:
        """From start (B, *shape), standard normal, to images; the budget of the options is that of all the times."""
        check_steps(options)
        sigmas = self.grid(model, options, told, len(y))
        noise = Noise(seeds, model.shape, start)
        xbar, parts = float(model.path.prior_std(sigmas[0])) * start, list[Solution]()
        steps = len(sigmas) - 1
        for n in range(steps):
            high, low = float(sigmas[n]), float(sigmas[n + 1])
            for time in range(self.times if low else 1):
                if time:
                    xbar = xbar + math.sqrt(high**2 - low**2) * noise.draw()
                try:
                    parts.append(self.interval(model, options, (high, low), y, xbar, told=told))
                except NonFiniteError as error:
                    error.step = n + 1
                    raise
                xbar = self.replaced(parts[-1].x, y, low, noise)
                check_way(model, options, xbar, low)
            if callback:
                callback(Progress(range(len(y)), n + 1, steps, (n + 1) / steps, low, xbar))
        return replace(
            parts[-1],
            x=xbar,
            nfe=sum((part.nfe for part in parts[1:]), parts[0].nfe),
            steps=sum((part.steps for part in parts[1:]), parts[0].steps),
            rejected=sum((part.rejected for part in parts[1:]), parts[0].rejected),
            converged=torch.stack([part.converged for part in parts]).all(0),
            sigmas=sigmas,
        )

    def interval(
        self, model: Model, options: SolveOptions, ends: tuple[float, float], y: Tensor, xbar: Tensor, *, told: Told
    ) -> Solution:
        """One interval of the solver, from xbar at the first sigma to the second."""
        if ends[1]:
            return sample_with(model, replace(options, grid=ends, nfe=None), start=xbar, labels=told)
        last = SolveOptions(method="ddim", grid=ends, dtype=options.dtype, batch_size=options.batch_size)
        knowing = Projected(model, self.operator, self.noise_std)
        return sample_with(knowing, last, start=xbar, labels=with_measurement(told, y))

    def grid(self, model: Model, options: SolveOptions, told: Told, count: int) -> Tensor:
        """As many intervals as the budget lets be gone `times` times each, the last once; an explicit grid as it is.

        Sigmas at which known pixels are noisier than xbar are left out.

        Raises:
            MeasurementError: a budget for less than two intervals, or that contradicts an explicit grid.
        """
        explicit = options.grid is not None and not isinstance(options.grid, str)
        if explicit:
            sigmas = prepare(model, replace(options, nfe=None), count, labels=told).sigmas
        else:
            sigmas = self.longest(model, options, told, count)
        sigmas = sigmas[(sigmas > self.noise_std) | (sigmas == sigmas[0]) | (sigmas == sigmas[-1])]
        if explicit and options.nfe not in (None, cost := self.cost(model, options, sigmas)):
            raise MeasurementError(f"nfe={options.nfe} contradicts an explicit grid that costs {cost}; leave nfe out")
        return sigmas

    def longest(self, model: Model, options: SolveOptions, told: Told, count: int) -> Tensor:
        """The longest grid of a name that the budget allows."""

        def gone_once(nfe: int) -> Tensor:
            return prepare(model, replace(options, nfe=nfe), count, labels=told).sigmas

        def cost(nfe: int) -> int:
            return self.cost(model, options, gone_once(nfe))

        budget = DEFAULT_NFE if options.nfe is None else options.nfe
        last = max(model.evaluations(sigma) for sigma in (model.sigma_min, model.sigma_max))
        least = next(nfe for nfe in counting(last) if len(gone_once(nfe)) > 2)
        if (needed := cost(least)) > budget:
            raise MeasurementError(
                f"nfe={budget} is too small for repaint with times={self.times}: two intervals cost {needed}"
                f"; use nfe >= {needed}, or fewer times"
            )
        tried = range(least, budget // self.times + last + 1)  # an interval costs no less alone than among others
        return gone_once(tried[bisect_right(tried, budget, key=cost) - 1])

    def cost(self, model: Model, options: SolveOptions, sigmas: Tensor) -> int:
        """What a sample costs on a grid, each interval solved by itself."""
        row = options.row

        def alone(ends: Tensor) -> int:
            if not ends[1]:
                return model.evaluations(float(ends[0]))
            return self.times * int(DryRun(model, row.path, row.solver, ends).nfe)

        return sum(alone(sigmas[n : n + 2]) for n in range(len(sigmas) - 1))

    def replaced(self, xbar: Tensor, y: Tensor, sigma: float, noise: "Noise") -> Tensor:
        """xbar at sigma with the known pixels as noisy as the others, where they can be."""
        if sigma <= self.noise_std:
            return xbar
        known = y + math.sqrt(sigma**2 - self.noise_std**2) * noise.draw()
        return cast(Mask, self.operator).agree(xbar, known.to(xbar))


def check_steps(options: SolveOptions) -> None:
    """Raise MeasurementError for a solver that cannot be asked for one step of an interval."""
    row = options.row
    if not row.deterministic:
        raise MeasurementError(f"repaint adds noise of its own; give a solver without, not {options.name}")
    if row.adaptive:
        raise MeasurementError(f"repaint takes one step an interval, and {options.name} chooses its own; use 'ddim'")
    if row.own_grids or (row.grids and options.grid is None):
        raise MeasurementError(f"repaint goes each interval alone, and {options.name} has whole grids; use 'ddim'")


def check_way(model: Model, options: SolveOptions, xbar: Tensor, sigma: float) -> None:
    """Raise MeasurementError for a state at sigma that no image has, because the steps are too long for the solver."""
    try:
        check_reach(model, "xbar", xbar, sigma)
    except SampleError as error:
        raise MeasurementError(
            f"{options.name} left what images can be on its way to sigma={sigma:.6g}: its steps are too long; give "
            "more nfe, or solver='ddim'"
        ) from error


class Noise:
    """Standard normals (B, *shape) in turn, each row from a generator of its own seed on the CPU."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], like: Tensor):
        self.generators = [generator(mix(seed, "resampling")) for seed in seeds]
        self.shape, self.like = shape, like

    def draw(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.like)
