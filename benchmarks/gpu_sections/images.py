"""Images a second: what a person with a card gets."""

from collections.abc import Callable, Iterator

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError, Values
from benchmarks.gpu_sections.models import fashion, labels_for, large, noise_for
from benchmarks.gpu_sections.pairs import beside_bare
from ddim_ode.planning.inputs import SampleError

METHODS = ("ddim", "adams4", "dpmpp_2m", "adaptive", "tuned")
MODELS = {"fashion": fashion, "random, 36M": large}
BATCHES = {"fashion": 256, "random, 36M": 64}


def images(model: ddim_ode.Denoiser, setting: Setting, method: str, nfe: int, batch: int) -> Values:
    """A batch by a method, against as many passes of the network on whole batches."""
    labels, noise = labels_for(model, batch), noise_for(model, batch)
    adaptive = method == "adaptive"
    try:  # the tolerance of the budget is looked for here, and not timed
        found = ddim_ode.sample(model, method, nfe, noise=noise, labels=labels, batch_size=batch)
    except SampleError as error:  # a budget that the method cannot keep to
        raise SkippedError(str(error)) from None
    budget = {"tol": found.tol} if adaptive else {"nfe": nfe}
    spent = float(found.nfe.double().mean())

    def sample() -> object:
        return ddim_ode.sample(model, method, noise=noise, labels=labels, batch_size=batch, **budget)

    _, values = beside_bare(setting, model, sample, batch, spent, most=1.5)
    return {"NFE": spent, **values}


def cases(setting: Setting) -> Iterator[Case]:
    def measure(name: str, method: str, nfe: int, batch: int) -> Callable[[], Values]:
        return lambda: images(MODELS[name](setting), setting, method, nfe, batch)

    for nfe in setting.pick((10, 20, 5, 50), (6,)):
        for name in MODELS:
            for method in METHODS if name == "fashion" else METHODS[:-1]:
                batch = setting.pick(BATCHES[name], 2)
                names = {"model": name, "batch": batch, "method": method, "budget": nfe}
                yield Case(names, measure(name, method, nfe, batch))


SECTION = Section(
    "images",
    "Eager float32 (convolutions in TF32). `adaptive` at the tolerance whose mean NFE is at most the budget, which is"
    " looked for before; `tuned` by the tables that `fashion` comes with. Against as many bare passes on whole"
    " batches: below 1 is possible where samples are done at different times. The random network says how fast, not"
    " how well.",
    90,
    cases,
)
