"""Inception V3 as published FIDs use it, by torch-fidelity (the extra `eval`), with weights that are already there."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.checkpoints import load_torch
from ddim_ode.data import to_uint8
from ddim_ode.metrics import resizing
from ddim_ode.metrics.checks import MetricError

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
FEATURES, LOGITS = "2048", "logits_unbiased"  # what torch-fidelity calls them
SPATIAL = 7  # channels of the first branch of mixed_6, 17 x 17 each: Nash et al. 2021, arXiv:2103.03841, section 4


class Inception(nn.Module):
    """Images (N, 1 or 3, H, W) in [-1, 1] to the 2048 features before the last layer; grey is shown as colour.

    Raises MetricError when the file or torch-fidelity is not there, or the weights are another network's, and
    CheckpointError when the file is damaged or would run code.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.net = _network(file_of(weights), [FEATURES])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) in [-1, 1] to (N, 2048)."""
        (features,) = self.net(to_uint8(x).expand(-1, 3, -1, -1))
        return features


class InceptionOutputs(nn.Module):
    """Bytes (N, 1 or 3, H, W) to all that is measured of them; grey is shown as colour. Raises as `Inception`.

    resize: a name in RESIZES.
    """

    def __init__(self, weights: str | os.PathLike[str] | None, resize: str) -> None:
        super().__init__()
        self.net = _network(file_of(weights), [FEATURES, LOGITS])
        self.resize = resize
        self.spatial: Tensor | None = None  # of the batch at work
        self.resized: Tensor | None = None
        self.net.Mixed_6d.branch1x1.register_forward_hook(self._keep)
        if resize == "clean":
            # torch-fidelity's takes bytes alone, so what is not rounded enters after its own resizing.
            self.net.Conv2d_1a_3x3.register_forward_pre_hook(self._enter)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Bytes (N, 1 or 3, H, W) to "features" (N, 2048), "logits" (N, 1008) and "spatial" (N, 2023)."""
        device = next(self.net.parameters()).device
        if self.resize == "clean":
            self.resized = resizing.clean(images).to(device).expand(-1, 3, -1, -1)
            images = images.new_zeros(len(images), 3, resizing.SIZE, resizing.SIZE)
        elif self.resize == "bytes":
            images = resizing.rounded(images)
        features, logits = self.net(images.to(device).expand(-1, 3, -1, -1))
        assert self.spatial is not None
        found = {"features": features, "logits": logits, "spatial": self.spatial}
        self.spatial = self.resized = None
        return found

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        # By row, column and channel, as TensorFlow lays them out and files of mu_s and sigma_s have them.
        self.spatial = output[:, :SPATIAL].movedim(1, -1).flatten(1)

    def _enter(self, module: nn.Module, inputs: Any) -> tuple[Tensor]:
        assert self.resized is not None
        return ((self.resized - 128) / 128,)  # as the network's graph does to what it has resized


def file_of(weights: str | os.PathLike[str] | None) -> Path:
    """The file of the weights. Raises MetricError where there is none; it is never fetched."""
    file = hub_file() if weights is None else Path(weights)
    if not file.is_file():  # torch-fidelity would fetch it
        raise MetricError(f"features='inception' found no weights at {file}; download {URL} to there")
    return file


def hub_file() -> Path:
    """Where torch's hub, and torch-fidelity with it, keeps the weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]


def _network(file: Path, outputs: Sequence[str]) -> Any:
    """torch-fidelity's network, which gives a tuple of the outputs."""
    load_torch(file)  # torch-fidelity unpickles it whatever it would run
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails with RuntimeError
        raise MetricError(
            f"features='inception' need torch-fidelity ({_first_line(error)}); pip install 'ddim_ode[eval]',"
            f" with the torchvision for torch {torch.__version__}"
        ) from None
    try:
        net = FeatureExtractorInceptionV3("inception", list(outputs), feature_extractor_weights_path=str(file))
    except (RuntimeError, TypeError) as error:  # load_state_dict: other names, or no dictionary
        raise MetricError(f"{file} holds no weights of Inception V3 ({_first_line(error)}); download {URL}") from None
    return net.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return f"{(str(error) or type(error).__name__).splitlines()[0].rstrip(':'):.200}"
