"""In what two records differ, in words that fit on a line."""

import json
from collections.abc import Mapping
from typing import Any

from ddim_ode.errors import one_line

SHOWN = 70  # characters of a value, a digest at least
BEFORE = 12  # characters of a long text before the first that differs


def difference(stored: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """The first value in which a record is not what is stored: "nfe is 10, not 20"; "" if it is the same.

    Of long values it is the first part that differs: "grid[30] is 1.5, not 2.0", "config.width is 64, not 32".
    """
    for name in record:
        if stored.get(name) != record[name]:
            return _told(name, stored.get(name), record[name])
    return ""


def _told(name: str, old: Any, new: Any) -> str:
    was, now = json.dumps(old), json.dumps(new)
    if max(len(was), len(now)) > SHOWN:
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            key = next(key for key in {**new, **old} if (key in old, old.get(key)) != (key in new, new.get(key)))
            if key not in old or key not in new:
                return f"{name}.{key} is {'missing' if key in new else 'there'}"
            return _told(f"{name}.{key}", old[key], new[key])
        if isinstance(old, list) and isinstance(new, list):
            place = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
            if place is None:
                return f"{name} has {len(old)} entries, not {len(new)}"
            return _told(f"{name}[{place}]", old[place], new[place])
        if isinstance(old, str) and isinstance(new, str):
            place = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
            was, now = (f"... {text[place - BEFORE :]}" if place > BEFORE else text for text in (old, new))
    return f"{name} is {one_line(was, SHOWN)}, not {one_line(now, SHOWN)}"
