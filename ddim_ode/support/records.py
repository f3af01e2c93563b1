"""Facts that JSON can hold, and their files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddim_ode.support.files import replacing


def finite(value: Any) -> Any:
    """A value for JSON, which knows neither NaN nor infinity: they become null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(file: Path, record: Mapping[str, Any]) -> None:
    """A line a key."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.items())
    with replacing(file) as tmp:
        tmp.write_text("{\n  " + ",\n  ".join(lines) + "\n}\n")
