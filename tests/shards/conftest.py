"""Runs of a tiny model in shards, of each format, to damage."""

import shutil

import pytest

import ddim_ode
from ddim_ode import paths
from ddim_ode.models.unet import UNet
from ddim_ode.shards.formats import FORMATS
from ddim_ode.shards.samples import sample_shards
from tests.helpers.mixtures import MIXTURES
from tests.helpers.sharding import HOW


@pytest.fixture(scope="module")
def net(model):
    return ddim_ode.load(model)


@pytest.fixture(scope="module")
def mixture():
    """A model that costs nothing, of pictures of 4 x 4."""
    return MIXTURES["tight"].denoiser(paths.Noise(0.01, 50.0))


@pytest.fixture(scope="module")
def whole(net, tmp_path_factory):
    """A folder of each format, none of which a test may change."""
    top = tmp_path_factory.mktemp("whole")
    for name in FORMATS:
        sample_shards(net, top / name, format=name, **HOW)
    return top


@pytest.fixture
def again(whole, tmp_path):
    """A copy of such a folder."""

    def copied(name="safetensors"):
        shutil.copytree(whole / name, tmp_path / name)
        return tmp_path / name

    return copied


@pytest.fixture
def counted(monkeypatch):
    """How many samples went through the network, each as often as it did."""
    seen, forward = [], UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda net, x, *rest: seen.append(len(x)) or forward(net, x, *rest))
    return seen
