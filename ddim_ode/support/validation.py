"""Values from YAML or JSON as what they should be: every key is checked, and an unknown one lists the valid ones.

A YAML file of ours begins with a digest of what follows, so that a copy that went wrong is found out.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ddim_ode.errors import DDIMError, one_line
from ddim_ode.support.files import replacing
from ddim_ode.support.reading import MOST_YAML, read_text, read_yaml_values

Parsed = TypeVar("Parsed", bound=BaseModel)

MOST_FAULTS = 8  # in one message
SEAL = "# sha256 "  # how the first line of a sealed file begins
REMEDY = "give an existing YAML file"


class ConfigError(DDIMError):
    """A configuration that cannot be read or is not valid; the message names the file, the key and the rule."""


class Record(BaseModel):
    """Facts that are read back: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse(kind: type[Parsed], values: Any, source: str) -> Parsed:
    """`values` (from YAML or JSON) as a `kind`. Raises ConfigError with every fault, or the first few, in one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        faults = "; ".join(_fault(kind, fault) for fault in found[:MOST_FAULTS])
        more = f"; and {len(found) - MOST_FAULTS} more faults" if len(found) > MOST_FAULTS else ""
        raise ConfigError(f"{source}: {faults}{more}") from None


def read_yaml(kind: type[Parsed], file: Path) -> Parsed:
    """A YAML file as a `kind`. Raises ConfigError when it is missing, not YAML, not valid, or not as it was written."""
    file = Path(file)
    text = read_text(file, ConfigError, MOST_YAML, REMEDY)
    first, _, rest = text.replace("\r\n", "\n").partition("\n")
    if first.startswith(SEAL) and not re.fullmatch(re.escape(SEAL + _digest(rest)) + r"\s*", first):
        raise ConfigError(
            f"{file} is not as it was written, by its first line; put the original back or, if the change is meant,"
            " delete that line"
        )
    return parse(kind, read_yaml_values(file, ConfigError, REMEDY), str(file))


def sealed_yaml(values: Mapping[str, Any]) -> str:
    """The text of a YAML file whose first line is a digest of the others."""
    text = yaml.safe_dump(dict(values), sort_keys=False)
    return f"{SEAL}{_digest(text)}\n{text}"


def write_yaml(file: Path, values: Mapping[str, Any]) -> None:
    """Write a sealed YAML file, whole or not at all. Raises OutputError."""
    with replacing(file) as new:
        new.write(sealed_yaml(values).encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(kind: type[BaseModel], fault: Mapping[str, Any]) -> str:
    path = fault["loc"]
    where = one_line(".".join(map(_shown, path)), 100) or "the top level"
    if fault["type"] == "extra_forbidden":
        inside: list[Any] = [kind]
        for key in path[:-1]:
            inside = [found for outer in inside for found in _inside(outer, key)]
        keys = list(dict.fromkeys(name for model in inside if _is_model(model) for name in model.model_fields))
        return f"unknown key {where!r}" + (f"; valid keys are {', '.join(keys)}" if keys else "")
    return f"{where}: {one_line(fault['msg'], 300)}"


def _shown(key: str | int) -> str:
    try:
        return str(key)
    except ValueError:  # an int of thousands of digits
        return "a huge number"


def _inside(kind: Any, key: str | int) -> Iterator[Any]:
    """What an annotation may be at a key: of a field, of an element, or of one of several, all that it could be."""
    if _is_model(kind):
        if key in kind.model_fields:
            yield from _one_of(kind.model_fields[key].annotation)
        elif key == kind.__name__:  # as pydantic says which of a union it is
            yield kind
    else:
        for inner in get_args(kind):
            yield from _one_of(inner)


def _one_of(kind: Any) -> Iterator[Any]:
    """The alternatives of a union; for anything else, itself."""
    if _is_model(kind) or (
        isinstance(get_origin(kind), type) and issubclass(get_origin(kind), list | tuple | dict | set)
    ):
        yield kind
    else:
        for inner in get_args(kind):  # of a union, or of something annotated
            yield from _one_of(inner)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
