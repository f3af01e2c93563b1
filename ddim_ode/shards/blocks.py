"""Many samples in blocks of whole batches, of which one is in memory: every batch is what it would be in one run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, NonFiniteError
from ddim_ode.planning.options import AUTO, SolveOptions
from ddim_ode.planning.plan import Callback, Progress, prepare
from ddim_ode.planning.profile import Profile, profile_of
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import Solution

BLOCK = 1024  # samples that are in memory at once, or fewer large ones, or a batch
BYTES = 2**26  # that they take


@dataclass(frozen=True)
class Settled:
    """Options with what is looked for on the model, once for all blocks: a grid, or the tolerance of a budget."""

    options: SolveOptions
    profile: Profile | None = None  # that the grid was made from


def settled(model: Model, options: SolveOptions, told: Told, count: int) -> Settled:
    """Look for what the options leave to the model, as a run of `count` samples does. Raises as `sample`."""
    plan = prepare(model, options, count, labels=told)
    if options.grid == AUTO or isinstance(options.grid, Profile):
        given = options.grid if isinstance(options.grid, Profile) else None
        profile = given or profile_of(plan.model, plan.labels is not None)  # which is known by now
        return Settled(replace(options, nfe=None, grid=plan.sigmas), profile)
    if options.row.adaptive and options.nfe is not None:
        return Settled(replace(options, nfe=None, tol=plan.tol))
    return Settled(options)


def block_size(batch_size: int, each: int) -> int:
    """How many samples, of so many bytes each, make a block."""
    return max(1, min(BLOCK, BYTES // each) // batch_size) * batch_size


def blocks(total: int, size: int) -> Iterator[slice]:
    """The samples in blocks of a size, but for the last."""
    return (slice(first, min(first + size, total)) for first in range(0, total, size))


def draw_block(
    model: Model,
    options: SolveOptions,
    seeds: Sequence[int],
    told: Told,
    rows: slice,
    callback: Callback | None = None,
) -> Solution:
    """The samples of some rows of a run, x on the CPU. The callback is told of their places in it.

    Raises as `sample`; NonFiniteError with the sample's place in the run.
    """
    watch = _watching(callback, rows.start)
    try:
        part = sample_with(
            model, options, seeds=seeds[rows], labels=None if told is None else told[rows], callback=watch
        )
    except NonFiniteError as error:
        error.sample += rows.start
        raise
    return replace(part, x=part.x.cpu())


def _watching(callback: Callback | None, first: int) -> Callback | None:
    """The callback, told of samples that begin at another place."""
    if callback is None:
        return None

    def update(now: Progress) -> None:
        callback(now._replace(samples=range(first + now.samples.start, first + now.samples.stop)))

    return update
