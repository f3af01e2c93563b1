"""The cells of a study: which method is run on which grid, at which budget or tolerance, with how much noise."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from ddim_ode.errors import DDIMError
from ddim_ode.grids import GRIDS, shape_of
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.options import AUTO, MOST_NFE, SolveOptions
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.solvers import Method, get_method
from ddim_ode.support.checks import described, shown, whole
from ddim_ode.support.scalars import number
from ddim_ode.support.tables import entries

EtaValue = float | Literal["ddpm_large"] | None
MOST = 1000  # values of each kind in a study
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class StudyError(DDIMError):
    """A study that cannot be made as asked."""


class Shared(NamedTuple):
    """The seeds, labels, conditions, options and tolerance of the reference that all cells of a study share."""

    seeds: tuple[int, ...]
    labels: Told  # of B samples
    options: SolveOptions  # to which each cell adds its own
    reference_tol: float


@dataclass(frozen=True)
class Cell:
    """One run of a study. Either `nfe`, a budget, or `tol` is None; so is the grid of a method that is told none."""

    name: str  # that the study has for the method
    method: Method = field(compare=False)
    grid: str | None
    nfe: int | None
    tol: float | None
    eta: EtaValue

    @property
    def key(self) -> str:
        """Its name in the results, unique in a study."""
        asked = f"nfe={self.nfe}" if self.tol is None else f"tol={self.tol!r}"
        return "|".join([self.name, self.grid or "-", asked, *([] if self.eta is None else [f"eta={self.eta}"])])

    @property
    def noisy(self) -> bool:
        """Whether noise is added on the way, so that a sample has no trajectory to compare or to undo."""
        return bool(self.eta) or not self.method.deterministic

    @property
    def invertible(self) -> bool:
        """Whether its steps can be undone."""
        return self.method.invertible and not self.noisy

    @property
    def kind(self) -> str:
        """Words for people, such as "adaptive, coupled", for what is out of the ordinary about the cell."""
        words = {
            "adaptive": self.method.adaptive,
            "coupled": not self.method.per_sample,
            "stochastic": self.noisy,
            "invertible": self.invertible,
            "tuned": self.method.origin is not None,
        }
        return ", ".join(word for word, holds in words.items() if holds)

    @property
    def parameters(self) -> str:
        """The solver, path and grids of its method as text, without addresses in memory, which no two processes share.

        The summary is left out: it is for people.
        """
        method = self.method
        own = (method.grids,) if method.grids else ()
        return ADDRESS.sub("", repr((method.solver, method.path, method.grid, *own)))

    @property
    def asked(self) -> dict[str, Any]:
        """Its method, grid, noise, budget and tolerance, by the names that a row has for them."""
        return {"method": self.name, "grid": self.grid, "eta": self.eta, "nfe": self.nfe, "tol": self.tol}

    def options(self, base: SolveOptions) -> SolveOptions:
        """The options of a study with those of the cell put in. Raises as `SolveOptions` where they cannot be."""
        return replace(base, method=self.method, grid=self.grid, nfe=self.nfe, tol=self.tol, eta=self.eta)


def named(methods: Sequence[str] | Mapping[str, str | Method], model: Model) -> dict[str, Method]:
    """The methods of a study by name; "tuned" is the one beside the model.

    Raises StudyError for none or one twice, MethodError for one that is unknown, TunedError as `tuned_to`.
    """
    if isinstance(methods, str):
        raise StudyError(f"methods={methods!r} is a string; give a list of names, such as [{methods!r}]")
    if isinstance(methods, Mapping):
        for name in methods:
            if not isinstance(name, str) or not name:
                raise StudyError(f"methods names one {shown(name)}; give each a name, as in {{'mine': adams(3)}}")
        found = {name: get_method(resolved(model, method)) for name, method in methods.items()}
    else:
        names = listed("methods", methods)
        for name in names:
            if isinstance(name, Method):
                raise StudyError("methods has a Method without a name; give a mapping, as in {'mine': adams(3)}")
            if not isinstance(name, str):
                raise StudyError(f"methods has {described(name)} in it; give names in METHODS, or a mapping to Methods")
        found = {name: get_method(resolved(model, name)) for name in names}
        if len(found) < len(names):
            twice = next(name for name in found if names.count(name) > 1)
            raise StudyError(f"methods name {twice} twice; leave one of them out")
    if not found:
        raise StudyError("methods is empty; give at least one, such as 'ddim', or see `ddim-ode methods`")
    return found


def cells_of(
    methods: Mapping[str, Method],
    nfe: Sequence[int],
    tols: Sequence[float],
    grids: Sequence[str],
    etas: Sequence[EtaValue],
) -> list[Cell]:
    """Every method at every budget, on every grid, with every scale of noise; adaptive ones at the tolerances if given.

    The grid "own" is a method's own, "all" are all that have a name, "auto" is made for the method on the model. Of a
    tuned method "own" has no name, and one that steps on its own grids alone is tried on no other.

    Raises StudyError for a budget, a tolerance or a grid that cannot be, or if nothing is left to run.
    """
    budgets = [_budget(value) for value in listed("nfe", nfe)]
    tolerances = [_tolerance(value) for value in listed("tols", tols)]
    scales = [_scale(value) for value in listed("etas", etas)]
    names = _grids(grids)
    cells = []
    for name, method in methods.items():
        for eta in scales or [None]:
            for grid in _grids_of(method, names):
                if method.adaptive and tolerances:
                    cells += [Cell(name, method, grid, None, tol, eta) for tol in tolerances]
                else:
                    cells += [Cell(name, method, grid, budget, None, eta) for budget in budgets]
    if not cells:
        raise StudyError("there is nothing to run; give nfe, a list of budgets (tols are for adaptive methods only)")
    return list(dict.fromkeys(cells))


def listed(name: str, values: Sequence[Any], most: int = MOST) -> list[Any]:
    """The values, in their order. Raises StudyError for what is no list, or goes on and on."""
    found = entries(values, most) if getattr(values, "ndim", 1) == 1 else None
    if found is None:
        raise StudyError(f"{name}={shown(values)} is not a list; write [{shown(values)}]")
    if len(found) > most:
        raise StudyError(f"{name} has more than {most} values; give fewer, or make more studies of it")
    return found


def _grids_of(method: Method, names: Sequence[str | None]) -> list[str | None]:
    """Those of the grids that a method is tried on, by name; None is for what has no name, or needs none."""
    if method.adaptive or method.own_grids:
        return [None]
    return list(dict.fromkeys(name or (None if method.grids else method.grid) for name in names))


def _scale(value: Any) -> EtaValue:
    if value is None:
        return None
    if isinstance(value, str) and value == "ddpm_large":
        return "ddpm_large"
    if not 0 <= number(value) < math.inf:
        raise StudyError(f"eta={shown(value)} must be a number >= 0, or 'ddpm_large'")
    return float(value)


def _budget(value: Any) -> int:
    return whole("nfe", value, StudyError, most=MOST_NFE)


def _tolerance(value: Any) -> float:
    if not 0 < number(value) < math.inf:
        raise StudyError(f"tol={shown(value)} must be a finite number > 0, such as 0.01")
    return float(value)


def _grids(grids: Sequence[str]) -> list[str | None]:
    """The names of grids, and None for a method's own."""
    chosen: list[str | None] = []
    for name in listed("grids", grids):
        shape_of(name, also=["own", "all", AUTO], error=StudyError)
        chosen += list(GRIDS) if name == "all" else [None if name == "own" else name]
    if not chosen:
        raise StudyError("grids is empty; give 'own' for each method's own")
    return chosen
