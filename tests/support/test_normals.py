"""Normals by counter: SplitMix64's integers wherever they are drawn, and what Box and Muller make of them."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ddim_ode.support.normals import Normals, box_muller, hashed, signed
from tests.helpers.pretending import GPU, pretended

CPU = torch.device("cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")
SEEDS = [
    0,
    1,
    2**64 - 1,
    2**63,
    -1,
    -(2**63),
    2**64 + 5,
    *(int(n) for n in np.random.default_rng(0).integers(2**63, size=5)),
]
STREAMS = [("root", 0, 0), ("half", 3, 5), ("bridge", 2**17, 2**26 - 1)]
COUNTS = [1, 3, 17, 784]


def splitmix(z: int) -> int:
    """Steele, Lea & Flood 2014, Fig. 17, in Python's integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def number(seed: int, stream: tuple[int | str, ...], j: int) -> int:
    gamma = 0x9E3779B97F4A7C15
    word = int.from_bytes(hashlib.sha256(repr(stream).encode()).digest()[:8], "little")
    key = splitmix((splitmix(seed * gamma % 2**64) + word) % 2**64)
    return splitmix((key + j * gamma) % 2**64)


class ByTorch(Normals):
    """As on a device that is none of numpy's, which here is the CPU."""

    def _there(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)


def by(kind: type[Normals], count: int, device: torch.device = CPU) -> Normals:
    return kind(SEEDS, count, device)


def test_the_integers_are_those_of_the_paper():
    found = by(Normals, 3).bits(by(Normals, 3).keys(STREAMS))
    expected = [[[number(seed, stream, j) for j in (1, 2, 3)] for seed in SEEDS] for stream in STREAMS]
    assert found.view(np.uint64).tolist() == expected


def test_splitmix_of_a_seed_is_the_published_sequence():
    """The first numbers of the reference implementation (Vigna, splitmix64.c) from state 1234567."""
    states = np.array([signed(1234567 + k * 0x9E3779B97F4A7C15) for k in range(1, 4)], dtype=np.int64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert hashed(states).view(np.uint64).tolist() == expected


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=CUDA)], ids=str)
def test_torch_draws_the_integers_of_numpy(device, count):
    ours, theirs = by(Normals, count), by(ByTorch, count, device)
    bits, same = ours.bits(ours.keys(STREAMS)), theirs.bits(theirs.keys(STREAMS))
    assert isinstance(bits, np.ndarray)
    assert isinstance(same, Tensor)
    assert same.device.type == device.type
    assert np.array_equal(bits, same.cpu().numpy())
    for x, y in zip(ours.pairs(ours.keys(STREAMS)), theirs.pairs(theirs.keys(STREAMS)), strict=True):
        assert x.dtype == y.dtype == torch.float32
        torch.testing.assert_close(x, y.cpu(), rtol=2e-6, atol=2e-6)  # log, cos and sin have last places of their own


def test_they_are_drawn_on_the_device_without_waiting():
    with pretended() as mode:
        there = by(Normals, 17, GPU)
        x, y = there.pairs(there.keys(STREAMS))
        assert x.device == y.device == GPU
        assert mode.waits == []
        theirs = by(ByTorch, 17)
        for a, b in zip((x, y), theirs.pairs(theirs.keys(STREAMS)), strict=True):
            assert torch.equal(a.to("cpu"), b)


@pytest.mark.parametrize("kind", [Normals, ByTorch])
def test_any_part_of_them_is_the_same(kind):
    normals = by(kind, 50)
    keys = normals.keys(STREAMS)
    whole = normals.pairs(keys)
    part = normals.pairs(keys[1:, 2:5], slice(10, 30))
    for x, y in zip(whole, part, strict=True):
        assert torch.equal(x[1:, 2:5, 10:30], y)


@pytest.mark.parametrize("lib", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_box_muller_of_known_halves(lib):
    """Radius of the upper half, turn of the lower; in float64 by hand."""
    halves = [(2**32 - 2**20, 0), (0, 0), (2**31, 2**30), (2**31, 2**31), (12345, 3 * 2**30), (2**20, 987654321)]
    x, y = box_muller(lib([signed(high * 2**32 + low) for high, low in halves]))
    for k, (high, low) in enumerate(halves):
        radius, turn = math.sqrt(-2 * math.log(min(1, (high + 0.5) / 2**32))), 2 * math.pi * low / 2**32
        assert float(x[k]) == pytest.approx(radius * math.cos(turn), abs=3e-6)
        assert float(y[k]) == pytest.approx(radius * math.sin(turn), abs=3e-6)


def test_they_are_standard_normal_and_independent():
    normals = Normals(range(200), 500, CPU)
    x, y = (z.double() for z in normals.pairs(normals.keys([("a",), ("b",)])))
    every = torch.stack([x[0], x[1], y[0], y[1]]).reshape(4, -1)
    off = 4 / math.sqrt(every.shape[1])  # four standard errors, on fixed seeds
    assert every.mean(1).abs().max() < off
    assert (torch.cov(every) - torch.eye(4)).abs().max() < 1.5 * off
    assert (every**4).mean(1).sub(3).abs().max() < 10 * off
    assert every.abs().max() > 4


@pytest.mark.parametrize(("word", "same"), [(0, 0), (2**63, -(2**63)), (2**64 - 1, -1), (-1, -1), (2**64 + 7, 7)])
def test_signed_has_the_same_bits(word, same):
    assert signed(word) == same
    assert (signed(word) - word) % 2**64 == 0
