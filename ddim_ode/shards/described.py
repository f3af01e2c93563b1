"""What decides the samples of a run, in words that JSON has: a run that goes on is compared by them with its record."""

import hashlib
import re
from typing import Any

from ddim_ode.models.conditions import Conditions, Told, digest, labels_of
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.profile import Profile
from ddim_ode.planning.tuned_schema import in_ranges
from ddim_ode.shards.jobs import ShardError
from ddim_ode.solvers import METHODS
from ddim_ode.support.checks import described

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in memory, which no two processes share
SHORT = 16  # digits of a digest


def solving(options: SolveOptions) -> dict[str, Any]:
    """The options. Raises ShardError for an eta that is a function, of which nothing can be compared."""
    if callable(options.eta):
        raise ShardError(f"eta is {described(options.eta)}; shards take a number, or 'ddpm_large'")
    values = {name: getattr(options, name) for name in SolveOptions.__dataclass_fields__}
    grid = options.grid
    return {
        **values,
        "method": options.method if isinstance(options.method, str) else _method(options),
        "grid": f"auto of {_short(grid.images.numpy().tobytes())}" if isinstance(grid, Profile) else grid,
        "dtype": str(options.dtype).removeprefix("torch."),
    }


def sampling(seeds: tuple[int, ...], told: Told) -> dict[str, Any]:
    """The seeds, the labels and the conditions of all samples."""
    labels = labels_of(told)
    which: int | str | None = None
    if labels is not None:
        same = bool((labels == labels[0]).all())
        which = int(labels[0]) if same else f"{len(labels)} with digest {digest(labels)[:SHORT]}"
    conditions = told.digests() if isinstance(told, Conditions) else {}
    return {"seeds": in_ranges(seeds), "labels": which, "conditions": conditions}


def _method(options: SolveOptions) -> str:
    """A method that is no name: what is ours of it, and a digest of its solver, path and grids."""
    row = options.row
    name = next((name for name, known in METHODS.items() if known == row), options.name)
    return f"{name} {_short(ADDRESS.sub('', repr((row.solver, row.path, row.grid, row.grids))).encode())}"


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:SHORT]
