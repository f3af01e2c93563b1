"""Facts that JSON can hold, and their files. What is read back is sealed: it says its kind, and a digest of itself."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from ddim_ode.errors import DDIMError
from ddim_ode.support.files import replacing
from ddim_ode.support.reading import read_json

KIND, SEAL = "kind", "sha256"
MEANT = f"put the original back or, if the change is meant, delete its line {SEAL!r}"
WIDTH = 120  # characters of a line that is meant to be read
OURS = "ddim_ode "  # how our kinds begin, as in "ddim_ode sample 1"


class RecordError(DDIMError):
    """A file of facts that is damaged, or not one of ours."""


def finite(value: Any) -> Any:
    """A value for JSON, which knows neither NaN nor infinity: they become null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(file: Path, record: Mapping[str, Any]) -> None:
    """A line a key. Raises OutputError."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.items())
    with replacing(file) as new:
        new.write(("{\n  " + ",\n  ".join(lines) + "\n}\n").encode())


def write_record(file: Path, kind: str, record: Mapping[str, Any]) -> None:
    """A sealed record: its kind ("ddim_ode sample 1") comes first and its seal last. Raises OutputError."""
    told = {KIND: kind, **record}
    write_json(file, {**told, SEAL: seal(told)})


def write_folded(file: Path, kind: str, record: Mapping[str, Any]) -> None:
    """A sealed record as of `write_record`, but what is long goes over several lines. Raises OutputError."""
    told = {KIND: kind, **record}
    with replacing(file) as new:
        new.write(f"{folded({**told, SEAL: seal(told)})}\n".encode())


def folded(value: Any, indent: str = "", width: int = WIDTH) -> str:
    """The JSON of a value: on one line where that fits, numbers of a list side by side, else an item a line."""
    text = json.dumps(value, allow_nan=False)
    if not isinstance(value, Mapping | list | tuple) or (indent and len(indent) + len(text) <= width):
        return text
    deeper = indent + "  "
    if isinstance(value, Mapping):
        items = [f"{json.dumps(key)}: {folded(item, deeper, width)}" for key, item in value.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    items = [folded(item, deeper, width) for item in value]
    if any(isinstance(item, Mapping | list | tuple) for item in value):
        return "[\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}]"
    lines = fill(", ".join(items), width, initial_indent=deeper, subsequent_indent=deeper)
    return f"[\n{lines}\n{indent}]"


def read_record(file: Path, kind: str = OURS, error: type[DDIMError] = RecordError, remedy: str = "") -> dict[str, Any]:
    """What `write_record` has written, without its kind and seal.

    Raises `error`: the file cannot be read, is of a kind that does not begin so, or is not as it was written.
    """
    found = read_json(file, error, remedy or "give another")
    if not isinstance(found, dict) or not str(found.get(KIND, "")).startswith(kind) or SEAL not in found:
        raise error(f"{file} is no sealed file of the kind {kind.strip()!r}{remedy and f'; {remedy}'}")
    return unsealed(found, file, error, remedy or "put the original back")


def unsealed(found: Mapping[str, Any], file: Path, error: type[DDIMError], remedy: str = MEANT) -> dict[str, Any]:
    """A record without its kind and seal. Raises `error` for a seal that does not fit; one without a seal is taken."""
    told = {key: value for key, value in found.items() if key != SEAL}
    if SEAL in found and found[SEAL] != seal(told):
        raise error(f"{file} is not as it was written, by its {SEAL}; {remedy}")
    return {key: value for key, value in told.items() if key != KIND}


def seal(record: Mapping[str, Any]) -> str:
    """A digest of facts, whatever the order and the layout of their file."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(record)), sort_keys=True).encode()).hexdigest()
