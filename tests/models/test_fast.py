"""`fast`: what is gained is measured in benchmarks/; here, that it stays close, stays compiled, and is checked."""

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from ddim_ode.commands.shared.quick import warm_up
from ddim_ode.models import fast as module
from ddim_ode.models.denoiser import DenoiserError, NonFiniteError
from ddim_ode.models.fast import COMPILED, EAGER, GIVEN, PAIRED, Fast, FastWarning, distance
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.foreign import relative
from tests.helpers.layouts import LAYOUTS, Convolutions, inputs_of, network
from tests.helpers.networks import random_network, tiny_unet
from tests.helpers.tensors import normal

Forward = Callable[..., Tensor]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that were to be compiled; they are run as they are, since a compiler takes its time."""
    asked: list[nn.Module] = []

    def run_as_it_is(net: nn.Module, graphs: bool) -> Forward:
        asked.append(net)
        return net

    monkeypatch.setattr(module, "compiled", run_as_it_is)
    return asked


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """Called with a function of the output: what is compiled answers by it."""

    def breaks(spoil: Callable[[Tensor], Tensor]) -> None:
        monkeypatch.setattr(module, "compiled", lambda net, graphs: lambda *x, **told: spoil(net(*x, **told)))

    return breaks


# --- it is right


@pytest.mark.parametrize("layout", LAYOUTS)
def test_close_for_every_layout_and_size_of_batch(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is traced, laid out and rounded; of what the compiler makes of that see the slow test."""
    check_closeness(layout, monkeypatch, backend="eager")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_close_as_compiled(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_closeness(layout, monkeypatch, backend="inductor")


def check_closeness(layout: str, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    counters.clear()
    net, *_ = network(layout)
    fast = Fast(net)
    with torch.no_grad():
        for count in (2, 3, 8, 1, 64):
            values, told = inputs_of(layout, count)
            assert 0 < distance(fast(*values, **told), net(*values, **told)) < 0.02
    assert {verdict.way for verdict in fast.verdicts.values()} == {COMPILED}
    assert counters["stats"]["unique_graphs"] == 2  # one for a single sample, one for all batches


def test_close_as_compiled_for_two_sizes_of_batch():
    torch._dynamo.reset()
    counters.clear()
    model = random_network()
    fast = model.fast()
    assert (fast.dtype, fast.device, fast.path) == (model.dtype, model.device, model.path)
    for count in (3, 5):
        x = normal(count, *model.shape, seed=0, dtype=torch.float32)
        labels = torch.arange(count) % model.num_classes
        mine, theirs = (m(x, 1.0, labels).noise for m in (fast, model))
        assert mine.dtype == torch.float32
        assert 0 < relative(mine, theirs) < 0.02
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["graph_break"] == {}
    assert [verdict.way for verdict in fast.net.verdicts.values()] == [COMPILED]


def test_how_often_it_is_compiled(monkeypatch):
    """Once for batches and once for a single sample, however times and labels are laid out and batches shrink."""
    graphs = []

    def compiler(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    model = random_network().fast()
    warm_up(model, 4)
    assert len(graphs) == 1
    for count in (1, 2, 5):
        for labels in (None, 1, torch.arange(count) % 3):
            sample(model, "ddim", nfe=2, seeds=range(count), labels=labels)
            sample(model, "adaptive", tol=0.3, seeds=range(count), labels=labels)
    sample(model, "ddim", nfe=4, seeds=range(3), labels=1, guidance=2.0)
    assert len(graphs) == 2


def test_graphs_are_captured_for_few_sizes_of_batch(monkeypatch):
    """What follows a call would be written over by the next."""
    net, sizes = Convolutions(), []
    memory = torch.empty(64, 3, 5, 5)

    def replayed(x, t):
        sizes.append(len(x))
        memory[: len(x)] = net(x, t)
        return memory[: len(x)]

    monkeypatch.setattr(torch, "compile", lambda net, mode: replayed)
    forward, answers = module.compiled(net, graphs=True), {}
    with torch.no_grad():
        for count in range(1, 26):
            x, t = normal(count, 3, 5, 5, seed=count, dtype=torch.float32), torch.arange(float(count))
            answers[count] = forward(x, t), net(x, t)
    assert set(sizes) == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}
    assert all(torch.allclose(found, expected, atol=1e-6) for found, expected in answers.values())


# --- and where it is not


def answers(layout: str, count: int) -> tuple[Fast, Tensor, Tensor]:
    """A fast network after a call, what it said, and what is right."""
    net, *_ = network(layout)
    values, told = inputs_of(layout, count)
    fast = Fast(net)
    with torch.no_grad():
        return fast, fast(*values, **told), net(*values, **told)


def test_no_numbers_for_a_single_sample(broken):
    broken(lambda out: torch.full_like(out, torch.nan) if len(out) == 1 else out)
    with pytest.warns(FastWarning, match="for a single sample the network is run a single sample as two") as seen:
        fast, found, right = answers("classes", 1)
    assert "compiled it is off by inf where" in str(seen[0].message)
    assert distance(found, right) < 0.02
    assert [verdict.way for verdict in fast.verdicts.values()] == [PAIRED]
    assert fast.account().startswith("fast: a single sample as two; ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers("classes", 2)


@pytest.mark.parametrize("layout", ["guided", "tokens"])
@pytest.mark.parametrize("count", [1, 3])
def test_wrong_numbers(layout, count, broken):
    broken(lambda out: 1.05 * out)
    with pytest.warns(FastWarning, match="the network is run not compiled"):
        fast, found, right = answers(layout, count)
    assert 0 < distance(found, right) < 0.02
    assert [verdict.way for verdict in fast.verdicts.values()] == [EAGER]


def test_one_wrong_sample_among_many(broken):
    broken(lambda out: torch.cat([out[:-1], 1.05 * out[-1:]]))
    with pytest.warns(FastWarning, match="for batches the network is run not compiled"):
        answers("convolutions", 64)


def test_a_compiler_that_fails(monkeypatch):
    def fail(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(module, "compiled", lambda net, graphs: fail)
    with pytest.warns(FastWarning, match="compiled it fails") as seen:
        _, found, right = answers("classes", 2)
    assert "(RuntimeError: no kernel for this)" in str(seen[0].message)
    assert distance(found, right) < 0.02


def test_a_network_that_rounding_ruins(compiled):
    """What it says is a small difference of large numbers."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.layer(x + 1000) - self.layer(torch.full_like(x, 1000))
            return out

    fast, x = Fast(Difference()), normal(2, 4, seed=0, dtype=torch.float32)
    with torch.no_grad(), pytest.warns(FastWarning, match="the network is run as it was given, in full"):
        assert torch.equal(fast(x, torch.zeros(2)), fast.net(x, torch.zeros(2)))
    assert [(verdict.way, verdict.error) for verdict in fast.verdicts.values()] == [(GIVEN, 0)]
    assert compiled == []


def test_where_the_network_has_no_numbers_nothing_is_decided(compiled):
    model = random_network().fast()
    x = torch.full((2, *model.shape), torch.nan)
    with pytest.raises(NonFiniteError):
        model(x, 1.0)
    assert model.net.verdicts == {}
    assert model.net.account() == "fast: the network was not asked"
    assert model(torch.ones_like(x), 1.0).data.isfinite().all()


def test_an_answer_of_zeros_is_met(compiled):
    net = tiny_unet()
    for weight in net.conv_out.parameters():
        nn.init.zeros_(weight)
    fast, (values, _) = Fast(net), inputs_of("classes", 2)
    assert torch.equal(fast(*values), torch.zeros(2, 1, 8, 8))
    assert [verdict.way for verdict in fast.verdicts.values()] == [COMPILED]


def test_a_gradient_is_not_compiled_for(compiled):
    net, *_ = network("guided")
    values, _ = inputs_of("guided", 2)
    fast, x = Fast(net), values[0].requires_grad_()
    (mine,) = torch.autograd.grad(fast(x, *values[1:]).sum(), x)
    (theirs,) = torch.autograd.grad(net(x, *values[1:]).sum(), x)
    assert relative(mine, theirs) < 0.03
    assert [verdict.way for verdict in fast.verdicts.values()] == [EAGER]
    assert compiled == []
    assert not fast(x.detach(), *values[1:]).requires_grad


# --- what it is


def test_the_model_stays_as_it_was(compiled):
    model = random_network()
    before = {name: (p.stride(), p.dtype) for name, p in model.net.named_parameters()}
    fast = model.fast()
    warm_up(fast, 2)
    assert {name: (p.stride(), p.dtype) for name, p in model.net.named_parameters()} == before
    (made,) = compiled
    assert {p.stride() for p in made.parameters()} != {stride for stride, _ in before.values()}
    assert {p.dtype for p in made.parameters()} == {torch.float32, torch.bfloat16}
    assert fast.net.state_dict().keys() == {f"net.{name}" for name in model.net.state_dict()}


def pickled(fast: Fast) -> Fast:
    found: Fast = pickle.loads(pickle.dumps(fast))  # noqa: S301  # bytes of our own
    return found


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, partial(Fast.to, device="cpu")])
def test_a_copy_is_compiled_and_checked_anew(copied, compiled):
    model = random_network().fast()
    warm_up(model, 2)
    other = replace(model, net=copied(model.net))
    assert isinstance(other.net, Fast)
    assert other.net.verdicts == {}
    warm_up(other, 2)
    assert len(compiled) == 2


def test_what_cannot_be_fast(compiled):
    model = random_network()
    assert "net is a function" in one_line(DenoiserError, replace(model, net=lambda x, *_: x).fast)
    for dtype in (torch.float16, torch.float64):
        assert "contradict each other" in one_line(DenoiserError, model.to(dtype=dtype).fast)
        assert "contradict each other" in one_line(DenoiserError, model.fast().to, dtype=dtype)
    assert model.fast().to(dtype=torch.bfloat16).dtype == torch.bfloat16
    fast = model.fast()
    assert fast.fast() is fast


def test_what_is_no_tensor_is_refused_as_ever(compiled):
    class Pair(nn.Module):
        def forward(self, x: Tensor, t: Tensor, *labels: Tensor) -> Any:
            return x, t

    model = replace(random_network(), net=Pair())
    assert "net returned tuple" in one_line(DenoiserError, model.fast(), torch.zeros(2, *model.shape), 1.0)
