"""What there is: bundled models, methods and grids, and what a model is."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddim_ode.commands.shared.display import print_json, print_table, text, warn
from ddim_ode.commands.shared.types import ConfigFile, Json, ModelChoice, ModelName, NoEma, PlannedNfe

if TYPE_CHECKING:
    from ddim_ode.cascade import Cascade
    from ddim_ode.models.denoiser import Denoiser


def models(as_json: Json = False) -> None:
    """List the models that come with the package, and the cascades of models."""
    from ddim_ode.cascade import Cascade, bundled_cascades
    from ddim_ode.checkpoints import bundled, load
    from ddim_ode.models.provenance import describe

    keys = ("name", "shape", "classes", "parameters", "description")
    rows = [{"name": name, **describe(load(name))} for name in bundled()]
    rows = [{key: row[key] for key in keys} for row in rows]
    rows += [{"name": name, **_cascade(Cascade.load(name))} for name in bundled_cascades()]
    if as_json:
        print_json({"models": rows})
    elif rows:
        print_table(keys, rows)
    else:
        print("no models are bundled; give the folder of a model instead")


def _cascade(cascade: "Cascade") -> dict[str, Any]:
    """What the table of models says of a cascade."""
    from ddim_ode.models.provenance import describe

    facts = [describe(stage) for stage in cascade.stages]
    return {
        "shape": list(cascade.shape),
        "classes": cascade.num_classes,
        "parameters": sum(each["parameters"] or 0 for each in facts),
        "description": f"cascade of {' and '.join(text(each['shape']) for each in facts)}",
    }


def info(model: ModelName, config: ConfigFile = None, no_ema: NoEma = False, as_json: Json = False) -> None:
    """Show what a model is: its shape, classes, schedule, range of sigma and weights; of a cascade, its stages."""
    from ddim_ode.cascade import Cascade, is_cascade
    from ddim_ode.checkpoints import load
    from ddim_ode.models.provenance import describe

    if config is None and not no_ema and is_cascade(model):
        _stages(Cascade.load(model), as_json)
        return
    facts = describe(load(model, config, not no_ema))
    if as_json:
        print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key.replace('_', ' '):<12} {text(value)}")


def _stages(cascade: "Cascade", as_json: bool) -> None:
    """What the stages of a cascade are, and what a pass of each costs in passes of the largest."""
    from ddim_ode.models.conditional import condition_of
    from ddim_ode.models.provenance import describe

    rows, levels = list[dict[str, Any]](), iter(cascade.levels)
    for stage, weight in zip(cascade.stages, cascade.weights, strict=True):
        wanted = condition_of(stage)
        rows.append(
            describe(stage)
            | {"told": wanted and list(wanted.image), "augmentation": wanted and next(levels), "weight": weight}
        )
    if as_json:
        print_json({"stages": rows})
    else:
        shown = [{key: "-" if value is None else value for key, value in row.items()} for row in rows]
        shown = [row | {"weight": f"{row['weight']:.3g}"} for row in shown]
        print_table(("shape", "told", "augmentation", "classes", "parameters", "weight", "description"), shown)


def methods(model: ModelChoice = None, nfe: PlannedNfe = 10, as_json: Json = False) -> None:
    """List the sampling methods and the grids of sigma they run on; of a MODEL, where each of them steps by default.

    The order is that of the error, start and end included: a first or last step of Euler limits many methods to 2.

    An adaptive method takes --tol and chooses its steps, for each sample its own. Where they are coupled a batch shares
    them, and a sample depends on its companions.
    """
    from ddim_ode.grids import GRIDS
    from ddim_ode.solvers import METHODS

    if model is not None:
        _planned(model, nfe, as_json)
        return
    columns = ("order", "evaluations", "deterministic", "adaptive", "per_sample", "invertible", "grid", "summary")
    rows = [{"name": name, **{column: getattr(m, column) for column in columns}} for name, m in METHODS.items()]
    grids = [{"grid": name, "summary": (rule.__doc__ or "").partition("\n")[0]} for name, rule in GRIDS.items()]
    if as_json:
        print_json({"methods": rows, "grids": grids})
    else:
        kinds = [{**row, "nfe/step": row["evaluations"], "kind": METHODS[row["name"]].kind} for row in rows]
        print_table(("name", "order", "nfe/step", "kind", "grid", "summary"), kinds)
        print_table(("grid", "summary"), grids)


def _planned(name: str, nfe: int, as_json: bool) -> None:
    """Where each method would step on a model with so many evaluations."""
    from ddim_ode.checkpoints import load
    from ddim_ode.planning.budget import grid_for
    from ddim_ode.planning.options import SolveOptions
    from ddim_ode.solvers import METHODS

    model, rows = load(name), list[dict[str, Any]]()
    for method, row in METHODS.items():
        if row.adaptive:
            continue
        sigmas = grid_for(model, SolveOptions(method=method, nfe=nfe)).tolist()
        told = sigmas if as_json else _shortly(sigmas)
        rows.append({"name": method, "grid": row.grid, "sigmas": told})
    rows += _tuned(model, as_json)
    if as_json:
        print_json({"model": name, "nfe": nfe, "sigma_range": [model.sigma_min, model.sigma_max], "methods": rows})
    else:
        print(f"{name}: sigma from {model.sigma_max:g} to {model.sigma_min:.3g}; with nfe={nfe} these methods step at")
        print_table(("name", "grid", "sigmas"), rows)


def _tuned(model: "Denoiser", as_json: bool) -> list[dict[str, Any]]:
    """A row for each grid of the tuned method beside a model, if there is one; a warning if it cannot be used."""
    from ddim_ode.errors import DDIMError
    from ddim_ode.models.guidance import Guided
    from ddim_ode.planning.budget import priced
    from ddim_ode.planning.options import SolveOptions
    from ddim_ode.planning.origins import check_origin
    from ddim_ode.planning.tuned_files import beside, load_tuned
    from ddim_ode.solvers import TUNED

    file = beside(model)
    if file is None or not file.is_file():
        return []
    try:
        method = load_tuned(file)
        assert method.origin
        scale, interval = method.origin.guidance, method.origin.guidance_range or (0.0, math.inf)
        asked = model if scale == 1 else Guided(model, scale, interval)
        check_origin(asked, method)
        grids = priced(asked, SolveOptions(method=method))
    except DDIMError as error:
        warn(f"{file}: {str(error).removeprefix(f'{file} ')}")
        return []
    return [
        {"name": TUNED, "grid": f"nfe {cost}", "sigmas": sigmas.tolist() if as_json else _shortly(sigmas.tolist())}
        for cost, sigmas in grids
    ]


def _shortly(sigmas: Sequence[float]) -> str:
    return "  ".join(f"{sigma:.3g}" for sigma in sigmas)
