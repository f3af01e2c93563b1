"""How to solve: one value that holds everything which can be checked without a model."""

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ddim_ode.grids import FINALS, MOST_INTERVALS, Final, Grid, explicit_grid, shape_of
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.profile import Profile
from ddim_ode.solvers import METHODS, Control, Method, get_method
from ddim_ode.solvers.eta import EtaError, EtaLike
from ddim_ode.solvers.stochastic import with_noise
from ddim_ode.support.checks import shown, whole
from ddim_ode.support.scalars import number
from ddim_ode.support.tables import range_of

DEFAULT_NFE = 20
DEFAULT_TOL = 0.01
DEFAULT_MOST = 1000  # evaluations of an adaptive method
DEFAULT_BATCH = 128
MOST_NFE = MOST_INTERVALS  # a named grid has no more
MOST_GUIDANCE = 1e6  # beyond it what float32 rounds off is multiplied to the size of an image
AUTO = "auto"
LEAST_TOL = {torch.float32: 1e-6, torch.float64: 1e-12}  # what the state can hold


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """A method, what it may cost, where it steps, how it is guided and how much noise it adds.

    Numbers of numpy or torch are kept as Python's, sequences as tuples, so that equal options are equal values.

    Args:
        method: a name in `METHODS`, or a `Method`.
        nfe: the most network evaluations a sample may cost, at most 100,000; of an adaptive method, on average.
        tol, max_nfe, first_step: of an adaptive method, see `sample`.
        grid: a name in `GRIDS`, or decreasing sigmas, kept as a tuple of floats; None is the method's own, of several
            the largest that nfe allows, "auto" one that is made for the method on this model, from its `Profile`, which
            may be given instead.
        final: "denoise" or "sigma_min", where a named grid ends.
        guidance: scale of classifier-free guidance, from -1e6 to 1e6; 1 is none.
        guidance_range: (low, high) in sigma, outside of which there is none; an end that is None is open.
        eta, eta_range: scale of the noise on the way, and (low, high) in sigma.
        dtype: of the state, float32 or float64.
        batch_size: samples integrated at once; None is up to 128.

    Raises:
        SampleError, MethodError, GridError, GuidanceError, EtaError: a value that cannot be, or two that contradict
            each other.
    """

    method: str | Method = "ddim"
    nfe: int | None = None
    tol: float | None = None
    max_nfe: int | None = None
    first_step: float | None = None
    grid: Grid | Profile | None = None
    final: Final = "denoise"
    guidance: float = 1.0
    guidance_range: tuple[float, float] | None = None
    eta: EtaLike = None
    eta_range: tuple[float, float] | None = None
    dtype: torch.dtype = torch.float32
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.nfe is not None:
            self._keep("nfe", whole("nfe", self.nfe, SampleError, most=MOST_NFE, why="as a step or more each"))
        if self.batch_size is not None:
            self._keep("batch_size", whole("batch_size", self.batch_size, SampleError))
        if not isinstance(self.dtype, torch.dtype) or self.dtype not in LEAST_TOL:
            raise SampleError(f"dtype={shown(self.dtype)} is no dtype for a state; use torch.float32 or torch.float64")
        if not isinstance(self.final, str) or self.final not in FINALS:
            raise SampleError(f"final={shown(self.final)} is unknown; choose 'denoise' or 'sigma_min'")
        self._check_grid()
        self._check_guidance()
        self._check_noise()
        if self.row.own_grids:
            self._check_own_grids()
        if self.row.adaptive:
            self._check_adaptive()
        else:
            self._refuse_adaptive()

    def _keep(self, name: str, value: Any) -> None:
        """Set a field, which nobody else can."""
        object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The name of the method in errors: "this method" or "a tuned method" where it has none."""
        if isinstance(self.method, str):
            return self.method
        return "a tuned method" if getattr(self.method, "origin", None) else "this method"

    @cached_property
    def row(self) -> Method:
        """The method, with its noise."""
        return with_noise(get_method(self.method), self.name, self.eta, self.eta_range)

    @property
    def control(self) -> Control:
        """What an adaptive solver is told, but for a tolerance that is to be found for a budget."""
        tol = DEFAULT_TOL if self.tol is None else self.tol
        return Control(tol, DEFAULT_MOST if self.max_nfe is None else self.max_nfe, self.first_step)

    def _check_grid(self) -> None:
        if isinstance(self.grid, str):
            shape_of(self.grid, also=[AUTO])
        elif self.grid is not None and not isinstance(self.grid, Profile):
            self._keep("grid", tuple(explicit_grid(self.grid).tolist()))

    def _check_guidance(self) -> None:
        if not math.isfinite(number(self.guidance)):
            raise GuidanceError(f"guidance={shown(self.guidance)} must be a finite number, such as 2.0")
        self._keep("guidance", number(self.guidance))
        if abs(self.guidance) > MOST_GUIDANCE:
            raise GuidanceError(
                f"guidance={self.guidance:g} leaves nothing but rounding; give a number from {-MOST_GUIDANCE:g} to"
                f" {MOST_GUIDANCE:g}, such as 2.0"
            )
        if self.guidance_range is not None:
            if self.guidance == 1:
                raise GuidanceError("a guidance range does nothing with guidance=1; give another guidance")
            self._keep("guidance_range", range_of("the guidance range ", self.guidance_range, GuidanceError))

    def _check_noise(self) -> None:
        assert self.row  # whose noise is checked as it is made
        if self.eta is not None and not isinstance(self.eta, str) and not callable(self.eta):
            self._keep("eta", number(self.eta))
        if self.eta_range is not None:
            self._keep("eta_range", range_of("eta_range=", self.eta_range, EtaError))

    def _check_own_grids(self) -> None:
        if self.grid is not None and self.grid not in self.row.grids:
            raise SampleError(
                f"grid={shown(self.grid)} is not one that {self.name} has numbers for; leave grid out, and give nfe"
            )
        if self.final != "denoise":
            raise SampleError(
                f"{self.name} leads from noise to the image alone: it does not encode, nor stop at final={self.final!r}"
                "; use another method, such as 'adams3'"
            )

    def _check_adaptive(self) -> None:
        if isinstance(self.grid, str | Profile):
            raise SampleError(
                f"{self.name} chooses its steps; leave grid={self.grid!r} out, or give the first and the last sigma"
            )
        least = LEAST_TOL[self.dtype]
        if self.tol is not None and not least <= number(self.tol) < math.inf:
            kind = str(self.dtype).removeprefix("torch.")
            raise SampleError(
                f"tol={shown(self.tol)} must be a finite number of at least {least:g} with a {kind} state; use tol=0.01"
            )
        if self.first_step is not None and not 0 < number(self.first_step) < math.inf:
            given = shown(self.first_step)
            raise SampleError(f"first_step={given} must be a number > 0, in the time sigma / (1 + sigma)")
        for name in ("tol", "first_step"):
            if (given := getattr(self, name)) is not None:
                self._keep(name, number(given))
        if self.max_nfe is not None:
            most = whole("max_nfe", self.max_nfe, SampleError, most=sys.maxsize, why="where no run gets")
            self._keep("max_nfe", most)
        if self.nfe is not None and self.tol is not None:
            raise SampleError(f"nfe={self.nfe} and tol={self.tol} contradict each other; give one")

    def _refuse_adaptive(self) -> None:
        for name in ("tol", "max_nfe", "first_step"):
            if (value := getattr(self, name)) is not None:
                others = ", ".join(name for name, row in METHODS.items() if row.adaptive)
                raise SampleError(f"{name}={shown(value)} is for adaptive methods ({others}); {self.name} takes nfe")
