"""The kinds of input, and an input by its name."""

import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fuzzing import api, bits, command_line, files
from benchmarks.fuzzing.inputs import Input
from benchmarks.fuzzing.material import Material

KINDS = {"command_line": command_line, "files": files, "api": api, "bits": bits}
SHARES = {"command_line": 4400, "files": 8500, "api": 6700, "bits": 400}  # of 20,000
APART = 1_000_000  # numbers of inputs between two seeds
VALID = "valid"  # in place of the number: what the inputs of a subject begin with, unchanged


def names(kind: str, count: int, seed: int, subjects: Sequence[str] | None = None) -> list[str]:
    """So many names of inputs of a kind, its subjects (default: all) in turn."""
    chosen = KINDS[kind].SUBJECTS if subjects is None else subjects
    return [f"{kind}:{chosen[i % len(chosen)]}:{seed * APART + i // len(chosen)}" for i in range(count)]


def shared_out(inputs: int, kinds: Sequence[str]) -> dict[str, int]:
    """How many of some inputs are of each kind, in proportion."""
    total = sum(SHARES[kind] for kind in kinds)
    counts = {kind: inputs * SHARES[kind] // total for kind in kinds}
    counts[kinds[0]] += inputs - sum(counts.values())
    return counts


def known(name: str) -> bool:
    """Whether it is the name of an input."""
    kind, _, rest = name.partition(":")
    subject, _, number = rest.rpartition(":")
    return kind in KINDS and subject in KINDS[kind].SUBJECTS and (number.isdecimal() or number == VALID)


def make(name: str, material: Material, scratch: Path) -> Input:
    """The input of a name; it may write below `scratch`."""
    kind, _, rest = name.partition(":")
    subject, _, number = rest.rpartition(":")
    return KINDS[kind].make(subject, name, None if number == VALID else random.Random(name), material, scratch)
