"""What is asked of a whole set, and how a record holds it."""

import numpy as np
import pytest
import torch

from ddim_ode.errors import DDIMError
from ddim_ode.inversion import encode
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards.arguments import defaults_of, filled, labels_of, plain, shard_size, total_of
from ddim_ode.solvers import METHODS
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line
from tests.helpers.networks import random_network

IMAGES = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(("batch", "size"), [(None, 128), (128, 128), (32, 32), (20, 40), (1, 32), (500, 500)])
def test_a_shard_is_whole_batches(batch, size):
    assert shard_size(batch) == size


def test_how_many():
    assert (total_of(IMAGES, None), total_of(IMAGES, 3), total_of(IMAGES, 5)) == (5, 3, 5)
    assert one_line(SampleError, total_of, IMAGES, 6) == "n=6 is too many: there are 5 images; use -n 5 or fewer"
    assert "n=0 must be a whole number >= 1" in one_line(SampleError, total_of, IMAGES, 0)
    assert "there are no images" in one_line(SampleError, total_of, IMAGES[:0], None)
    assert "images are a list of 1; give a tensor" in one_line(ArgumentError, total_of, ["a.png"], None)


def test_labels_are_of_all_images_or_of_those_that_are_measured():
    model, each = random_network(), [0, 1, 2, 0, 1]
    assert labels_of(model, None, IMAGES, 3) is None
    assert labels_of(model, 2, IMAGES, 3).tolist() == [2, 2, 2]
    assert labels_of(model, torch.tensor(2), IMAGES, 3).tolist() == [2, 2, 2]
    assert labels_of(model, each, IMAGES, 3).tolist() == [0, 1, 2]
    assert labels_of(model, each[:3], IMAGES, 3).tolist() == [0, 1, 2]
    assert "labels have shape (4,)" in one_line(SampleError, labels_of, model, each[:4], IMAGES, 3)


def test_options_as_json_has_them():
    found = plain({"dtype": torch.float64, "grid": np.array([2.0, 1.0]), "tol": np.float64(0.5), "nfe": None})
    assert found == {"dtype": "float64", "grid": [2.0, 1.0], "tol": 0.5, "nfe": None}
    assert plain({"grid": (3.0, 1.0), "tol": float("nan")}) == {"grid": [3.0, 1.0], "tol": "nan"}
    line = one_line(ArgumentError, plain, {"method": METHODS["ddim"]})
    assert line == "method is a Method, which a record cannot tell from another; give its name"


def test_an_option_that_is_left_out_is_its_default():
    defaults = defaults_of(encode, "method")
    assert filled({"nfe": 4}, defaults)["nfe"] == 4
    assert filled({}, defaults)["guidance"] == 1.0
    for strange in ("conditions", "labels", "method", "steps"):
        assert f"unknown option '{strange}'" in one_line(DDIMError, filled, {strange: 1}, defaults)
