"""A network in training mode is seen however it is called, and one that sees to its mode is left alone."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, DenoiserError
from tests.helpers.assertions import one_line
from tests.helpers.networks import Around
from tests.helpers.tensors import normal

PATH = paths.DiscreteVP.linear()
X = normal(2, 4, seed=0, dtype=torch.float32)


class DropsByFunction(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=self.training)


class DropsInAMethod(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.drop(x)

    def drop(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1) < 0.5) if self.training else x


def denoiser(net: object) -> Denoiser:
    return Denoiser(net, PATH, "noise", (4,))


NET = DropsByFunction()


class Holds:
    def __init__(self, *nets: nn.Module):
        self.nets = nets

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.nets[-1](x, t)


class Student(nn.Module):
    """As a module of Lightning: one network trains, its average answers."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.student, self.ema = DropsByFunction(), net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.student(x, t)

    def ema_forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.ema(x, t)


#: how a network can be called without being a module; whether that is known before the first call
WAYS = {
    "partial": (lambda net: partial(net), True),
    "method": (lambda net: net.forward, True),
    "call": (lambda net: net.__call__, True),
    "compiled": (lambda net: torch.compile(net, backend="eager"), True),
    "data parallel": (lambda net: nn.DataParallel(net), True),
    "closure": (lambda net: lambda x, t: net(x, t)[:, :4], False),
    "global": (lambda net: lambda x, t: NET(x, t), False),
    "keyword": (lambda net: partial(lambda x, t, inner: inner(x, t), inner=net), False),
    "item of a list": (lambda net: (lambda nets: lambda x, t: nets[0](x, t))([net]), False),
    "item of a dict": (lambda net: (lambda nets: lambda x, t: nets["net"](x, t))({"net": net}), False),
    "object": (Holds, False),
    "twice": (lambda net: Holds(Holds(lambda x, t: net(x, t))), False),
    "compiled within": (lambda net: Holds(torch.compile(net, backend="eager")), False),
    "another method": (lambda net: Student(net).ema_forward, False),
    "inside of another": (
        lambda net: lambda x, t: nn.Sequential(nn.Identity())(Around(nn.Identity())(net(x, t), t)),
        False,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_network_is_seen_however_it_is_called(way):
    torch.manual_seed(0)
    make, known = WAYS[way]
    net = make(NET.eval())
    try:
        model = denoiser(net)
        expected = model(X, 1.0).noise
        NET.train()
        assert "its DropsByFunction reads the mode" in one_line(DenoiserError, model, X, 1.0)
        again = (lambda: denoiser(net)) if known else (lambda: denoiser(net)(X, 1.0))
        assert "net is in training mode" in one_line(DenoiserError, again)
        NET.eval()
        assert torch.equal(model(X, 1.0).noise, expected)
    finally:
        NET.eval()


def test_nothing_in_training_mode_runs_before_it_is_refused():
    norm = nn.BatchNorm1d(4)
    model = denoiser(lambda x, t: norm(x))
    assert "its BatchNorm1d reads" in one_line(DenoiserError, model, X, 1.0)
    assert norm.num_batches_tracked == 0


def test_a_network_that_goes_on_is_refused_nonetheless():
    drop = nn.Dropout(0.5)

    def careless(x: Tensor, t: Tensor) -> Tensor:
        try:
            return drop(x)
        except ValueError:
            return x

    assert "its Dropout reads" in one_line(DenoiserError, denoiser(careless), X, 1.0)


def test_what_is_scripted_is_seen_within_a_function():
    net = torch.jit.script(Around(nn.Dropout(0.5)))
    model = denoiser(lambda x, t: net(x, t))
    assert "its RecursiveScriptModule reads" in one_line(DenoiserError, model, X, 1.0)
    net.eval()
    torch.testing.assert_close(model(X, 1.0).noise, X / 2**0.5)
    net.train()
    assert "training mode" in one_line(DenoiserError, model, X, 1.0)


def test_adapters_are_seen_through():
    net = DropsInAMethod()
    for make in (Denoiser.from_edm, Denoiser.from_flow, Denoiser.from_v, Denoiser.from_score):
        for called in (net, net.forward):
            net.eval()
            model = make(called, (4,))
            net.train()
            assert "training mode" in one_line(DenoiserError, model, X, 1.0)


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    before = net.training
    net.eval()
    yield
    net.train(before)


@pytest.mark.parametrize("first", [True, False], ids=["training", "eval"])
def test_a_function_that_sees_to_the_mode_is_left_alone(first):
    net = DropsInAMethod()

    def careful(x: Tensor, t: Tensor) -> Tensor:
        with frozen(net):
            return net(x, t)

    model = denoiser(careful)
    for training in (first, not first, True, True):
        net.train(training)
        torch.testing.assert_close(model(X, 1.0).noise, X / 2**0.5)
        assert net.training == training


def test_a_part_that_is_not_asked_may_train():
    both = Student(Around(nn.Linear(4, 4)).eval())
    both.student.train()
    expected = both.ema(X / 2**0.5, X)
    torch.testing.assert_close(denoiser(both.ema_forward)(X, 1.0).noise, expected)
    assert "training mode" in one_line(DenoiserError, denoiser, both)


@pytest.mark.parametrize("around", [lambda net: net, lambda net: lambda x, t: net(x, t)], ids=["module", "function"])
def test_a_layer_that_is_put_in_later_is_seen_when_training_begins(around):
    net = Around(nn.Linear(4, 4)).eval()
    model = denoiser(around(net))
    model(X, 1.0)
    net.layer = nn.Sequential(net.layer, nn.Dropout(0.5))
    net.eval()
    expected = model(X, 1.0).noise
    net.train()
    assert "its Dropout reads the mode" in one_line(DenoiserError, model, X, 1.0)
    net.eval()
    assert torch.equal(model(X, 1.0).noise, expected)


def test_the_same_behind_what_is_around_it():
    net = Around(nn.Linear(4, 4)).eval()
    model = Denoiser.from_v(nn.DataParallel(net), (4,))
    net.layer = nn.Dropout(0.5)
    net.train()  # the modules around it stay as they are
    assert "its Dropout reads the mode" in one_line(DenoiserError, model, X, 1.0)


def test_modules_are_searched_once_for_each_change_of_the_mode(monkeypatch):
    searched = []
    net = Around(nn.Linear(4, 4))
    monkeypatch.setattr(net, "modules", lambda: searched.append(1) or nn.Module.modules(net))
    model = denoiser(net)
    made = len(searched)
    for count in (0, 0):
        model(X, 1.0)
        assert len(searched) == made + count
    for mode in (net.eval, net.train):
        mode()
        made = len(searched)
        model(X, 1.0)
        model(X, 1.0)
        assert len(searched) == made + 1


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:DeprecationWarning")
@pytest.mark.parametrize("frozen_by", [torch.jit.freeze, torch.jit.optimize_for_inference])
@pytest.mark.parametrize("way", [lambda net: net, lambda net: lambda x, t: net(x, t)], ids=["module", "function"])
def test_what_torch_has_frozen_has_no_mode(frozen_by, way):
    net = frozen_by(torch.jit.script(Around(nn.Dropout(0.5)).eval()))
    for _ in range(2):
        torch.testing.assert_close(denoiser(way(net))(X, 1.0).noise, X / 2**0.5)


@pytest.mark.parametrize("how", ["wrapped", "in place", "a function"])
def test_what_is_compiled_is_compiled_once(how):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    net = Around(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))).eval()
    if how == "wrapped":
        inner = torch.compile(net, backend=backend, fullgraph=True)
    elif how == "in place":
        net.compile(backend=backend, fullgraph=True)
        inner = net
    else:
        inner = torch.compile(lambda x, t: net(x, t), backend=backend, fullgraph=True)
    model = denoiser(inner if how == "a function" else lambda x, t: inner(x, t))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            model(X, 1.0)
    assert len(graphs) == 1
    if how != "a function":  # which shows nothing of itself
        net.train()
        assert "its Dropout reads the mode" in one_line(DenoiserError, model, X, 1.0)


@pytest.mark.parametrize("fails", [False, True])
def test_modules_are_called_as_ever_afterwards(fails):
    before = nn.Module.__call__
    net = Around(nn.Linear(4, 4)).eval()

    def call(x: Tensor, t: Tensor) -> Tensor:
        inner = denoiser(lambda x, t: net(x, t))(x, 1.0).noise  # one observed within another
        if fails:
            raise ZeroDivisionError
        return net(inner, t)

    model = denoiser(call)
    if fails:
        with pytest.raises(ZeroDivisionError):
            model(X, 1.0)
    else:
        model(X, 1.0)
    assert nn.Module.__call__ is before


class Two:
    """A callable that can be pickled."""

    def __init__(self) -> None:
        self.net = DropsByFunction().eval()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t)


def test_a_copy_that_was_observed_watches_its_own_modules():
    model = denoiser(Two())
    model(X, 1.0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        other.net.net.train()
        model(X, 1.0)
        assert "training mode" in one_line(DenoiserError, other, X, 1.0)
