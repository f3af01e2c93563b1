"""Shards of features: a damaged one is made again, and none of other work is taken."""

import pytest
import torch

from ddim_ode.image_sets.held import HeldImages
from ddim_ode.metrics import MetricError, evaluate
from ddim_ode.metrics.evaluation.features import extractor
from ddim_ode.metrics.evaluation.shards import DamagedWarning, FeatureShards, digests
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import TINY, timeless


def test_equal_bytes_of_another_shape_are_another_image():
    a, b = digests(TINY[:1]), digests(TINY[:1].reshape(1, 1, 2, 8))
    assert a.shape == (1, 32)
    assert not torch.equal(a, b)


def test_a_shard_with_a_flipped_bit_is_made_again(tmp_path):
    found = evaluate(TINY[:40], TINY[40:], shard_size=16, out=tmp_path)
    shard = tmp_path / "samples" / "00001.safetensors"
    content = shard.read_bytes()
    for damage in (content[:-3], content[:-1] + bytes([content[-1] ^ 1])):
        shard.write_bytes(damage)
        with pytest.warns(DamagedWarning, match=r"samples/00001.safetensors is damaged.*it is made again"):
            again = evaluate(TINY[:40], TINY[40:], shard_size=16, out=tmp_path)
        assert shard.read_bytes() == content
        assert timeless(again) == timeless(found)


def test_a_shard_of_other_work_is_not_taken(tmp_path):
    extract = extractor((1, 4, 4))
    made, other = (FeatureShards(HeldImages("mine", TINY), extract, 16, job, tmp_path) for job in ("a", "b"))
    made.make(0, lambda more: None)
    assert "is of another evaluation" in one_line(MetricError, other.read, 0)
