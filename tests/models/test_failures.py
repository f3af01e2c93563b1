"""Networks that look up times and labels in tables: what they are asked with, and what their errors come from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, DenoiserError
from ddim_ode.models.failures import advise
from ddim_ode.models.guidance import Guided
from ddim_ode.models.plausibility import probe
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.tensors import f64, normal

PATH = paths.DiscreteVP.linear(50)
TABLE = normal(50, 4, seed=1, dtype=torch.float32)
X = normal(3, 4, seed=0, dtype=torch.float32)
TIMES = [3.3, 10.6, 49.0]
WHOLE = [3, 11, 49]
SIGMA = PATH.sigma(f64(TIMES))


class Embeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(TABLE)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.table(t)


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", TABLE.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.table[t]


LOOKS_UP = {
    "embedding": Embeds(),
    "buffer": Buffers(),
    "compiled": torch.compile(Embeds(), backend="eager"),
    "function": lambda x, t: TABLE[t],
    "select": lambda x, t: TABLE.index_select(0, t),
    "gather": lambda x, t: TABLE.gather(0, t[:, None].expand(-1, 4)),
    "one hot": lambda x, t: F.one_hot(t, 50).to(x) @ TABLE.to(x),
    "NumPy": lambda x, t: torch.from_numpy(np.asarray(TABLE)[t]),
    "list": lambda x, t: torch.stack([list(TABLE)[i] for i in t.tolist()]),
}


@pytest.mark.parametrize("name", LOOKS_UP)
def test_a_time_that_is_looked_up_is_a_whole_number(name):
    model = Denoiser(LOOKS_UP[name], PATH, "noise", (4,), quantize="int")
    torch.testing.assert_close(model(X, SIGMA).noise, TABLE[WHOLE], rtol=0, atol=1e-6)
    assert sample(model, nfe=4, seeds=range(2)).x.dtype == torch.float32


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("name", sorted(set(LOOKS_UP) - {"compiled"}))
def test_a_network_that_looks_up_floats_fails_as_ever_and_the_remedy_is_noted(name, quantize):
    net = LOOKS_UP[name]
    with pytest.raises((IndexError, TypeError, RuntimeError)) as own:
        net(X, torch.tensor([3.0, 4.0, 5.0]))
    calls = []
    model = Denoiser(lambda x, t: (calls.append(1), net(x, t))[1], PATH, "noise", (4,), quantize=quantize)
    with pytest.raises((IndexError, TypeError, RuntimeError)) as caught:
        model(X, SIGMA)
    assert type(caught.value) is type(own.value)
    assert str(caught.value) == str(own.value)
    assert ['quantize="int"' in note for note in caught.value.__notes__] == [True]
    assert calls == [1]


def test_a_note_where_errors_take_none():
    class Old(IndexError):
        add_note = property()  # as before Python 3.11

    error = Old("only integer tensors of a single element can be converted to an index")
    advise(error, torch.zeros(2))
    assert 'quantize="int"' in error.__notes__[0]


@pytest.mark.parametrize(
    "net",
    [
        lambda x, t: torch.sin(t[:, None] * torch.exp(-torch.arange(4.0))),
        lambda x, t: torch.sin(t.long()[:, None] * torch.exp(-torch.arange(4.0))),
        lambda x, t: F.linear(t[:, None], torch.ones(4, 1, dtype=t.dtype)) / 50,
    ],
    ids=["of floats", "of ints", "a layer"],
)
def test_whole_times_are_floats_for_others(net):
    model = Denoiser(net, PATH, "noise", (4,), quantize=True)
    expected = net(X, torch.tensor(WHOLE, dtype=torch.float32))
    torch.testing.assert_close(model(X, SIGMA).noise, expected.to(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", [paths.Noise(0.01, 80.0), paths.Flow(0.01, 80.0)])
def test_times_without_steps_are_not_rounded(path):
    for how in (True, "int"):
        assert f"quantize={how!r} rounds to whole timesteps" in one_line(
            DenoiserError, Denoiser, lambda x, t: x, path, "noise", (4,), quantize=how
        )
    with pytest.raises(IndexError) as caught:  # the network's own
        Denoiser(lambda x, t: TABLE[t], path, "noise", (4,))(X, 1.0)
    assert not hasattr(caught.value, "__notes__")


class Classes(nn.Module):
    def __init__(self, rows: int = 3) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(TABLE[:rows])

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * x + self.table(labels)


ROWS = TABLE[:3]
NO_NULL = {
    "embedding": Classes(),
    "compiled": torch.compile(Classes(), backend="eager"),
    "function": lambda x, t, y: Classes()(x, t, y),
    "functional": lambda x, t, y: 0.5 * x + F.embedding(y, ROWS),
    "time, too": lambda x, t, y: 0.5 * x + TABLE[t] + F.embedding(y, ROWS),
}


@pytest.mark.parametrize("name", NO_NULL)
def test_a_network_without_a_null_class_is_told_of(name):
    model = Denoiser(NO_NULL[name], PATH, "noise", (4,), num_classes=3, quantize=name == "time, too" and "int")
    labels = torch.tensor([0, 1, 2])
    assert sample(model, nfe=2, seeds=[0], labels=2).x.isfinite().all()
    for call in (
        lambda: model(X, 1.0),
        lambda: model(X, 1.0, torch.tensor([0, 3, 1])),
        lambda: Guided(model, 2.0)(X, 1.0, labels),
        lambda: sample(model, nfe=2, seeds=range(2)),
        lambda: probe(model),
    ):
        words = one_line(DenoiserError, call)
        assert "no embedding for the null class, label 3; give null_class=False" in words


def test_a_null_class_is_asked_where_there_is_one():
    found = Denoiser(Classes(4), PATH, "noise", (4,), num_classes=3)(X, 1.0).noise
    torch.testing.assert_close(found, 0.5 * X / 2**0.5 + TABLE[3], rtol=1e-6, atol=1e-6)


class Positions(Classes):
    """It has a small embedding, and an error of another kind."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * x + ROWS[labels]


