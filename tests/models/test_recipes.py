"""What is done to a network on which hardware, and that the network itself stays as it was."""

import platform

import pytest
import torch
from torch import nn

from ddim_ode.models.recipes import Recipe, recipe_for
from ddim_ode.models.winograd import LEAST, Winograd
from tests.helpers.networks import tiny_unet

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"amx_tile", "avx512_bf16"}, Recipe("CPU with AMX")),
        ({"avx512_bf16"}, Recipe("CPU with AVX-512 BF16", winograd=True)),
        (set(), Recipe("CPU without BF16", dtype=torch.float32)),
    ],
)
def test_by_processor(has, expected, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in has)
    assert recipe_for(CPU) == expected


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_by_card(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = recipe_for(torch.device("cuda"))
    assert (found.dtype, found.graphs, found.winograd) == (dtype, True, False)
    assert str(found).endswith("channels_last, CUDA graphs")


def test_weights_are_rounded_once():
    """To what autocast rounds them at each call; the others stay in full."""
    net = tiny_unet()
    made = Recipe("any").prepared(net)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    rounded = set()
    for (name, full), found in zip(net.named_parameters(), made.parameters(), strict=True):
        assert torch.equal(found, full.to(found.dtype))
        if found.dtype == torch.bfloat16:
            rounded.add(name)
    kinds = {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert rounded == {f"{name}.weight" for name in kinds}


def test_in_float32_nothing_is_rounded():
    net = tiny_unet()
    recipe = Recipe("any", dtype=torch.float32)
    assert {p.dtype for p in recipe.prepared(net).parameters()} == {torch.float32}
    with recipe.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_it_says_what_it_does_to_a_network():
    recipe = Recipe("any", winograd=True)
    assert recipe.suited_to(nn.Conv2d(LEAST, LEAST, 3, padding=1)) == recipe
    assert recipe.suited_to(nn.Linear(2, 2)) == Recipe("any")


def test_convolutions_are_replaced_wherever_they_are():
    shared = nn.Conv2d(LEAST, LEAST, 3, padding=1)
    net = nn.Sequential(shared, nn.Sequential(nn.Tanh(), shared), nn.Conv2d(LEAST, 2, 3, padding=1)).requires_grad_(
        False
    )
    made = Recipe("any", winograd=True).prepared(net)
    assert [type(module) for module in made.modules()].count(Winograd) == 1  # the same one in both places
    x = torch.randn(2, LEAST, 6, 6, generator=torch.Generator().manual_seed(0))
    with Recipe("any").autocast(CPU):
        found = made(x).float()
    assert 0 < (found - net(x)).norm() / net(x).norm() < 0.02
    assert type(Recipe("any", winograd=True).prepared(shared)) is Winograd
