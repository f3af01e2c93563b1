"""Winograd's convolution against torch's, in float64, of any size; which convolutions it can stand for."""

import pytest
import torch
from torch import nn

from ddim_ode.models.winograd import LEAST, Winograd, fits
from tests.helpers.tensors import normal


@pytest.mark.parametrize("size", [(4, 4), (5, 8), (8, 5), (7, 7), (1, 1), (2, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(size, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = normal(2, 3, *size, seed=0)
    found = Winograd(conv, torch.float64)(x)
    torch.testing.assert_close(found, conv(x), rtol=1e-13, atol=1e-13)
    assert found.stride(1) == 1  # channels last


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"padding": "same"}, True),
        ({"padding": 0}, False),
        ({"stride": 2}, False),
        ({"dilation": 2, "padding": 2}, False),
        ({"groups": 2}, False),
        ({"padding_mode": "circular"}, False),
        ({"kernel_size": 1, "padding": 0}, False),
        ({"in_channels": LEAST - 1}, False),
    ],
)
def test_which_convolutions_it_stands_for(changed, expected):
    asked = {"in_channels": LEAST, "out_channels": LEAST, "kernel_size": 3, "padding": 1} | changed
    assert fits(nn.Conv2d(**asked)) is expected


def test_not_for_what_something_has_changed():
    conv = nn.Conv2d(LEAST, LEAST, 3, padding=1)
    conv.register_forward_hook(lambda module, inputs, out: 2 * out)
    assert not fits(conv)
    assert not fits(nn.utils.parametrizations.weight_norm(nn.Conv2d(LEAST, LEAST, 3, padding=1)))
    assert not fits(nn.Linear(32, 32))
    assert not fits(nn.Conv2d(LEAST, LEAST, 3, padding=1, dtype=torch.complex64))


@pytest.mark.parametrize("name", ["forward", "_conv_forward"])
def test_not_for_what_was_given_another_way_to_compute(name):
    """As by programs that make images whose edges meet."""
    conv = nn.Conv2d(LEAST, LEAST, 3, padding=1)
    setattr(conv, name, getattr(conv, name))
    assert not fits(conv)


def test_no_samples_at_all():
    conv = nn.Conv2d(LEAST, LEAST, 3, padding=1)
    assert Winograd(conv, torch.float32)(torch.zeros(0, LEAST, 4, 5)).shape == (0, LEAST, 4, 5)
