"""How the page and the terminal put what a study holds: lists, durations, names of rows, and what it was made on.

`results` and its rows are those of results.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddim_ode.study.report.series import RowRecord, name_of
from ddim_ode.study.report.tables import in_digits

FEW = 5  # numbers that are listed one by one


def chosen_on(results: Mapping[str, Any]) -> str:
    """One sentence: on what a method was chosen, the model, its range of sigma, seeds, labels, budgets, reference."""
    model, settings, reference = results["model"], results["settings"], results["reference"]
    name = "the model" if model["name"] == "model" else model["name"]  # which is that of one without a name
    low, high = (in_digits(end) if end is not None else "infinity" for end in (model["sigma_min"], model["sigma_max"]))
    seeds = "1 seed" if len(settings["seeds"]) == 1 else f"{len(settings['seeds'])} seeds"
    settled = "settled" if reference["agreed"] else "that did not settle"
    parts = [
        f"{seeds} of {name} ({model['schedule']}, sigma {low} to {high})",
        *(_labels(settings, model["classes"]) if model["classes"] else []),
        *([f"under conditions ({names})"] if (names := ", ".join(settings.get("conditions", {}))) else []),
        _asked(settings),
        f"against {reference['method']} {settled} to {in_digits(reference['wanted'])}",
    ]
    return f"Chosen on {', '.join(parts)}; on another model or setting another method may win."


def _labels(settings: Mapping[str, Any], classes: int) -> list[str]:
    """The labels and the guidance, in words."""
    labels = settings["labels"]
    if labels is None:
        told = "the null class"
    elif len(set(labels)) == 1:
        told = f"class {labels[0]}"
    elif labels == [n % classes for n in range(len(labels))]:
        told = "classes in turn"
    else:
        told = "classes as given"
    return [told, "no guidance" if settings["guidance"] == 1 else f"guidance {guided(settings)}"]


def _asked(settings: Mapping[str, Any]) -> str:
    """The budgets and the tolerances, in words."""
    budgets = [f"at {_listed(settings['nfe'])} evaluations"] if settings["nfe"] else []
    tolerances = [f"at tolerance {_listed(settings['tols'])}"] if settings["tols"] else []
    return " or ".join(budgets + tolerances)


def _listed(values: Sequence[float]) -> str:
    """Rising numbers: 5, 10 and 20, or the ends of many."""
    if len(values) > FEW:
        return f"{values[0]:g} to {values[-1]:g}"
    *others, last = (f"{value:g}" for value in values)
    return f"{', '.join(others)} and {last}" if others else last


def names_of(results: Mapping[str, Any], keys: Iterable[str], but: str | None = None) -> list[str]:
    """The methods of rows by their keys, each with its grid where that is not its own; none that is called as `but` is.

    That may be the same method on the same grid at another budget.
    """
    rows = {row["key"]: row for row in results["rows"]}
    own = results["settings"]["own_grids"]
    names = dict.fromkeys(_named(rows[key], own) for key in keys)
    if but is not None:
        names.pop(_named(rows[but], own), None)
    return list(names)


def _named(row: RowRecord, own: Mapping[str, str]) -> str:
    grid = row["grid"]
    return name_of(row) + (f" on {grid}" if grid and grid != own.get(row["method"]) else "")


def grids_made(rows: Sequence[RowRecord]) -> str | None:
    """A sentence: what the grids of some rows took that were made for the model; None where there are none."""
    costs = [row["grid_cost"] for row in rows if row["grid_cost"]]
    if not costs:
        return None
    profile, trials = costs[0]["profile"], sum(cost["trials"] for cost in costs)
    grids = "a grid" if len(costs) == 1 else f"{len(costs)} grids"
    parts = f"{profile:,} for its profile, {trials:,} to try grids"
    return f"To make {grids} for the model (auto) took {profile + trials:,} evaluations, once: {parts}."


def measured_by(timing: Mapping[str, Any]) -> str | None:
    """A sentence: by how many processes the last run was measured, and on what; None of one process."""
    processes, devices = timing["processes"], timing["devices"]
    if processes == 1 or not devices:
        return None
    own = "on a GPU of its own" if devices[0].startswith("cuda") else "on cores of its own"
    count = f"{processes} processes" if len(devices) == processes else f"{len(devices)} of {processes} processes"
    return f"Measured by {count}, each {own} ({', '.join(devices)})." if len(devices) > 1 else f"Measured by {count}."


def shortly(values: Sequence[int]) -> str:
    """Numbers for people: a range as its ends, and no more than twelve of others."""
    if len(values) > 2 and list(values) == list(range(values[0], values[0] + len(values))):
        return f"{values[0]} to {values[-1]}"
    listed = ", ".join(map(str, values[:12]))
    return listed if len(values) <= 12 else f"{listed}, … ({len(values)} in all)"


def guided(settings: Mapping[str, Any]) -> str:
    """The scale of guidance, and where it acts if not everywhere."""
    low, high = settings.get("guidance_range") or (None, None)
    ends = [f"{word} {in_digits(end)}" for word, end in (("above", low), ("below", high)) if end]
    return f"{settings['guidance']}" + (f", where sigma is {' and '.join(ends)}" if ends else "")


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def grouped(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}".replace(",", " ")
