"""Classes in the proportions of data: exact counts, by hand."""

from collections import Counter

import pytest

from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards.proportions import in_proportion


@pytest.mark.parametrize(
    ("labels", "total", "counts"),
    [
        ([0] * 6 + [1] * 3 + [2], 100, {0: 60, 1: 30, 2: 10}),
        ([0, 1, 2], 10, {0: 4, 1: 3, 2: 3}),  # equal remainders: the lower class
        ([5] * 7 + [3] * 2, 4, {3: 1, 5: 3}),  # quotas 8/9 and 28/9
        ([4], 3, {4: 3}),
        ([0] * 99 + [1], 2, {0: 2}),
    ],
)
def test_counts_are_those_of_largest_remainders(labels, total, counts):
    assert Counter(in_proportion(labels, total)) == counts


def test_the_order_is_shuffled_and_always_the_same():
    found = in_proportion([0, 1], 100)
    assert found == in_proportion([1, 0], 100)
    assert found != sorted(found)
    assert Counter(found[:50]).keys() == {0, 1}


def test_no_labels_are_refused():
    with pytest.raises(SampleError, match="labels are empty"):
        in_proportion([], 3)
    with pytest.raises(SampleError, match="total=0 must be a whole number >= 1"):
        in_proportion([1], 0)
