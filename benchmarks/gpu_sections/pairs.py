"""A run beside as many bare passes of its network: what the library adds."""

from collections.abc import Callable

import ddim_ode
from benchmarks.gpu_sections.base import Setting, Values
from benchmarks.gpu_sections.clocks import Turns, in_turns
from benchmarks.gpu_sections.models import inputs_for


def passes(model: ddim_ode.Denoiser, batch: int, count: int) -> Callable[[], None]:
    """So many passes of the network on a whole batch, one after another."""
    inputs = inputs_for(model, batch)

    def work() -> None:
        for _ in range(count):
            model.net(*inputs)

    return work


def beside_bare(
    setting: Setting, model: ddim_ode.Denoiser, sample: Callable[[], object], batch: int, nfe: float, most: float
) -> tuple[Turns, Values]:
    """`sample` and "bare" in turns, and what they say together. nfe: what a run costs in the mean of its samples."""
    turns = in_turns(setting, {"bare": passes(model, batch, round(nfe)), "sample": sample}, most)
    return turns, {
        "ms an evaluation": 1e3 * turns["sample"] / nfe,
        "sample / bare": turns.ratio("sample", "bare") * round(nfe) / nfe,
        "images/s": batch / turns["sample"],
    }
