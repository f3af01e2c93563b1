"""What noise on the way costs: a stochastic run against a deterministic one of as many evaluations."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, Values
from benchmarks.gpu_sections.clocks import Clocked, in_turns, once
from benchmarks.gpu_sections.models import fashion, labels_for, noise_for, with_net
from ddim_ode.ode.brownian import Brownian
from ddim_ode.paths import f64

#: of a stochastic method its keywords, and the deterministic method with as much arithmetic otherwise
TWINS: dict[str, tuple[str, dict[str, Any], str]] = {
    "sde_euler": ("sde_euler", {}, "euler"),
    "ddim, eta 1": ("ddim", {"eta": 1.0}, "ddim"),
    "sde_dpmpp_2m": ("sde_dpmpp_2m", {}, "dpmpp_2m"),
    "edm_churn": ("edm_churn", {}, "heun"),
}
NFE = 20


def noisy(setting: Setting, name: str, batch: int) -> Values:
    """A run with noise, its twin without, and the time in the network."""
    plain = fashion(setting)
    model = with_net(plain, Clocked(plain.net, setting))
    method, options, twin = TWINS[name]
    nfe, labels, begin = setting.pick(NFE, 5), labels_for(model, batch), noise_for(model, batch)

    def run(method: str, **options: Any) -> Callable[[], ddim_ode.Solution]:
        return lambda: ddim_ode.sample(model, method, nfe, noise=begin, labels=labels, batch_size=batch, **options)

    works = {"noisy": run(method, **options), "plain": run(twin)}
    costs = {name: float(work().nfe.double().mean()) for name, work in works.items()}
    turns = in_turns(setting, works)
    model.net.clear()
    total = once(setting, works["noisy"])
    inside = min(1.0, model.net.seconds() / total)  # of two clocks, the device's and the host's
    per = {name: 1e3 * turns[name] / costs[name] for name in works}
    return {
        "NFE": costs["noisy"],
        "ms an evaluation": per["noisy"],
        "ms without noise": per["plain"],
        "noisy / plain": turns.ratio("noisy", "plain") * costs["plain"] / costs["noisy"],
        "in the network, %": 100 * inside,
    }


def drawn(setting: Setting, batch: int, shape: tuple[int, ...]) -> Values:
    """A path of each sample, asked for one increment after another, as a solver asks."""
    nfe = setting.pick(NFE, 5)
    sigmas = f64([80 * (0.002 / 80) ** (n / nfe) for n in range(nfe + 1)])

    def work() -> None:
        path = Brownian(range(batch), shape, setting.device)
        for above, below in pairwise(sigmas):
            path.increment(above, below)

    seconds = in_turns(setting, {"work": work})["work"]
    return {"NFE": nfe, "ms an evaluation": 1e3 * seconds / nfe}


def cases(setting: Setting) -> Iterator[Case]:
    def run(name: str, batch: int) -> Callable[[], Values]:
        return lambda: noisy(setting, name, batch)

    def alone(batch: int, shape: tuple[int, ...]) -> Callable[[], Values]:
        return lambda: drawn(setting, batch, shape)

    for batch in setting.pick((64, 16, 1), (2,)):
        for name in TWINS:
            yield Case({"noise": name, "batch": batch}, run(name, batch))
        for shape in setting.pick(((1, 28, 28), (4, 128, 128)), ((1, 28, 28),)):
            yield Case({"noise": f"paths alone, {'x'.join(map(str, shape))}", "batch": batch}, alone(batch, shape))


SECTION = Section(
    "noise",
    "`fashion`, eager: a method that draws noise, and in turns the one of the same arithmetic that does not"
    " (`sde_euler` and `euler`, `ddim` with eta 1 and 0, `sde_dpmpp_2m` and `dpmpp_2m`, `edm_churn` and `heun`)."
    " Paths alone: increments of Brownian paths, drawn and brought to the device, without a network.",
    25,
    cases,
)
