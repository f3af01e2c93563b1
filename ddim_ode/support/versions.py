"""Where numbers were computed, and by which versions of what."""

import platform
from importlib.metadata import version
from typing import Any

import torch


def circumstances() -> dict[str, Any]:
    """Where the numbers were computed, and by what."""
    names = ("ddim_ode", "torch", "torchdiffeq", "torchsde", "numpy")
    return {
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
        "platform": platform.platform(),
    }