OTHER_FAILURES = {
    "index": lambda x, t, y: ROWS[y],
    "dict": lambda x, t, y: torch.stack([dict(enumerate(ROWS))[i] for i in y.tolist()]),
    "one hot": lambda x, t, y: F.one_hot(y, 3).float() @ ROWS,
    "NumPy": lambda x, t, y: torch.from_numpy(np.asarray(ROWS)[y]),
    "another table": lambda x, t, y: F.embedding(y * 0 + 50, TABLE),
    "a module with a table": Positions(),
}


@pytest.mark.parametrize("name", OTHER_FAILURES)
def test_what_is_no_embedding_of_labels_stays_the_networks_own_error(name):
    with pytest.raises((LookupError, RuntimeError)) as own:
        OTHER_FAILURES[name](X, torch.zeros(3), torch.full((3,), 3))
    model = Denoiser(OTHER_FAILURES[name], PATH, "noise", (4,), num_classes=3)
    with pytest.raises(type(own.value)) as caught:
        model(X, 1.0)
    assert not isinstance(caught.value, DenoiserError)


def test_labels_that_are_no_null_class_have_nothing_to_do_with_it():
    model = Denoiser(Classes(2), PATH, "noise", (4,), num_classes=3)
    with pytest.raises(IndexError, match="index out of range in self"):
        model(X, 1.0, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IndexError, "index out of range in self"),
        (RuntimeError, "index 3 is out of bounds"),
        (RuntimeError, "mat1 and mat2 must have the same dtype"),
        (TypeError, "list indices must be integers or slices, not float"),
        (KeyError, "name"),
        (ZeroDivisionError, "division"),
    ],
)
@pytest.mark.parametrize("classes", [0, 3])
def test_an_error_of_the_network_stays_its_own(error, words, classes):
    calls = []

    def broken(x: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        calls.append(x.zero_())  # and spoils its input
        raise error(words)

    with pytest.raises(error, match=words) as caught:
        Denoiser(broken, PATH, "noise", (4,), classes)(X, 1.0)
    assert "broken" in [entry.name for entry in caught.traceback]
    assert len(calls) == 1
