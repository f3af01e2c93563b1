"""What the library costs on top of the network, however the network is run."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, Values, need_cuda
from benchmarks.gpu_sections.models import (
    Captured,
    Reduced,
    fashion,
    labels_for,
    need_compiled,
    noise_for,
    pointwise,
    with_net,
)
from benchmarks.gpu_sections.pairs import beside_bare
from ddim_ode.models.fast import Fast

NFE = 20
KINDS = ("eager", "graphs", "compiled", "compiled graphs")


def overhead(model: ddim_ode.Denoiser, setting: Setting, batch: int) -> Values:
    """`sample` against as many passes of its network."""
    nfe = setting.pick(NFE, 4)
    noise, labels = noise_for(model, batch), labels_for(model, batch)
    if isinstance(model.net, Fast):
        model.net.verdicts.clear()  # of other batches: what it does with this one is judged for this row

    def sample() -> object:
        return ddim_ode.sample(model, "ddim", nfe, noise=noise, labels=labels, batch_size=batch)

    turns, found = beside_bare(setting, model, sample, batch, nfe, most=4.0)
    need_compiled(model.net)
    return {"ms a pass": 1e3 * turns["bare"] / nfe, **found, "first call, s": turns.first["bare"]}


@lru_cache(maxsize=1)  # of each kind in turn: what one has compiled or captured goes before the next
def as_kind(setting: Setting, kind: str) -> ddim_ode.Denoiser:
    """The model with its network run so. Small, one that compiles soon."""
    model = fashion(setting) if kind == "eager" else setting.pick(fashion, pointwise)(setting)
    if kind == "compiled":
        return model.fast()
    if kind == "graphs":
        need_cuda(setting, "graphs")
        return with_net(model, Captured(model.net))
    if kind == "compiled graphs":
        need_cuda(setting, "graphs")
        torch.compiler.reset()
        return with_net(model, Reduced(model.net))
    return model


def cases(setting: Setting) -> Iterator[Case]:
    def measure(kind: str, batch: int) -> Callable[[], Values]:
        return lambda: overhead(as_kind(setting, kind), setting, batch)

    for kind in KINDS:
        for batch in setting.pick((64, 1, 256, 16), (2,)):
            yield Case({"network": kind, "batch": batch}, measure(kind, batch))


SECTION = Section(
    "forwards",
    f"`fashion`, `ddim` at {NFE} evaluations from given noise, against as many bare passes of the same network on the"
    " same batch, in turns; medians of paired ratios. Eager: float32 as torch computes it (convolutions in TF32)."
    " Compiled: `model.fast()`, and no row where it runs anything else. Graphs: the eager network captured; compiled"
    " graphs: `torch.compile(mode='reduce-overhead')` in float32. The first call warms up and does not count.",
    130,
    cases,
)
