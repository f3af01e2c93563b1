"""What `adaptive` does with a batch whose samples are done at different times."""

from collections.abc import Callable, Iterator

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, Values
from benchmarks.gpu_sections.clocks import Clocked, in_turns, once
from benchmarks.gpu_sections.models import fashion, labels_for, noise_for, with_net
from benchmarks.gpu_sections.pairs import passes


def compaction(setting: Setting, batch: int, tol: float) -> Values:
    """A run of `adaptive`, and one of a grid method of the same cost."""
    plain = fashion(setting)
    model = with_net(plain, Clocked(plain.net, setting))
    noise, labels = noise_for(model, batch), labels_for(model, batch)

    def adaptive() -> ddim_ode.Solution:
        return ddim_ode.sample(model, "adaptive", tol=tol, noise=noise, labels=labels, batch_size=batch)

    nfe = float(adaptive().nfe.double().mean())

    def grid() -> object:
        return ddim_ode.sample(model, "adams4", round(nfe), noise=noise, labels=labels, batch_size=batch)

    turns = in_turns(setting, {"bare": passes(plain, batch, round(nfe)), "adaptive": adaptive, "grid": grid})
    model.net.clear()
    total = once(setting, adaptive)
    sizes, inside = model.net.batches, model.net.seconds()
    between = max(0.0, total - inside)  # of two clocks, the host's and the device's
    return {
        "NFE": nfe,
        "rounds": len(sizes),
        "sizes": len(set(sizes)),
        "smallest": min(sizes),
        "mean size": sum(sizes) / len(sizes),
        "in the network, ms": 1e3 * inside,
        "between, ms": 1e3 * between,
        "between, us a round": 1e6 * between / len(sizes),
        "images/s": batch / turns["adaptive"],
        "images/s, adams4": batch / turns["grid"],
        "run / bare": turns.ratio("adaptive", "bare") * round(nfe) / nfe,
    }


def cases(setting: Setting) -> Iterator[Case]:
    def measure(batch: int, tol: float) -> Callable[[], Values]:
        return lambda: compaction(setting, batch, tol)

    for tol in setting.pick((0.01, 0.05), (0.1,)):
        for batch in setting.pick((64, 256, 16, 1), (3,)):
            yield Case({"batch": batch, "tol": tol}, measure(batch, tol))


SECTION = Section(
    "adaptive",
    "`fashion`, eager. Rounds are calls of the network, sizes the different batches that it saw, down to the smallest."
    " Time in the network is the device's, from the first kernel of a pass to its last; between is the rest of the"
    " run by the host's clock, or 0 if that is less. `adams4` has the same mean NFE, and so have the bare passes, on"
    " whole batches.",
    25,
    cases,
)
