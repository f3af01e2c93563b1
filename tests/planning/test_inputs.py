"""What a run begins with: whole numbers, seeds, data and labels as they come, and those that cannot be."""

import math

import numpy as np
import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import SampleError, check_data, check_labels, check_seeds, seeded_noise, whole
from tests.helpers.assertions import one_line
from tests.helpers.networks import Recording

MODEL = Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (2, 3), 3)
PLAIN = Denoiser(Recording(), paths.Flow(0.02, 60.0), "noise", (2, 3))


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), torch.tensor(7), torch.tensor(7, dtype=torch.int16)])
def test_a_whole_number_of_any_kind_is_an_int(value):
    found = whole("frames", value)
    assert (type(found), found) == (int, 7)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, True, "7", None, math.nan, np.float64(7), torch.tensor([1, 2])])
def test_what_is_no_whole_number_is_named(value):
    assert one_line(SampleError, whole, "frames", value) == f"frames={value!r} must be a whole number >= 1"


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
        ("12", "seed '1' is not a whole number in 0..2^32-1"),
        ([0, -1], "seed -1 is not a whole number in 0..2^32-1"),
        ([2**32], f"seed {2**32} is not a whole number in 0..2^32-1"),
        ([True], "seed True is not a whole number in 0..2^32-1"),
    ],
)
def test_seeds_that_cannot_be_are_refused(seeds, message):
    assert one_line(SampleError, check_seeds, seeds) == message


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
        (torch.full((1, 2, 3), -255.0), "x reaches 255, and data lie in [-1, 1]; give bytes as torch.uint8"),
    ],
)
def test_data_that_cannot_be_are_refused(x, message):
    assert one_line(SampleError, check_data, MODEL, x) == message


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
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    assert one_line(SampleError, check_labels, MODEL, labels, 3) == message


def test_labels_of_a_model_without_classes_are_refused():
    assert one_line(SampleError, check_labels, PLAIN, 0, 3) == "this model has no classes; leave labels out"
