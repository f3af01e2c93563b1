"""Blocks are whole batches."""

from ddim_ode.shards.blocks import block_size, blocks


def test_a_block_of_large_samples_is_a_batch():
    assert list(blocks(300, block_size(128, 4 * 3 * 256 * 256))) == [slice(0, 128), slice(128, 256), slice(256, 300)]


def test_a_block_of_small_ones_is_as_many_batches_as_fit():
    assert block_size(100, 4 * 28 * 28) == 1000
    assert block_size(2000, 4) == 2000
