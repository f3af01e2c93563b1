"""Networks whose weights are elsewhere: where they compute, and what cannot be done with them."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from torch import nn

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, DenoiserError
from tests.helpers.assertions import one_line
from tests.helpers.networks import Around, tiny_unet
from tests.helpers.tensors import normal

PATH = paths.DiscreteVP.linear()


def denoiser(net: nn.Module, shape: tuple[int, ...] = (4,)) -> Denoiser:
    return Denoiser(net, PATH, "noise", shape)


def test_an_offloaded_network_computes_where_its_hooks_bring_it():
    plain = denoiser(tiny_unet(num_classes=0), (1, 8, 8))
    x = normal(2, 1, 8, 8, seed=0, dtype=torch.float32)
    expected = plain(x, 1.0).noise
    net = cpu_offload(copy.deepcopy(plain.net), execution_device=torch.device("cpu"))
    assert next(net.parameters()).is_meta
    model = denoiser(net, (1, 8, 8))
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert torch.equal(model(x, 1.0).noise, expected)
    assert model.to("cpu", torch.float32) is model
    for call in (lambda: model.to(dtype=torch.float64), model.fast):
        assert "net is offloaded" in one_line(DenoiserError, call)


@pytest.mark.parametrize("place", ["cpu", "cuda:1", torch.device("cuda", 2)])
def test_the_device_is_that_of_the_first_hook(place):
    class Hook:
        execution_device = place

    class Hooks:
        hooks = (object(), Hook())

    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1]._hf_hook = Hooks()
    assert denoiser(net).device == torch.device(place)


def test_weights_that_were_not_loaded_are_refused():
    with torch.device("meta"):
        net = Around(nn.Linear(4, 4))
    assert "weights of net are not loaded" in one_line(DenoiserError, denoiser, net)


def test_a_network_of_buffers_is_where_they_are():
    net = Around(nn.Identity())
    net.register_buffer("table", torch.zeros(3))
    assert denoiser(net).device == torch.device("cpu")
    assert denoiser(net).dtype is None
