"""What the card itself can do: products of matrices, copies, and how long it takes to be asked for anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError, Values
from benchmarks.gpu_sections.clocks import in_turns

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """The dtype of a precision, and products and convolutions of float32 in TF32 if it is that, otherwise in full."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = name == "tf32"
        yield PRECISIONS[name]
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@lru_cache(maxsize=8)
def matmul(setting: Setting, name: str, size: int) -> float:
    """FLOP/s of a product of two size x size matrices."""
    with precision(name) as dtype:
        generator = torch.Generator(setting.device).manual_seed(0)
        a, b = torch.randn(2, size, size, generator=generator, device=setting.device).to(dtype)
        seconds = in_turns(setting, {"product": lambda: a @ b}, 1.0, processor=not setting.cuda)["product"]
    return 2.0 * size**3 / seconds


@lru_cache(maxsize=2)
def bandwidth(setting: Setting, numbers: int) -> float:
    """Bytes/s, read and written, of a copy of so many float32."""
    source = torch.ones(numbers, device=setting.device)
    target = torch.empty_like(source)
    seconds = in_turns(setting, {"copy": lambda: target.copy_(source)}, 1.0, processor=not setting.cuda)["copy"]
    return 8.0 * numbers / seconds


def copied(setting: Setting) -> float:
    """Bytes/s of a copy far larger than the caches."""
    return bandwidth(setting, setting.pick(2**29 if setting.cuda else 2**26, 2**20))


def kernels(setting: Setting) -> Values:
    """A thousand kernels that do nothing much, one after another: what asking costs."""
    x, count = torch.zeros(16, device=setting.device), setting.pick(1000, 100)

    def work() -> None:
        for _ in range(count):
            x.add_(1)

    return {"us a kernel": 1e6 * in_turns(setting, {"work": work}, most=1.0)["work"] / count}


def answers(setting: Setting) -> Values:
    """What it costs to be told a number: the device is waited for."""
    x, count = torch.zeros(16, device=setting.device), setting.pick(300, 30)

    def work() -> None:
        for _ in range(count):
            x.add_(1).sum().item()

    return {"us an answer": 1e6 * in_turns(setting, {"work": work}, most=1.0)["work"] / count}


def product(setting: Setting, name: str) -> Callable[[], Values]:
    def measure() -> Values:
        if name == "tf32" and not setting.cuda:
            raise SkippedError("TF32 needs CUDA")
        size = setting.pick(8192 if setting.cuda else 2048, 128)
        return {"TFLOP/s": matmul(setting, name, size) / 1e12}

    return measure


def cases(setting: Setting) -> Iterator[Case]:
    for name in PRECISIONS:
        yield Case({"what": f"product of matrices, {name}"}, product(setting, name))
    yield Case({"what": "copy"}, lambda: {"GB/s": copied(setting) / 1e9})
    yield Case({"what": "small kernel"}, lambda: kernels(setting))
    yield Case({"what": "number asked for"}, lambda: answers(setting))


SECTION = Section(
    "card",
    "What the card does at best: square products of matrices, a copy (bytes read and written), a kernel of 16 numbers"
    " in a row of them, and one whose result Python asks for.",
    12,
    cases,
)
