"""The random numbers of a likelihood, by their number in the whole set."""

import pytest
import torch

from ddim_ode.ode.probes import PROBES, centred, dequantized, draw_probes

BYTES = torch.arange(4 * 3, dtype=torch.uint8).reshape(4, 3) * 20
LIKE = torch.zeros(4, 3)


@pytest.mark.parametrize("probe", PROBES)
def test_those_of_a_part_are_those_of_the_whole(probe):
    whole = draw_probes(probe, LIKE, range(4), seed=5, count=2)
    assert whole.shape == (2, 4, 3)
    assert torch.equal(draw_probes(probe, LIKE[2:], range(2, 4), seed=5, count=2), whole[:, 2:])
    assert torch.equal(dequantized(BYTES[1:3], range(1, 3), seed=5), dequantized(BYTES, range(4), seed=5)[1:3])


def test_every_probe_is_another():
    drawn = draw_probes("gaussian", LIKE, range(4), seed=5, count=2).reshape(8, 3)
    assert len({tuple(row) for row in drawn.tolist()}) == 8
    assert not torch.isclose(drawn, draw_probes("gaussian", LIKE, range(4), seed=6, count=2).reshape(8, 3)).any()


def test_a_byte_stays_within_its_width():
    off = dequantized(BYTES, range(4), seed=0) - centred(BYTES)
    assert float(off.abs().max()) <= 0.5 / 127.5
    assert float(off.abs().max()) > 0.3 / 127.5
    assert torch.equal(centred(torch.tensor([[0, 255]], dtype=torch.uint8)), torch.tensor([[-1.0, 1.0]]).double())
