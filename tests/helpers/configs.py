"""What a YAML file of a training run says, and the one line that a wrong one is refused with."""

from typing import Any

import pytest

from ddim_ode.support.validation import ConfigError, parse
from ddim_ode.training.config import TrainConfig


def values(**changes: Any) -> dict[str, Any]:
    """The least that a training run must say, with changes; a dotted key reaches inside."""
    found: dict[str, Any] = {"model": {"network": {"shape": [1, 8, 8], "channels": [32]}}, "steps": 10}
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = found
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return found


def fault(given: Any, kind: Any = TrainConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(kind, given, "settings.yaml")
    text = str(caught.value)
    assert text.startswith("settings.yaml: ")
    assert "\n" not in text
    return text
