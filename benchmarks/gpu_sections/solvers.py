"""What a solver costs where the network costs nothing: kernels, bytes, and how often the device is waited for."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, Values
from benchmarks.gpu_sections.card import copied
from benchmarks.gpu_sections.clocks import in_turns
from benchmarks.gpu_sections.models import noise_for, null

SHAPES = {"latent, 4 x 128 x 128": (4, 128, 128), "tokens, 4096 x 64": (4096, 64)}
SMALL = {"latent, 4 x 16 x 16": (4, 16, 16), "tokens, 64 x 16": (64, 16)}
METHODS = ("ddim", "dpmpp_2m", "adams4", "adaptive", "unipc_3", "heun")
NFE = 20


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the states that operations read and write, and counts the operations that do."""

    def __init__(self, least: int):
        super().__init__()
        self.least, self.bytes, self.operations = least, 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if not function.is_view:
            states = [
                x for x in tree_leaves((args, kwargs, found)) if isinstance(x, Tensor) and x.numel() >= self.least
            ]
            self.bytes += sum(x.nbytes for x in states)
            self.operations += bool(states)
        return found


def waits(work: Callable[[], object]) -> int:
    """How often Python waits for the GPU, by torch's own account."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


def cost(setting: Setting, shape: tuple[int, ...], method: str, batch: int) -> Values:
    """A run with the null network."""
    model = null(shape, setting)
    noise, adaptive = noise_for(model, batch), method == "adaptive"
    budget = {"tol": 0.01} if adaptive else {"nfe": setting.pick(NFE, 6)}

    def sample() -> ddim_ode.Solution:
        return ddim_ode.sample(model, method, noise=noise, batch_size=batch, **budget)

    nfe = float(sample().nfe.double().mean())
    with Traffic(noise.numel() if not adaptive else noise[0].numel()) as traffic:
        sample()
    seconds = in_turns(setting, {"sample": sample}, most=1.0)["sample"]
    rate = traffic.bytes / seconds
    found = {
        "NFE": nfe,
        "us an evaluation": 1e6 * seconds / nfe,
        "operations an evaluation": traffic.operations / nfe,
        "MB an evaluation": traffic.bytes / 1e6 / nfe,
        "GB/s": rate / 1e9,
        "% of a copy": 100 * rate / copied(setting),
    }
    return {**found, "waits a run": waits(sample)} if setting.cuda else found


def cases(setting: Setting) -> Iterator[Case]:
    def measure(shape: tuple[int, ...], method: str, batch: int) -> Callable[[], Values]:
        return lambda: cost(setting, shape, method, batch)

    for batch in setting.pick((1, 16), (2,)):
        for name, shape in setting.pick(SHAPES, SMALL).items():
            for method in setting.pick(METHODS, METHODS[:4]):
                yield Case({"state": name, "batch": batch, "method": method}, measure(shape, method, batch))


SECTION = Section(
    "solvers",
    "With a network that returns its input. Operations are those on whole states; MB is what they read and write,"
    " counted operation by operation, and % of a copy how near that comes to the card's bandwidth. Waits: how often"
    " Python waits for the GPU in a run, by `torch.cuda.set_sync_debug_mode`. `adaptive` at tol 0.01.",
    35,
    cases,
)
