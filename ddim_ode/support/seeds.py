"""Seeds made of seeds, so that independent streams of numbers can be had from one."""

import hashlib

import torch


def mix(*words: int | str) -> int:
    """A seed that depends on every word: torch reads its low 32 bits alone."""
    return int.from_bytes(digest(words)[:4], "little")


def generator(seed: int) -> torch.Generator:
    """torch's generator on the CPU. Of a seed that has more than 64 bits the lowest count."""
    return torch.Generator().manual_seed(seed % 2**64)


def digest(words: tuple[int | str, ...]) -> bytes:
    """32 bytes that depend on every word."""
    return hashlib.sha256(repr(words).encode()).digest()
