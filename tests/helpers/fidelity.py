"""A stand-in for torch-fidelity's Inception: its names, shapes and manners, with hardly a network inside."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class Network(nn.Module):
    """Bytes (N, 3, H, W) to a tuple of what `features_list` names."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None):
        assert isinstance(feature_extractor_weights_path, str), "it would download"
        super().__init__()
        self.features_list = features_list
        self.Conv2d_1a_3x3 = nn.Conv2d(3, 4, 11, stride=18)  # 299 to 17
        self.Mixed_6d = nn.Module()
        self.Mixed_6d.branch1x1 = nn.Sequential(nn.Conv2d(4, 192, 1), nn.ReLU())
        self.last = nn.Linear(192, 2048)
        self.fc = nn.Linear(2048, 1008)
        if Path(feature_extractor_weights_path).exists():
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        assert not self.training
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        x = (F.interpolate(x.float(), (299, 299)) - 128) / 128
        features = self.last(self.Mixed_6d.branch1x1(self.Conv2d_1a_3x3(x)).mean((2, 3)))
        found = {"2048": features, "logits_unbiased": features @ self.fc.weight.T}
        return tuple(found[name] for name in self.features_list)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Put the stand-in where torch-fidelity would be. Returns a file of weights for it."""
    module: Any = ModuleType(MODULE)
    module.FeatureExtractorInceptionV3 = Network
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, module)
    file = folder / "weights.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(Network("", [], str(file)).state_dict(), file)
    return file
