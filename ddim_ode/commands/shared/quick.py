"""`--fast`: the network is compiled before a run is timed, and in the end a line says what that did and cost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ddim_ode.commands.shared.display import note, progress
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.fast import Fast
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import DEFAULT_BATCH
from ddim_ode.support.process import computing

COMPILING = "compiling"  # what a progress bar says meanwhile


@contextmanager
def quickened(
    model: Denoiser, fast: bool, count: int, batch_size: int | None = None, threads: int | None = None
) -> Iterator[Denoiser]:
    """The model, fast if it is to be: compiled, with a bar, and accounted for on stderr when all is done.

    count: samples that are asked for. threads: that they are asked with.

    Raises DenoiserError for a model that cannot be fast.
    """
    if not fast:
        yield model
        return
    with progress(count, COMPILING), computing(threads):
        quick = made_fast(model, count, batch_size)
    yield quick
    tell(account_of(quick))


def made_fast(model: Denoiser, count: int, batch_size: int | None = None) -> Denoiser:
    """The model, compiled for the batches of `count` samples. Raises DenoiserError for one that cannot be fast."""
    quick = model.fast()
    warm_up(quick, min(batch_size or DEFAULT_BATCH, count))
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
