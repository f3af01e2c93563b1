"""Tune a method to a model: the numbers of a linear multistep method, or the grid of one of ours, for given budgets."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import torch
from torch import Tensor

from ddim_ode.models.denoiser import Model
from ddim_ode.models.fast import Fast
from ddim_ode.models.provenance import innermost
from ddim_ode.planning.inputs import check_callback, check_labels, check_model, check_seeds
from ddim_ode.planning.options import DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.origins import digest_of, guidance_of
from ddim_ode.planning.plan import with_guidance
from ddim_ode.solvers import Method, get_method
from ddim_ode.solvers.origin import Origin
from ddim_ode.support.checks import as_path, flag, shown, whole
from ddim_ode.support.files import reported
from ddim_ode.support.scalars import index
from ddim_ode.support.tables import entries
from ddim_ode.tuning.problem import Asked
from ddim_ode.tuning.task import Task, Told, TuneError, steps_for

SEEDS = range(1000, 1048)
HELD_OUT = range(64)
BUDGET = 100_000  # evaluations for each budget of the method
MOST = 100  # predictions: beyond, any method is good

Labels = Tensor | Sequence[int] | int | Literal["each"] | None


def tune(
    model: Model,
    nfe: Iterable[int] | int = (5, 8, 10),
    *,
    seeds: Iterable[int] = SEEDS,
    held_out: Iterable[int] = HELD_OUT,
    labels: Labels = "each",
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    refine: bool = True,
    grid_only: str | None = None,
    budget: int = BUDGET,
    batch_size: int | None = None,
    out: Path | str | None = None,
    callback: Told | None = None,
) -> Method:
    """Find the best method for a model at some budgets, from forward passes alone.

    What is found holds for this model, its guidance and the budgets: a table of numbers for each, see `solvers.tuned`.
    First places and coefficients come from a search with least squares, then all numbers are moved together by
    Gauss-Newton. The result of that is kept where it is better on the held-out seeds, by median and by RMS.

    Args:
        model: a `Denoiser`, or something around one.
        nfe: the budgets, in network evaluations of a sample.
        seeds: of the samples to tune on, at least 8; the first 16 are enough for the search.
        held_out: of those to judge on, other ones.
        labels: "each" is all classes in turn; one for all, or some, repeated in turn; None is the null class.
        guidance, guidance_range: as in `sample`; what is tuned holds for these.
        refine: whether to go on to Gauss-Newton, which costs five to ten times the search.
        grid_only: the name of a method of which the grid alone is tuned. It then also encodes.
        budget: the most network passes that are spent on each of the budgets, but for a first iteration of
            Gauss-Newton. What all share, trajectories and images to compare with, comes to some hundred passes a seed.
        batch_size: samples or variants at a time (default: 128).
        out: a file that the method is written to after each budget; those that are in it already are not tuned again.
        callback: called with a `TuneProgress`.

    Returns:
        A `Method` for `sample(model, method, nfe=...)`, whose `origin.results` tell what it misses, beside others.

    Raises:
        TuneError: budgets, seeds or a file that cannot be used, or a model without a finite range of sigma.
        OutputError: `out` cannot be written. TunedError: it is there, and damaged.
        SampleError, GuidanceError, NonFiniteError, DivergedError: as `sample`.
    """
    check_model(model)
    check_callback(callback)
    own, others = check_seeds(seeds), check_seeds(held_out)
    if len(own) < 8 or not others or set(own) & set(others):
        raise TuneError("seeds must be at least 8, and held_out one or more that are not among them")
    if not 0 < model.sigma_min < model.sigma_max < math.inf:
        raise TuneError(
            f"a model is tuned on a finite range of sigma, and this one's is [{model.sigma_min:g}, {model.sigma_max:g}]"
            "; give its path sigma_min and sigma_max"
        )
    options = SolveOptions(guidance=guidance, guidance_range=guidance_range, batch_size=batch_size)
    labelled = labels is not None and bool(model.num_classes)
    guided, only = with_guidance(model, options), None if grid_only is None else _grid_method(grid_only)
    scale, interval = guidance_of(guided)
    if isinstance(labels, str) and labels != "each":
        raise TuneError(f"labels={labels!r} must be 'each', one class, some, or None")
    if flag("refine", refine):
        _check_precision(model)
    file = None if out is None else as_path("out", out)
    if file is not None:
        _check_writable(file)
    task = Task(
        asked=Asked(guided, batch_size or DEFAULT_BATCH),
        options=replace(options, guidance=1.0, guidance_range=None),
        only=only,
        refine=refine,
        budget=whole("budget", budget, TuneError),
        told=callback or (lambda progress: None),
        labels=(_labels(model, labels, len(own)), _labels(model, labels, len(others))),
        origin=Origin(
            digest=digest_of(model),
            shape=tuple(model.shape),
            num_classes=model.num_classes,
            sigma_range=(model.sigma_min, model.sigma_max),
            guidance=scale,
            guidance_range=None if interval == (0, math.inf) else interval,
            labelled=labelled,
            seeds=tuple(own),
            held_out=tuple(others),
            results=(),
        ),
    )
    return task.run(_budgets(guided, only, nfe), file)


def _budgets(model: Model, only: Method | None, nfe: Iterable[int] | int) -> dict[int, int]:
    """Predictions -> the budget that allows so many, in order. Raises TuneError for what cannot be tuned."""
    given = [nfe] if index(nfe) is not None else entries(nfe, MOST)
    if not given:
        raise TuneError(f"nfe={shown(nfe)} must be budgets, such as (5, 8, 10)")
    budgets = sorted({whole("nfe", one, TuneError, most=MOST, why="where any method is good") for one in given})
    found = dict[int, int]()
    for one in budgets:
        steps, predictions = steps_for(model, only, one)
        if steps < 2:
            raise TuneError(f"nfe={one} allows one step; a method is tuned for 2 or more, so use a larger nfe")
        found.setdefault(predictions, one)
    return found


def _check_writable(file: Path) -> None:
    """Raise OutputError at once where a file can not be written in the end."""
    with reported(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass


def _check_precision(model: Model) -> None:
    """Raise TuneError for a network whose rounding hides what Gauss-Newton looks at."""
    inner = innermost(model)
    if isinstance(getattr(inner, "net", None), Fast) or getattr(inner, "dtype", None) == torch.bfloat16:
        raise TuneError(
            "the network computes in bfloat16, whose rounding hides the small changes that refining looks at; give one"
            " in float32 (what is found then serves both), or refine=False"
        )


def _grid_method(name: str) -> Method:
    """A method whose grid can be tuned. Raises TuneError, MethodError."""
    method = get_method(name)
    if method.adaptive or not method.deterministic or method.exact:
        raise TuneError(f"grid_only={name!r} must be a method on a grid, without noise and in floats, such as 'adams3'")
    return method


def _labels(model: Model, labels: Labels, count: int) -> Tensor | None:
    """One for each sample, (count,) int64: all classes in turn, or those that are given."""
    if labels is None or not model.num_classes:
        return None
    given = range(model.num_classes) if isinstance(labels, str) else labels
    few = torch.as_tensor(list(given) if isinstance(given, range) else given).reshape(-1)
    return check_labels(model, few[torch.arange(count) % len(few)], count)
