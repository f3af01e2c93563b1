"""What a run begins with: whole numbers, seeds, data and labels as they come, and those that cannot be."""

import itertools
import math

import numpy as np
import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import (
    SampleError,
    check_callback,
    check_data,
    check_labels,
    check_model,
    check_reach,
    check_seeds,
    check_size,
    check_start,
    seeded_noise,
)
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line
from tests.helpers.networks import Recording

MODEL = Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (2, 3), 3)
PLAIN = Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (2, 3))


SEEDS = {
    "list": [4, 0, 2**32 - 1],
    "numpy": np.array([4, 0, 2**32 - 1]),
    "tensor": torch.tensor([4, 0, 2**32 - 1]),
    "once": (seed for seed in (4, 0, 2**32 - 1)),
}


@pytest.mark.parametrize("kind", SEEDS)
def test_seeds_of_any_kind_are_ints(kind):
    found = check_seeds(SEEDS[kind])
    assert found == (4, 0, 2**32 - 1)
    assert {type(seed) for seed in found} == {int}


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (3, "seeds=3 is not a sequence; give one int a sample, such as range(64) or [3]"),
        ([], "seeds is empty; give at least one"),
        ("12", "seeds is the str '12'; give one int a sample in their order, such as range(64)"),
        ([0, -1], "seed -1 is not a whole number in 0..2^32-1"),
        ([2**32], f"seed {2**32} is not a whole number in 0..2^32-1"),
        ([True], "seed True is not a whole number in 0..2^32-1"),
    ],
)
def test_seeds_that_cannot_be_are_refused(seeds, message):
    assert one_line(SampleError, check_seeds, seeds) == message


@pytest.mark.parametrize(
    "seeds",
    [
        "12",
        b"12",
        {1, 2},
        {1: 2},
        frozenset([3]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([True, False]),
        torch.tensor(3),
        torch.arange(4).reshape(2, 2),
        torch.zeros(3, dtype=torch.int64, device="meta"),
        torch.zeros(1, dtype=torch.int64).expand(10**12),
        np.array([0.5]),
        np.array(3),
        np.array([1, -1]),
        np.array(["a"]),
        np.array([None]),
        [[1], [2]],
        [0.5],
        [None],
        itertools.count(),
        itertools.repeat(7),
        range(10**12),
        range(10**400),
        range(0, -5, -1),
        object(),
        None,
        2.5,
    ],
    ids=lambda seeds: f"{type(seeds).__name__}",
)
def test_what_are_no_seeds_is_refused_at_once(seeds):
    assert "seed" in one_line(SampleError, check_seeds, seeds)


def test_as_many_seeds_as_memory_has_room_for(monkeypatch):
    monkeypatch.setenv("DDIM_ODE_MEMORY", "1M")
    assert check_seeds(range(20000)) == tuple(range(20000))
    assert "a list of 40,000 seeds would take 1.6 MB" in one_line(SampleError, check_seeds, range(40000))
    assert "a list of 40,000 seeds would take 1.6 MB" in one_line(SampleError, check_seeds, torch.arange(40000))


def test_many_seeds_are_what_they_are_one_by_one():
    many = [7 * n for n in range(3000)]
    for kind in (list, tuple, iter, np.array, torch.tensor, lambda s: range(0, 21000, 7), lambda s: map(np.int64, s)):
        assert check_seeds(kind(many)) == tuple(many)


@pytest.mark.parametrize("model", ["fashion", None, 3, Denoiser, {}, Recording(), torch.nn.Linear(2, 2), paths.noise])
def test_what_is_no_model_is_named(model):
    assert one_line(ArgumentError, check_model, model).startswith("model is ")
    assert "give a Denoiser, such as load('fashion')" in one_line(
        ArgumentError, check_data, model, torch.zeros(1, 2, 3)
    )


@pytest.mark.parametrize("callback", [3, "x", [], True, object(), int])
def test_what_cannot_be_called_is_no_callback(callback):
    assert one_line(ArgumentError, check_callback, callback).startswith("callback is ")


FINE = torch.zeros(2, 2, 3)
STATES = {
    "bytes": (FINE.byte(), "noise is torch.uint8; give floats"),
    "ints": (FINE.long(), "noise is torch.int64; give floats"),
    "bools": (FINE.bool(), "noise is torch.bool; give floats"),
    "complex": (FINE + 0j, "noise is torch.complex64; give floats"),
    "sparse": (FINE.to_sparse(), "noise is of torch.sparse_coo; give a dense tensor (B, 2, 3)"),
    "meta": (FINE.to("meta"), "noise is on the meta device; give a dense tensor (B, 2, 3)"),
    "none": (FINE[:0], "noise has shape (0, 2, 3); this model needs a tensor (B, 2, 3)"),
    "one": (FINE[0], "noise has shape (2, 3); this model needs a tensor (B, 2, 3)"),
    "number": (torch.tensor(0.0), "noise has shape (); this model needs a tensor (B, 2, 3)"),
    "array": (FINE.numpy(), "noise has type ndarray; this model needs a tensor (B, 2, 3)"),
    "list": (FINE.tolist(), "noise has type list; this model needs a tensor (B, 2, 3)"),
    "nan": (torch.tensor([0.0, math.nan])[:, None, None].expand(2, 2, 3), "noise[1] holds NaN or infinity"),
    "endless": (FINE[:1].expand(10**12, 2, 3), "noise of shape (1000000000000, 2, 3) would take 12,000 GB"),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_cannot_be_is_refused(kind):
    x, line = STATES[kind]
    assert line in one_line(SampleError, check_start, "noise", x, (2, 3))


def test_a_run_of_more_samples_than_there_is_room_for_is_refused(monkeypatch):
    monkeypatch.setenv("DDIM_ODE_MEMORY", "48k")
    check_size(MODEL, 1000, torch.float32, None)  # 2 * 6 * 4 bytes each
    assert "x of 1,001 samples of shape (2, 3)" in one_line(SampleError, check_size, MODEL, 1001, torch.float32, None)
    check_size(MODEL, 2000, torch.float32, 2000)  # in one batch there is nothing to join


def test_noise_is_drawn_row_by_row_on_the_cpu_in_float32():
    found = seeded_noise([5, 1, 5], (2, 3))
    assert (found.shape, found.dtype, found.device.type) == ((3, 2, 3), torch.float32, "cpu")
    for row, seed in zip(found, [5, 1, 5], strict=True):
        assert torch.equal(row, torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)))


