"""Values from YAML or JSON as what they should be: every key is checked, and an unknown one lists the valid ones."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ddim_ode.errors import DDIMError

Parsed = TypeVar("Parsed", bound=BaseModel)


class ConfigError(DDIMError):
    """A configuration that cannot be read or is not valid; the message names the file, the key and the rule."""


class Record(BaseModel):
    """Facts that are read back: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse(kind: type[Parsed], values: Any, source: str) -> Parsed:
    """`values` (from YAML or JSON) as a `kind`. Raises ConfigError with every fault in one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(kind, fault) for fault in error.errors())
        raise ConfigError(f"{source}: {faults}") from None


def read_yaml(kind: type[Parsed], file: Path) -> Parsed:
    """A YAML file as a `kind`. Raises ConfigError when it is missing, not YAML, or not valid."""
    try:
        values = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; give an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse(kind, values, str(file))


def _fault(kind: type[BaseModel], fault: Any) -> str:
    where = ".".join(map(str, fault["loc"])) or "the top level"
    if fault["type"] == "extra_forbidden":
        inner: Any = kind  # an annotation can be of any form; where a key can be unknown it is a model
        for key in fault["loc"][:-1]:
            inner = inner.model_fields[key].annotation
        return f"unknown key {where!r}; valid keys are {', '.join(inner.model_fields)}"
    return f"{where}: {fault['msg']}"
