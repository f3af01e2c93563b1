"""Whether an image comes back from its latent bit for bit, on this device, in another batch and a second time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

import ddim_ode
from benchmarks.gpu_sections.base import Case, Section, Setting, Values
from benchmarks.gpu_sections.clocks import once
from benchmarks.gpu_sections.models import fashion
from ddim_ode import data
from ddim_ode.inversion import compared

METHODS = sorted(
    (name for name, row in ddim_ode.METHODS.items() if row.invertible),
    key=lambda name: (not ddim_ode.METHODS[name].exact, name),
)
AGAIN, ALONE = "the same batch, and again", "deterministic, half of them"
SIZES = {"batches of 4": 4, "one by one": 1}
NFE, IMAGES = 20, 32


@lru_cache(maxsize=1)
def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 28, 28) in [-1, 1] from all over the test set, and their labels."""
    images, labels = data.bundled_images()
    chosen = torch.linspace(0, len(images) - 1, count).long()
    return data.to_float(images[chosen]), labels[chosen]


def there_and_back(setting: Setting, method: str, way: str) -> Values:
    """Encode in one way, decode in another."""
    model, nfe, count = fashion(setting), setting.pick(NFE, 4), setting.pick(IMAGES, 4)
    x, labels = pictures(count)
    alone = way == ALONE
    rows = list(range(count - 1, -1, -2)) if alone else list(range(count))

    def encode() -> ddim_ode.Latent:
        batch = None if alone else count
        return ddim_ode.encode(model, x, method, nfe, labels=labels, deterministic=alone, batch_size=batch)

    latent = encode()
    asked = latent[rows] if alone else latent
    if way in SIZES:
        asked = replace(latent, options=replace(latent.options, batch_size=min(SIZES[way], count)))
    found: list[ddim_ode.Solution] = []
    seconds = once(setting, lambda: found.append(ddim_ode.decode(model, asked, deterministic=alone)))
    told = compared(x[rows], asked, found[0])
    values = {
        "bit for bit, %": share(told.bit_exact),
        "same bytes, %": share(told.same_bytes),
        "largest error": float(told.max_error.max()),
        "ms to decode": 1e3 * seconds,
    }
    if way == AGAIN:
        pairs = zip(latent.states, encode().states, strict=True)
        values["same latents, %"] = share(torch.stack([(a == b).flatten(1).all(1) for a, b in pairs]).all(0))
    return values


def share(which: Tensor) -> float:
    return 100 * float(which.double().mean())


def cases(setting: Setting) -> Iterator[Case]:
    def measure(method: str, way: str) -> Callable[[], Values]:
        return lambda: there_and_back(setting, method, way)

    for way in (AGAIN, "one by one", "batches of 4", ALONE):
        for method in setting.pick(METHODS, METHODS[:1]):
            yield Case({"decoded": way, "method": method}, measure(method, way))


SECTION = Section(
    "exactness",
    f"{IMAGES} test images encoded by `fashion` in one batch at NFE {NFE} and decoded as the first column says. Same"
    " latents: of a second encoding. Deterministic: both ways one by one, with torch's deterministic"
    " algorithms.",
    30,
    cases,
)
