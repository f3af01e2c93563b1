"""`fast`: whose weights it computes with, when it looks again, and what it says that it did."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ddim_ode.models import fast as module
from ddim_ode.models.denoiser import DenoiserError
from ddim_ode.models.fast import COMPILED, EAGER, GIVEN, Fast, FastWarning, distance
from ddim_ode.models.identity import fingerprint
from ddim_ode.models.recipes import Recipe
from ddim_ode.support.process import computing
from tests.helpers.assertions import one_line
from tests.helpers.networks import random_network
from tests.helpers.tensors import normal

X, T = normal(2, 4, seed=0, dtype=torch.float32), torch.zeros(2)


class Layer(nn.Module):
    """net(x (B, 4), t)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class Unmixed(Layer):
    """What autocast cannot run: an answer put into what has another dtype."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[torch.arange(len(x))] = self.layer(x)
        return out


@pytest.fixture(autouse=True)
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """What is to be compiled is run as it is. Called with a factor of what that answers."""
    factors = [1.0]
    monkeypatch.setattr(module, "recipe_for", lambda device: Recipe("machine"))
    monkeypatch.setattr(module, "compiled", lambda net, graphs: lambda *x, **told: factors[-1] * net(*x, **told))
    return factors.append


def ways(fast: Fast) -> list[str]:
    return [verdict.way for verdict in fast.verdicts.values()]


# --- whose weights


@pytest.mark.parametrize("asked_first", [False, True])
def test_what_becomes_of_the_network_changes_nothing(asked_first):
    """It computes with the weights that its fingerprint is of."""
    model, seen = random_network(), []
    fast, x = model.fast(), normal(2, *model.shape, seed=0, dtype=torch.float32)
    digest, expected = fingerprint(fast), model.fast()(x, 1.0).noise
    if asked_first:
        fast(x, 1.0)
    model.net.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.mul_(1.3)
    assert torch.equal(fast(x, 1.0).noise, expected)
    assert fingerprint(fast) == digest != fingerprint(model.fast())
    assert seen == []


def test_weights_that_are_loaded_are_compiled_and_checked_anew():
    fast, other = Fast(Layer()), Layer()
    fast(X, T)
    other.requires_grad_(False).layer.weight.mul_(-2)
    nn.ModuleList([fast]).load_state_dict({f"0.net.{name}": value for name, value in other.state_dict().items()})
    assert fast.verdicts == {}
    assert 0 < distance(fast(X, T), other(X, T)) < 0.01
    assert not any(weight.requires_grad for weight in fast.parameters())


def test_what_cannot_be_copied_is_refused():
    model = random_network()
    model.net.lock = threading.Lock()
    assert "net cannot be copied (cannot pickle '_thread.lock' object)" in one_line(DenoiserError, model.fast)


# --- when it looks


@pytest.mark.parametrize("how", [{"threads": 2}, {"deterministic": True}])
def test_what_torch_compiles_anew_is_looked_at_anew(how, spoil):
    fast = Fast(Layer())
    fast(X, T)
    spoil(1.1)
    with computing(**how), pytest.warns(FastWarning, match="compiled it is off by 1"):
        fast(X, T)
    assert ways(fast) == [COMPILED, EAGER]


def test_an_empty_batch_tells_nothing():
    fast = Fast(Layer())
    for _ in range(2):
        assert fast(X[:0], T[:0]).shape == (0, 4)
        assert COMPILED not in ways(fast)[1:]
        fast(X, T)
    assert ways(fast) == [COMPILED]


# --- what it finds


def test_what_autocast_cannot_run_is_run_as_it_was_given():
    net = Unmixed()
    fast = Fast(net)
    with pytest.warns(FastWarning, match=r"as it was given, in full, .*: not compiled it fails \(RuntimeError: "):
        assert torch.equal(fast(X, T), net(X, T))
    assert ways(fast) == [GIVEN]


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, COMPILED), (torch.float32, EAGER)])
@pytest.mark.filterwarnings("ignore::ddim_ode.models.fast.FastWarning")
def test_a_network_rounds_by_its_own_precision_too(dtype, expected, spoil, monkeypatch):
    """A percent, where the hardware makes it compute in float32."""
    monkeypatch.setattr(module, "recipe_for", lambda device: Recipe("machine", dtype=torch.float32))
    spoil(1.01)
    fast = Fast(Layer().to(dtype))
    fast(X.to(dtype), T)
    assert ways(fast) == [expected]


@pytest.mark.parametrize(
    ("net", "factor", "expected"),
    [
        (Layer, 1.0, "fast: compiled; bfloat16, channels_last on a machine; "),
        (Layer, 1.1, "fast: not compiled; bfloat16 on a machine; "),
        (Unmixed, 1.0, "fast: as it was given, in full; relative error"),
    ],
)
@pytest.mark.filterwarnings("ignore::ddim_ode.models.fast.FastWarning")
def test_only_what_was_done_is_said(net, factor, expected, spoil):
    spoil(factor)
    fast = Fast(net())
    fast(X, T)
    assert fast.account().startswith(expected)
