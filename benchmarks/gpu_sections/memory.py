"""How much memory a run takes, beside the weights."""

import resource
import sys
from collections.abc import Callable, Iterator

import torch

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, Values
from benchmarks.gpu_sections.clocks import once
from benchmarks.gpu_sections.models import fashion, inputs_for, labels_for, large, noise_for

MODELS = {"fashion": fashion, "random, 36M": large}
WHAT = ("a bare pass", "ddim", "adams4", "adaptive")


def peak(setting: Setting, work: Callable[[], object]) -> Values:
    """The most that torch had taken on the GPU, in work; on a CPU, the most of the process so far."""
    if not setting.cuda:
        seconds = once(setting, work)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"MB of the process": most / 1e6, "s": seconds}
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = once(setting, work)
    most = torch.cuda.max_memory_allocated()
    return {"MB before": before / 1e6, "MB more": (most - before) / 1e6, "s": seconds}


def taken(setting: Setting, name: str, what: str, batch: int) -> Values:
    """The memory of a pass, or of a run."""
    model = MODELS[name](setting)
    labels, noise, inputs = labels_for(model, batch), noise_for(model, batch), inputs_for(model, batch)
    if what == "a bare pass":
        return peak(setting, lambda: model.net(*inputs))
    budget = {"tol": 0.05, "max_nfe": 60} if what == "adaptive" else {"nfe": setting.pick(10, 5)}
    return peak(setting, lambda: ddim_ode.sample(model, what, noise=noise, labels=labels, batch_size=batch, **budget))


def cases(setting: Setting) -> Iterator[Case]:
    def measure(name: str, what: str, batch: int) -> Callable[[], Values]:
        return lambda: taken(setting, name, what, batch)

    for batch in setting.pick((64, 256, 1), (2,)):
        for name in MODELS:
            for what in WHAT:
                yield Case({"model": name, "batch": batch, "run": what}, measure(name, what, batch))


SECTION = Section(
    "memory",
    "By torch's allocator, float32: what was there before, weights and inputs, and the most that came on top.",
    20,
    cases,
)
