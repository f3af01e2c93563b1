"""`fast`: what is gained is measured in benchmarks/; here, that it stays close, stays compiled and is told of."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.utils import counters

from ddim_ode.commands.shared.runs import warm_up
from ddim_ode.models.denoiser import DenoiserError
from ddim_ode.models.fast import Fast
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.command_line import Command
from tests.helpers.foreign import relative
from tests.helpers.networks import random_network
from tests.helpers.tensors import normal


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The modules that were to be compiled; they are run as they are, since a compiler takes its time."""
    asked: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: asked.append(module))
    return asked


def test_close_for_every_size_of_batch():
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


def test_how_often_it_is_compiled(monkeypatch):
    """Once for batches and once for a single sample, however times and labels are laid out."""
    graphs = []

    def compiler(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=compiler))
    model = random_network().fast()
    warm_up(model, 4)
    assert len(graphs) == 1
    for count in (1, 2, 5):
        for labels in (None, 1, torch.arange(count) % 3):
            sample(model, "ddim", nfe=2, seeds=range(count), labels=labels)
            sample(model, "adaptive", tol=0.3, seeds=range(count), labels=labels)
    sample(model, "ddim", nfe=4, seeds=range(3), labels=1, guidance=2.0)
    assert len(graphs) == 2


def test_the_model_stays_as_it_was(compiled):
    model = random_network()
    layouts = {name: p.stride() for name, p in model.net.named_parameters()}
    fast = model.fast()
    assert compiled == [fast.net.net]
    assert {name: p.stride() for name, p in model.net.named_parameters()} == layouts
    assert {p.stride() for p in fast.net.parameters()} != set(layouts.values())


def test_a_copy_is_compiled_too(compiled):
    fast = random_network().fast()
    other = copy.deepcopy(fast.net)
    assert isinstance(other, Fast)
    assert compiled == [fast.net.net, other.net]


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
        def forward(self, x, t, *labels):
            return x, t

    model = replace(random_network(), net=Pair())
    assert "net returned tuple" in one_line(DenoiserError, model.fast(), torch.zeros(2, *model.shape), 1.0)


def test_the_command_and_its_manifest(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path, compiled: list[torch.nn.Module]
) -> None:
    few = ("--nfe", 3, "-n", 2, "--label", "each")
    assert run("sample", model, *few, "--out", tmp_path / "slow").code == 0
    assert not compiled
    assert run("sample", model, *few, "--fast", "--out", tmp_path / "one").code == 0
    assert run("sample", "--manifest", tmp_path / "one/manifest.json", "--out", tmp_path / "two").code == 0
    assert len(compiled) == 2
    slow, one, two = (load_file(tmp_path / name / "samples.safetensors")["x"] for name in ("slow", "one", "two"))
    assert torch.equal(one, two)
    assert 0 < relative(one, slow) < 0.1
    line = fails("sample", model, *few, "--fast", "--dtype", "float64", "--out", tmp_path / "three")
    assert "dtype=float64 and fast contradict each other" in line


def test_without_a_compiler(fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with config.patch(fx_graph_cache=False):
        line = fails("sample", model, "--nfe", 2, "-n", 2, "--fast", "--out", tmp_path / "out")
    assert "torch.compile failed" in line
    assert "leave --fast out" in line
    assert not (tmp_path / "out").exists()
