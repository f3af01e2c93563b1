"""Tuned methods whose numbers are known: tables that are DDIM, and grids for a method of ours."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ddim_ode import METHODS, Method, load, save_tuned
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.origins import digest_of
from ddim_ode.solvers.origin import Errors, Origin, Result
from ddim_ode.solvers.tuned import Table, tabulated
from tests.helpers.command_line import make_model

FIVE = (30.0, 6.0, 2.0, 0.7, 0.15)
THREE = (20.0, 2.0, 0.3)


def ddim_table(sigmas: Sequence[float], scale: float = 1.0) -> Table:
    """DDIM on these sigmas and 0, from noise times the scale, which is 1 where variance-preserving models begin.

    On the angle path, at u = atan sigma, DDIM keeps D and E of y = cos u D + sin u E. With r = sin u1 / sin u0 that is
    y1 = r y0 + (cos u1 - r cos u0) D, into which y0 = a z + sum of c_j D_j is put.
    """
    u = [*map(math.atan, sigmas), 0.0]
    a, row = scale, list[float]()
    noise, data = [], []
    for u0, u1 in pairwise(u):
        r = math.sin(u1) / math.sin(u0)
        a, row = r * a, [*(r * c for c in row), math.cos(u1) - r * math.cos(u0)]
        noise.append(a)
        data.append(tuple(row))
    return Table(tuple(sigmas), scale, tuple(noise), tuple(data))


def origin_of(model: Model, predictions: Sequence[int], **changes: Any) -> Origin:
    """An origin that says of a method that it was tuned to the model; what it says of errors is made up."""
    others = (("unipc_2", Errors(0.1, 0.2)), ("adaptive", Errors(0.05, math.inf)))
    results = tuple(
        Result(predictions=n, errors=Errors(0.1 / n, 0.2 / n), others=others, evaluations=1000 * n, refined=n > 3)
        for n in predictions
    )
    told = {
        "digest": digest_of(model),
        "shape": model.shape,
        "num_classes": model.num_classes,
        "sigma_range": (model.sigma_min, model.sigma_max),
        "guidance": 1.0,
        "guidance_range": None,
        "labels": "each" if model.num_classes else "none",
        "tried": True,
        "seeds": (*range(1000, 1032), 5, 7),
        "held_out": tuple(range(64)),
        "results": results,
    }
    return Origin(**{**told, **changes})


def tables_for(model: Model, *grids: Sequence[float], scale: float = 1.0, **changes: Any) -> Method:
    """A method of DDIM's tables, tuned to the model by its own word."""
    method = tabulated([ddim_table(sigmas, scale) for sigmas in grids or (THREE, FIVE)])
    counts = [len(grid) - 1 for grid in method.grids]
    return replace(method, origin=origin_of(model, counts, **changes))


def grids_for(model: Model, name: str = "ddim", *grids: Sequence[float], **changes: Any) -> Method:
    """A method of ours with grids that were tuned, by its own word."""
    chosen = tuple((*sigmas, 0.0) for sigmas in grids or (THREE, FIVE))
    counts = [METHODS[name].evaluations * (len(grid) - 1) for grid in chosen]
    return replace(METHODS[name], grids=chosen, origin=origin_of(model, counts, **changes))


def model_with_tables(folder: Path, **changes: Any) -> Path:
    """The folder of a small random model, with tables beside it."""
    make_model(folder)
    save_tuned(tables_for(load(folder), **changes), folder / "tuned.json")
    return folder
