"""Seeds made of seeds, so that independent streams of numbers can be had from one."""

import hashlib
import math

import numpy as np
import torch

GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio


def mix(*words: int | str) -> int:
    """A seed that depends on every word: torch reads its low 32 bits alone."""
    return int.from_bytes(_digest(words)[:4], "little")


def generator(seed: int) -> torch.Generator:
    """torch's generator on the CPU. Of a seed that has more than 64 bits the lowest count."""
    return torch.Generator().manual_seed(seed % 2**64)


def normal_pairs(seeds: np.ndarray, count: int, *words: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Two standard normals (len(seeds), count), float32: row i is a function of seeds[i] (uint64) and the words alone.

    Number j of a row is SplitMix64's hash of (key of the row) + j gamma (Steele, Lea & Flood 2014, Fig. 17), whose
    halves Box and Muller's transform (1958) takes to a pair. No state: torch's generator takes longer to seed than to
    draw, and one for each row adds up.
    """
    keys = _hash(_hash(seeds * GAMMA) + np.uint64(int.from_bytes(_digest(words)[:8], "little")))
    bits = _hash(keys[:, None] + GAMMA * np.arange(1, count + 1, dtype=np.uint64))
    radius = (bits >> np.uint64(32)).astype(np.float32)
    radius += np.float32(0.5)
    radius *= np.float32(2**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    turn = bits.astype(np.uint32).astype(np.float32)
    turn *= np.float32(2 * math.pi * 2**-32)
    x, y = np.cos(turn), np.sin(turn, out=turn)
    x *= radius
    y *= radius
    return x, y


def _hash(z: np.ndarray) -> np.ndarray:
    """SplitMix64's mixing of each number, in place: z is the caller's to lose."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _digest(words: tuple[int | str, ...]) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()
