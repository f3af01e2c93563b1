"""`--fast`: the network is compiled before a run is timed, and in the end a line says what that did and cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ddim_ode.commands.shared.display import note, progress
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.fast import Fast
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import DEFAULT_BATCH, SolveOptions
from ddim_ode.support.process import computing

COMPILING = "compiling"  # what a progress bar says meanwhile


@dataclass(frozen=True)
class Batches:
    """What decides how many samples a network is asked at once.

    size: of a batch (default: DEFAULT_BATCH).
    guided: whether samples are asked twice over, with and without their labels, in one batch.
    shrinks: whether a batch may come down to one, as where samples finish before others.
    """

    size: int | None = None
    guided: bool = False
    shrinks: bool = False

    @classmethod
    def of(cls, options: SolveOptions) -> "Batches":
        """Those of a run."""
        return cls(options.batch_size, options.guidance != 1, options.row.adaptive)

    def kinds(self, count: int) -> list[int]:
        """A size of each kind that torch compiles for, where `count` samples are asked for: many, one, or both."""
        most = min(self.size or DEFAULT_BATCH, count)
        alone = most == 1 or count % most == 1 or self.shrinks
        return [max(most, 2)] * (most > 1 or self.guided) + [1] * alone


@contextmanager
def quickened(
    model: Denoiser,
    fast: bool,
    count: int,
    batches: Batches,
    threads: int | None = None,
    deterministic: bool = False,
) -> Iterator[Denoiser]:
    """The model, fast if it is to be: compiled, with a bar, and accounted for on stderr when all is done.

    count: samples that are asked for. threads: that they are asked with. deterministic: whether one at a time and by
    torch's deterministic algorithms.

    Raises DenoiserError for a model that cannot be fast.
    """
    if not fast:
        yield model
        return
    with progress(count, COMPILING), computing(threads, deterministic):
        quick = made_fast(model, count, replace(batches, size=1) if deterministic else batches)
    yield quick
    tell(account_of(quick))


def made_fast(model: Denoiser, count: int, batches: Batches) -> Denoiser:
    """The model, compiled for the batches of `count` samples. Raises DenoiserError for one that cannot be fast."""
    quick = model.fast()
    for size in batches.kinds(count):
        warm_up(quick, size)
    return quick


@torch.no_grad()
def warm_up(model: Denoiser, count: int) -> None:
    """Compile a fast model by a pass of `count` samples, the same whatever is asked of it afterwards.

    So a run and its way back, or its repetition, judge the compiled network alike.
    """
    labels = torch.zeros(count, dtype=torch.int64, device=model.device) if model.num_classes else None
    model(seeded_noise(range(count), model.shape).to(model.device), 1.0, labels)


def account_of(model: Denoiser) -> str | None:
    """What made a model fast and what it cost, in a line; None of one that is as it was loaded."""
    return model.net.account() if isinstance(model.net, Fast) else None


def tell(account: str | None) -> None:
    """Say it on stderr."""
    if account is not None:
        note(account)
