"""Tuned methods on disk: a JSON file that people can read, sealed by a digest of itself.

Its numbers are read back to the last bit, and the same method is the same bytes.
"""

import os
from pathlib import Path

from ddim_ode.models.denoiser import Model
from ddim_ode.models.provenance import provenance_of
from ddim_ode.planning.inputs import check_model
from ddim_ode.planning.tuned_schema import StoredMethod, TunedError
from ddim_ode.solvers import TUNED, Method
from ddim_ode.support.checks import as_path, flag
from ddim_ode.support.records import read_record, write_folded
from ddim_ode.support.validation import ConfigError, parse

__all__ = ["FILE", "TunedError", "beside", "load_tuned", "resolved", "save_tuned", "tuned_to"]

KIND = "ddim_ode tuned 1"
FILE = "tuned.json"  # beside a model
REMEDY = "tune it anew, or put the original back"


def save_tuned(method: Method, file: str | os.PathLike[str]) -> None:
    """Write a tuned method as a JSON file with a digest of itself, whole or not at all.

    Args:
        method: one that was tuned, whose `origin` says to what.
        file: its path; as tuned.json in the folder of the model it is what `sample(model, "tuned")` takes.

    Raises:
        TunedError: the method was not tuned, or stands on a solver that has no name.
        OutputError: the file cannot be written.
    """
    stored = StoredMethod.of(method)
    write_folded(as_path("file", file), KIND, stored.model_dump(mode="json", exclude_none=True))


def load_tuned(file: str | os.PathLike[str], force: bool = False) -> Method:
    """Read a tuned method that `save_tuned` has written, or `ddim-ode tune`.

    Args:
        file: its path.
        force: let it run on another model than it was tuned to, and with other guidance, as long as it begins within
            the range of sigma that the model knows. Otherwise that is refused when it is used.

    Returns:
        A `Method` for `sample(model, method, nfe=...)` and wherever else one is taken. Tables lead from noise to images
        alone; a method of which only the grids were tuned also encodes.

    Raises:
        TunedError: the file is missing, cut short, holds something else, or was changed since it was written.
    """
    file = as_path("file", file)
    force = flag("force", force)
    try:
        values = read_record(file, KIND, TunedError, REMEDY)
        return parse(StoredMethod, values, str(file)).to_method(force)
    except ConfigError as error:
        raise TunedError(f"{error}; {REMEDY}") from None
    except RecursionError:
        raise TunedError(f"{file} is too deep; {REMEDY}") from None


def beside(model: Model) -> Path | None:
    """Where the tuned method of a model lies, if it lies anywhere; None of a model that did not come from a folder."""
    origin = provenance_of(model)
    return None if origin is None else Path(origin.folder) / FILE


def tuned_to(model: Model, force: bool = False) -> Method:
    """The tuned method that lies beside a model. Raises TunedError where there is none, or it is damaged."""
    file = beside(model)
    if file is None:
        raise TunedError(
            f"this model was not loaded from a folder, so there is no {FILE} beside it"
            "; give what load_tuned(FILE) returns"
        )
    if not os.path.lexists(file):
        raise TunedError(
            f"this model has no {FILE} beside it; make one with ddim-ode tune {file.parent} --nfe 5,8,10 --out {file}"
        )
    return load_tuned(file, force)


def resolved(model: Model, method: str | Method, force: bool = False) -> str | Method:
    """The method itself, or for the name "tuned" the one that lies beside the model. Raises as `tuned_to`."""
    if not isinstance(method, str) or method != TUNED:
        return method
    check_model(model)
    return tuned_to(model, force)
