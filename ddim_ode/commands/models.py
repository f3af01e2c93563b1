"""What there is: bundled models, methods and grids, and what a model is."""

from ddim_ode.commands.shared.display import print_json, print_table, text
from ddim_ode.commands.shared.types import ConfigFile, Json, ModelName, NoEma


def models(as_json: Json = False) -> None:
    """List the models that come with the package."""
    from ddim_ode.checkpoints import bundled, load
    from ddim_ode.models.provenance import describe

    keys = ("name", "shape", "classes", "parameters", "description")
    rows = [{"name": name, **describe(load(name))} for name in bundled()]
    rows = [{key: row[key] for key in keys} for row in rows]
    if as_json:
        print_json({"models": rows})
    elif rows:
        print_table(keys, rows)
    else:
        print("no models are bundled; give the folder of a model instead")


def info(model: ModelName, config: ConfigFile = None, no_ema: NoEma = False, as_json: Json = False) -> None:
    """Show what a model is: its shape, classes, schedule, range of sigma and weights."""
    from ddim_ode.checkpoints import load
    from ddim_ode.models.provenance import describe

    facts = describe(load(model, config, not no_ema))
    if as_json:
        print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key.replace('_', ' '):<12} {text(value)}")


def methods(as_json: Json = False) -> None:
    """List the sampling methods and the grids of sigma they run on.

    The order is that of the error, start and end included: a first or last step of Euler limits many methods to 2.

    An adaptive method takes --tol and chooses its steps, for each sample its own. Where they are coupled a batch shares
    them, and a sample depends on its companions.
    """
    from ddim_ode.grids import GRIDS
    from ddim_ode.solvers import METHODS

    columns = ("order", "evaluations", "deterministic", "adaptive", "per_sample", "invertible", "grid", "summary")
    rows = [{"name": name, **{column: getattr(m, column) for column in columns}} for name, m in METHODS.items()]
    grids = [{"grid": name, "summary": (rule.__doc__ or "").partition("\n")[0]} for name, rule in GRIDS.items()]
    if as_json:
        print_json({"methods": rows, "grids": grids})
    else:
        kinds = [{**row, "nfe/step": row["evaluations"], "kind": METHODS[row["name"]].kind} for row in rows]
        print_table(("name", "order", "nfe/step", "kind", "grid", "summary"), kinds)
        print_table(("grid", "summary"), grids)
