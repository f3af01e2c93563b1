"""Texts and values that nobody expects."""

import enum
import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

NUMBERS = ("nan", "inf", "-inf", "1e999", "1e-999", "-0", "0", "00", "-1", "1.5", "1e3", "0x10", "1_0", "+3")
HUGE = ("9" * 20, "-" + "9" * 20, "9" * 5000, "1" + "0" * 400, "18446744073709551616", "9223372036854775807")
LISTS = (",", ",,,", "1,,2", "1,2,", "0,0", "80,10,1,0", "1,2,3", "nan,nan", "inf,1,0", "1e308,1e-308,0", "-1,-2")
RANGES = ("0-99999999999", "0-" + "9" * 40, "5-3", "1-", "-5", "0-3,7-", "-", "0--1", ":", "1:", ":1", "nan:nan", "9:1")
WORDS = ("", " ", "all", "auto", "each", "none", "None", "true", "{}", "[1]", "%s%n", "$HOME", "*", "--", "--help")
LETTERS = ("ü", "١٢", "²", "½", "🙂", "Ⅷ", "\u202egnp", "\u2028", "\x1b[31mred\x1b[0m", "a\nb\rc", "\t", "\x7f", "'\"")
LONG = ("a" * 10_000, "ü🙂" * 3000, "a," * 5000, "a b\n" * 2000, "1," * 3000 + "1")
NOT_UTF8 = (os.fsdecode(b"\xff\xfe"), os.fsdecode(b"ddim\xe9"))

#: of a command line, which cannot hold the character 0
TEXTS = (*NUMBERS, *HUGE, *LISTS, *RANGES, *WORDS, *LETTERS, *LONG, *NOT_UTF8)


def odd_paths(folder: Path, model: Path, image: Path) -> list[str]:
    """Paths to what is no ordinary file, some of it in a new folder."""
    (folder / "folder.png").mkdir(parents=True)
    (folder / "empty").touch()
    for name in ("fifo", "fifo.png"):
        os.mkfifo(folder / name)
    for name, target in (("loop", "loop"), ("dangling", "nowhere"), ("zero.png", "/dev/zero")):
        (folder / name).symlink_to(target)
    shutil.copytree(model, folder / os.fsdecode(b"\xff model\n\x1b[31m"))
    shutil.copy(image, folder / os.fsdecode(b"\xfe\n.png"))
    inside = [str(file) for file in sorted(folder.iterdir())]
    missing = [str(folder / name) for name in ("missing", "missing/below", "empty/below", "x" * 300, "y/" * 3000)]
    return [*inside, *missing, "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", ".", "..", "~", "/"]


class Silent:
    """An object that cannot say what it is."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Word(str, enum.Enum):
    """A name in an enum, which is a str and prints as something else."""

    DDIM = "ddim"


class Sized:
    """An object with a length that is not true."""

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, item: Any) -> Any:
        raise IndexError(item)


def expanded() -> torch.Tensor:
    """A tensor that looks like 4 TiB and takes 4 bytes."""
    return torch.zeros(1).expand(2**40)


#: values by a name for people; each is made when it is used
VALUES: dict[str, Callable[[], Any]] = {
    **{repr(value): (lambda value=value: value) for value in (None, True, False, 0, 1, -1, 2, 7, -0.0, 1.5, 1e-300)},
    **{repr(value): (lambda value=value: value) for value in (float("nan"), float("inf"), -float("inf"), 1e308)},
    **{repr(value): (lambda value=value: value) for value in (2**31, 2**40, 2**63, -(2**63), 2**64, 1j, b"ddim", ...)},
    **{repr(value): (lambda value=value: value) for value in ("", "ddim", "DDIM", "nan", "5", "a\nb", "\ud800", "\0")},
    **{repr(value): (lambda value=value: value) for value in ((), [], {}, [0], (1, 2), [None], ["a"], {"a": 1}, [[1]])},
    **{repr(value): (lambda value=value: value) for value in ((1, 8, 8), [80.0, 1.0, 0.0], [float("nan")] * 2)},
    "10**400": lambda: 10**400,
    "5000 letters": lambda: "a" * 5000,
    "set()": set,
    "{1, 2}": lambda: {1, 2},
    "range(10**12)": lambda: range(10**12),
    "range(0)": lambda: range(0),
    "iter([0, 1])": lambda: iter([0, 1]),
    "(i for i in (0, 1))": lambda: (i for i in (0, 1)),
    "lambda: None": lambda: lambda: None,
    "lambda *a, **k: 'text'": lambda: lambda *a, **k: "text",
    "the class int": lambda: int,
    "the module torch": lambda: torch,
    "object()": object,
    "Silent()": Silent,
    "Sized()": Sized,
    "SimpleNamespace()": SimpleNamespace,
    "Word.DDIM": lambda: Word.DDIM,
    "Decimal('NaN')": lambda: Decimal("NaN"),
    "Decimal('sNaN')": lambda: Decimal("sNaN"),
    "Fraction(1, 3)": lambda: Fraction(1, 3),
    "Path('missing')": lambda: Path("missing"),
    "Path of 300 letters": lambda: Path("x" * 300),
    "Path with 0": lambda: Path("a\0b"),
    "np.float64(nan)": lambda: np.float64("nan"),
    "np.int8(-1)": lambda: np.int8(-1),
    "np.array([])": lambda: np.array([]),
    "np.array of objects": lambda: np.array([None, "a"], dtype=object),
    "np.array of texts": lambda: np.array(["a", "b"]),
    "np.zeros((2, 1, 4, 4))": lambda: np.zeros((2, 1, 4, 4)),
    "np.datetime64": lambda: np.datetime64("2026-01-01"),
    "torch.tensor(nan)": lambda: torch.tensor(float("nan")),
    "torch.tensor(3)": lambda: torch.tensor(3),
    "torch.tensor([])": lambda: torch.tensor([]),
    "torch.zeros(2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4),
    "torch.zeros(0, 1, 4, 4)": lambda: torch.zeros(0, 1, 4, 4),
    "torch.zeros(2, 3, 5)": lambda: torch.zeros(2, 3, 5),
    "nan (2, 1, 4, 4)": lambda: torch.full((2, 1, 4, 4), float("nan")),
    "1e38 (2, 1, 4, 4)": lambda: torch.full((2, 1, 4, 4), 1e38),
    "int64 (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, dtype=torch.int64),
    "bool (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, dtype=torch.bool),
    "half (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, dtype=torch.float16),
    "complex (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, dtype=torch.complex64),
    "uint8 (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
    "meta (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, device="meta"),
    "sparse (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4).to_sparse(),
    "requires_grad (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4, requires_grad=True),
    "float8 (2, 1, 4, 4)": lambda: torch.zeros(2, 1, 4, 4).to(torch.float8_e4m3fn),
    "quantised (2, 1, 4, 4)": lambda: torch.quantize_per_tensor(torch.zeros(2, 1, 4, 4), 0.1, 0, torch.quint8),
    "expanded (2**40,)": expanded,
    "torch.float16": lambda: torch.float16,
    "torch.int64": lambda: torch.int64,
    "torch.complex64": lambda: torch.complex64,
    "torch.device('meta')": lambda: torch.device("meta"),
    "'cuda:99'": lambda: "cuda:99",
    "torch.Size([1, 4, 4])": lambda: torch.Size([1, 4, 4]),
}
