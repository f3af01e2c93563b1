"""Inception V3 as published FIDs use it, by torch-fidelity (the extra `eval`), with weights that are already there."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ddim_ode.checkpoints import load_torch
from ddim_ode.data import to_uint8
from ddim_ode.metrics.checks import MetricError

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"


class Inception(nn.Module):
    """Images (N, 1 or 3, H, W) in [-1, 1] to the 2048 features before the last layer; grey is shown as colour.

    Raises MetricError when the file or torch-fidelity is not there, or the weights are another network's, and
    CheckpointError when the file is damaged or would run code.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        file = hub_file() if weights is None else Path(weights)
        if not file.is_file():  # torch-fidelity would fetch it
            raise MetricError(f"features='inception' found no weights at {file}; download {URL} to there")
        load_torch(file)  # torch-fidelity unpickles it whatever it would run
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails with RuntimeError
            raise MetricError(
                f"features='inception' need torch-fidelity ({_first_line(error)}); pip install 'ddim_ode[eval]',"
                f" with the torchvision for torch {torch.__version__}"
            ) from None
        try:
            net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file))
        except (RuntimeError, TypeError) as error:  # load_state_dict: other names, or no dictionary
            raise MetricError(
                f"{file} holds no weights of Inception V3 ({_first_line(error)}); download {URL}"
            ) from None
        self.net = net.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) in [-1, 1] to (N, 2048)."""
        (features,) = self.net(to_uint8(x).expand(-1, 3, -1, -1))
        return features


def hub_file() -> Path:
    """Where torch's hub, and torch-fidelity with it, keeps the weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]


def _first_line(error: Exception) -> str:
    return f"{(str(error) or type(error).__name__).splitlines()[0].rstrip(':'):.200}"
