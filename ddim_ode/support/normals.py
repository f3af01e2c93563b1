"""Standard normals by counter: number j of a stream is a function of its seed, its words and j, without a state.

torch's generators take longer to seed than to draw, and one for each sample and node of a tree adds up. Here the bits
are SplitMix64's hash of (key of the stream) + j gamma (Steele, Lea & Flood 2014, Fig. 17), and their halves are taken
to a pair of normals by Box and Muller's transform (1958). The bits are the same on every device: integers of 64 bits
that wrap around. What is made of them is the same up to the last places of a device's own log, cos and sin.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ddim_ode.support.seeds import digest
from ddim_ode.support.waiting import sent

Bits = TypeVar("Bits", np.ndarray, Tensor)  # int64: torch has no arithmetic of unsigned numbers
Stream = tuple[int | str, ...]  # the words that it is told apart by


def signed(word: int) -> int:
    """The number in [-2^63, 2^63) that has the same 64 bits."""
    return (int(word) + 2**63) % 2**64 - 2**63


GAMMA = signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
MIXING = (30, signed(0xBF58476D1CE4E5B9)), (27, signed(0x94D049BB133111EB))  # shifts, and what is multiplied by then
LAST = 31  # shift


class Normals:
    """Streams of pairs of normals, each of a seed and of words.

    Args:
        seeds: one int a row, of which the lowest 64 bits count.
        count: of pairs in a row.
        device: where they are drawn: by numpy, which is the faster there, on the CPU.
    """

    def __init__(self, seeds: Sequence[int], count: int, device: torch.device):
        self.device = device
        self._seeds = hashed(GAMMA * np.array([signed(seed) for seed in seeds], dtype=np.int64))
        self._steps = self._there(GAMMA * np.arange(1, count + 1, dtype=np.int64))

    def keys(self, streams: Sequence[Stream]) -> Any:
        """Of every stream and row, (len(streams), B), as `pairs` takes them."""
        words = [int.from_bytes(digest(stream)[:8], "little", signed=True) for stream in streams]
        return self._there(hashed(self._seeds + np.array(words, dtype=np.int64)[:, None]))

    def bits(self, keys: Any, columns: slice = slice(None)) -> Any:
        """What the pairs of some columns are made of, (*keys.shape, columns) int64, of numpy or on the device."""
        return hashed(keys[..., None] + self._steps[columns])

    def pairs(self, keys: Any, columns: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Two standard normals each, (*keys.shape, columns) float32 on the device."""
        x, y = box_muller(self.bits(keys, columns))
        return torch.as_tensor(x), torch.as_tensor(y)

    def _there(self, numbers: np.ndarray) -> Any:
        if self.device.type == "cpu":
            return numbers
        return sent(torch.from_numpy(numbers), self.device)


def hashed(z: Bits) -> Bits:
    """SplitMix64's mixing of each number, in place: z is the caller's to lose."""
    for shift, factor in MIXING:
        z ^= _shifted(z, shift)
        z *= factor
    z ^= _shifted(z, LAST)
    return z


def box_muller(bits: Bits) -> tuple[Bits, Bits]:
    """Two independent standard normals, float32, of the upper and the lower halves of random bits."""
    lib: Any = np if isinstance(bits, np.ndarray) else torch
    radius, turn = _lower(_shifted(bits, 32)), _lower(bits)
    radius += 0.5
    radius *= 2**-32
    lib.log(radius, out=radius)
    radius *= -2
    lib.sqrt(radius, out=radius)
    turn *= 2 * math.pi * 2**-32
    x, y = lib.cos(turn), lib.sin(turn, out=turn)
    x *= radius
    y *= radius
    return x, y


def _shifted(z: Bits, by: int) -> Bits:
    """Down by so many bits, with zeros from above."""
    if isinstance(z, np.ndarray):
        return (z.view(np.uint64) >> np.uint64(by)).view(np.int64)
    return (z >> by).bitwise_and_(2 ** (64 - by) - 1)


def _lower(z: Bits) -> Bits:
    """The lower halves, as numbers in [0, 2^32), rounded to float32."""
    if isinstance(z, np.ndarray):
        return z.astype(np.uint32).astype(np.float32)
    return z.bitwise_and(2**32 - 1).to(torch.float32)