def test_data_are_returned_as_they_are():
    for x in (
        torch.zeros(2, 2, 3, dtype=torch.uint8),
        torch.ones(1, 2, 3),
        torch.full((1, 2, 3), -10.0, dtype=torch.float64),
        torch.zeros(1, 2, 3, dtype=torch.float16),
    ):
        assert check_data(MODEL, x) is x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 2, 3)), "x has type ndarray; this model needs a tensor (B, 2, 3)"),
        (torch.zeros(2, 3), "x has shape (2, 3); this model needs a tensor (B, 2, 3)"),
        (torch.zeros(1, 3, 2), "x has shape (1, 3, 2); this model needs a tensor (B, 2, 3)"),
        (torch.zeros(0, 2, 3), "x has shape (0, 2, 3); this model needs a tensor (B, 2, 3)"),
        (torch.tensor(1.0), "x has shape (); this model needs a tensor (B, 2, 3)"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), "x is torch.int64; give floats in [-1, 1], or bytes as torch.uint8"),
        (torch.zeros(1, 2, 3, dtype=torch.bool), "x is torch.bool; give floats in [-1, 1], or bytes as torch.uint8"),
        (torch.tensor([0.0, math.nan])[:, None, None].expand(2, 2, 3), "x[1] holds NaN or infinity"),
        (torch.tensor([-math.inf, math.nan])[:, None, None].expand(2, 2, 3), "x[0] holds NaN or infinity"),
    ],
)
def test_data_that_cannot_be_are_refused(x, message):
    assert one_line(SampleError, check_data, MODEL, x) == message


PICTURES = Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (3, 2, 2))
#: models whose data need not lie in [-1, 1]
OTHERS = [
    PLAIN,
    Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (2,)),
    Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (4, 2, 2)),
    Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (3, 2, 2), latent=True),
]


def test_only_pictures_lie_within_a_range():
    x = torch.full((1, 3, 2, 2), -255.0)
    text = one_line(SampleError, check_data, PICTURES, x)
    assert text == "x reaches 255, and data lie in [-1, 1]; give bytes as torch.uint8"
    assert "start reaches 255, and images plus noise at sigma=2 stay below 110" in one_line(
        SampleError, check_reach, PICTURES, "start", x, 2.0
    )
    assert "noise reaches 255" in one_line(SampleError, check_reach, PICTURES, "noise", x, 2.0)
    for model in OTHERS:
        x = torch.full((1, *model.shape), -255.0)
        assert check_data(model, x) is x
        check_reach(model, "start", x, 0.1)
        check_reach(model, "noise", x, 0.1)


LABELS = {
    "list": [0, 2, 1],
    "tuple": (0, 2, 1),
    "numpy": np.array([0, 2, 1]),
    "numpy int8": np.array([0, 2, 1], dtype=np.int8),
    "tensor": torch.tensor([0, 2, 1]),
    "tensor int32": torch.tensor([0, 2, 1], dtype=torch.int32),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_are_int64(kind):
    found = check_labels(MODEL, LABELS[kind], 3)
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 2, 1]


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2), np.array(2)])
def test_one_label_is_for_all(label):
    found = check_labels(MODEL, label, 4)
    assert found.dtype == torch.int64
    assert found.tolist() == [2] * 4


def test_no_labels_are_none_whether_or_not_there_are_classes():
    assert check_labels(MODEL, None, 3) is None
    assert check_labels(PLAIN, None, 3) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (3, "label 3 does not exist; this model has labels 0..2"),
        ([0, -1, 9], "label -1 does not exist; this model has labels 0..2"),
        ([0, 1], "labels have shape (2,); give one label, or one a sample (3)"),
        ([[0, 1, 2]], "labels have shape (1, 3); give one label, or one a sample (3)"),
        ([0.0, 1.0, 2.0], "labels are torch.float32; they must be whole numbers in 0..2"),
        (True, "labels are torch.bool; they must be whole numbers in 0..2"),
        ("cat", "labels are not whole numbers in 0..2"),
        ([[0], [1, 2]], "labels are not whole numbers in 0..2"),
        (b"abc", "labels are not whole numbers in 0..2"),
        ({0: 1}, "labels are not whole numbers in 0..2"),
        (10**30, "labels are not whole numbers in 0..2"),
        (1j, "labels are torch.complex64; they must be whole numbers in 0..2"),
        (range(10**12), "labels=range(0, 1000000000000) are too many; give one label, or one a sample (3)"),
        (
            torch.zeros(3, dtype=torch.int64, device="meta"),
            "that cannot be read; give whole numbers in 0..2 in a dense",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    assert message in one_line(SampleError, check_labels, MODEL, labels, 3)


def test_labels_of_a_model_without_classes_are_refused():
    assert one_line(SampleError, check_labels, PLAIN, 0, 3) == "this model has no classes; leave labels out"
