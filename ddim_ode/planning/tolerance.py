"""Adaptive methods: where they begin and end, and which tolerance spends a budget."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddim_ode.grids import check_grid
from ddim_ode.models.denoiser import Model
from ddim_ode.paths import f64
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import LEAST_TOL, SolveOptions
from ddim_ode.planning.profile import Profile


def ends_for(model: Model, options: SolveOptions) -> Tensor:
    """Where an adaptive method begins and ends, float64: (first, last), with a 0 after them to denoise at the last.

    Raises:
        SampleError: a grid of more than that, or a model without a finite range of sigma.
        GridError: sigmas that this model cannot have.
    """
    method = options.name
    if options.grid is None:
        if not 0 < model.sigma_min < model.sigma_max < math.inf:
            raise SampleError(
                f"{method} needs a finite range of sigma, this model's is [{model.sigma_min:g}, {model.sigma_max:g}]"
                "; give its path sigma_min and sigma_max, or the first and the last sigma as grid"
            )
        return f64([model.sigma_max, model.sigma_min, *([0.0] if options.final == "denoise" else [])])
    assert not isinstance(options.grid, str | Profile)  # which SolveOptions refuses
    sigmas = check_grid(options.grid, model.path)
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


def tolerance_for(nfe: int, dtype: torch.dtype, cost: Callable[[float, int], float]) -> float:
    """The largest accuracy that a budget pays: the tolerance, to an eighth of a decade, whose cost is at most nfe.

    cost: (tol, most) -> evaluations a sample, infinite where a sample would need more than `most`.

    Raises:
        SampleError: the coarsest tolerance costs more already.
    """
    most = 3 * nfe + 100  # more is too much anyway

    def affordable(exponent: float) -> bool:
        return cost(10**exponent, most) <= nfe

    least = math.log10(LEAST_TOL[dtype])
    high, low = 0.0, -1.0  # log10 of a tolerance that is cheap enough, and of one to try
    if (spent := cost(1.0, most)) > nfe:
        remedy = f"; use nfe >= {math.ceil(spent)}" if spent < math.inf else ", and more; give tol instead"
        raise SampleError(f"nfe={nfe} is too small: even at tol=1 a sample costs {min(spent, most):.1f}{remedy}")
    while low >= least and affordable(low):
        high, low = low, low - 1
    for _ in range(3):
        middle = max(least, (low + high) / 2)
        low, high = (low, middle) if affordable(middle) else (middle, high)
    return float(10**high)
