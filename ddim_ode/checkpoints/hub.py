"""Models of the Hugging Face hub, where `huggingface_hub` is installed."""

import re
from pathlib import Path

from ddim_ode.checkpoints.files import CheckpointError

#: what a pipeline around a UNet2DModel is made of, and nothing else
PATTERNS = ["*.json", "unet/*.json", "scheduler/*.json", "diffusion_pytorch_model*", "unet/diffusion_pytorch_model*"]


def is_hub_id(name: str) -> bool:
    """Whether it looks like owner/name and there is no such file or folder."""
    return not Path(name).exists() and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def fetch(name: str) -> Path:
    """The folder of a model of the hub, fetched if it is not in the cache.

    Raises:
        CheckpointError: huggingface_hub is not installed, or cannot get it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"there is no folder {name!r}, and huggingface_hub, which would look on the hub, is not installed"
            "; pip install huggingface_hub, or give a folder"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS))
    except Exception as error:  # offline, no such model, no right to it: of many classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"there is no folder {name!r}, and it could not be fetched from the hub ({reason}); give a folder"
        ) from None
