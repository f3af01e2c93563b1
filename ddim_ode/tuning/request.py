"""Tune a method to a model: the numbers of a linear multistep method, or the grid of one of ours, for given budgets."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import torch
from torch import Tensor

from ddim_ode.models.denoiser import Model
from ddim_ode.models.fast import Fast
from ddim_ode.models.provenance import innermost
from ddim_ode.planning.guided import with_guidance
from ddim_ode.planning.inputs import check_callback, check_labels, check_model, check_seeds
from ddim_ode.planning.options import DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.origins import digest_of, guidance_of
from ddim_ode.solvers import Method, get_method
from ddim_ode.solvers.origin import Origin
from ddim_ode.support.checks import as_path, flag, of_kind, shown, whole
from ddim_ode.support.files import reported
from ddim_ode.support.scalars import index
from ddim_ode.support.tables import entries
from ddim_ode.tuning.problem import Asked
from ddim_ode.tuning.task import Task, Told, TuneError, steps_for

SEEDS = range(1000, 1048)
HELD_OUT = range(64)
BUDGET = 100_000  # evaluations for each budget of the method
MOST = 100  # predictions: beyond, any method is good
LEAST_SEEDS = 8
MOST_LABELS = 10**4

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
        labels: "each" is all classes in turn, where there are any; one for all, or some, repeated in turn; None is the
            null class.
        guidance, guidance_range: as in `sample`; what is tuned holds for these.
        refine: whether to go on to Gauss-Newton, which costs five to ten times the search.
        grid_only: the name of a method of which the grid alone is tuned. It then also encodes.
        budget: the network passes after which nothing more is begun for one of the budgets: a table of the search, or
            an iteration of Gauss-Newton that has the price of the one before. What is not in it: some hundred passes a
            seed for images and trajectories, which all share, and judging.
        batch_size: samples or variants at a time (default: 128).
        out: a file that the method is written to after each budget. Those that are in it already, of the same model,
            seeds and settings, are not tuned again. Functions have no weights to tell them apart by: give each its own.
        callback: called with a `TuneProgress`.

    Where samples have few numbers, or evaluations are many, it may be worse than others: `origin.results` tell.

    Returns:
        A `Method` for `sample(model, method, nfe=...)`, whose `origin.results` tell what it misses, beside others.

    Raises:
        TuneError: budgets, seeds or a file that cannot be used, or a model without a finite range of sigma.
        OutputError: `out` cannot be written. TunedError: it is there, and damaged.
        SampleError, GuidanceError, NonFiniteError, DivergedError: as `sample`.
    """
    check_model(model)
    check_callback(callback)
    own, others = tuple(check_seeds(seeds)), tuple(check_seeds(held_out))
    if len(set(own)) < LEAST_SEEDS:
        raise TuneError(f"seeds has {len(set(own))} different ones; give {LEAST_SEEDS} or more")
    if both := set(own) & set(others):
        raise TuneError(f"held_out has {min(both)}, which is among the seeds; judge on others")
    if not 0 < model.sigma_min < model.sigma_max < math.inf:
        raise TuneError(
            f"a model is tuned on a finite range of sigma, and this one's is [{model.sigma_min:g}, {model.sigma_max:g}]"
            "; give its path sigma_min and sigma_max"
        )
    options = SolveOptions(guidance=guidance, guidance_range=guidance_range, batch_size=batch_size)
    guided = with_guidance(model, options)
    scale, interval = guidance_of(guided)
    asked = Asked(guided, batch_size or DEFAULT_BATCH)
    only = None if grid_only is None else _grid_method(grid_only)
    budgets = _budgets(asked, only, nfe)
    words, classes = _labels(model, labels)
    if flag("refine", refine):
        _check_precision(model)
    file = None if out is None else as_path("out", out)
    task = Task(
        asked=asked,
        options=replace(options, guidance=1.0, guidance_range=None),
        only=only,
        budget=whole("budget", budget, TuneError),
        told=callback or (lambda progress: None),
        labels=(_in_turn(classes, len(own)), _in_turn(classes, len(others))),
        origin=Origin(
            digest=digest_of(model),
            shape=tuple(model.shape),
            num_classes=model.num_classes,
            sigma_range=(model.sigma_min, model.sigma_max),
            guidance=scale,
            guidance_range=None if interval == (0, math.inf) else interval,
            labels=words,
            tried=refine,
            seeds=own,
            held_out=others,
            results=(),
        ),
    )
    if file is not None:
        _check_writable(file)
    return task.run(budgets, file)


def _budgets(asked: Asked, only: Method | None, nfe: Iterable[int] | int) -> dict[int, int]:
    """Predictions -> the budget that allows so many, in order. Raises TuneError for what cannot be tuned."""
    given = [nfe] if index(nfe) is not None else entries(nfe, MOST)
    if not given:
        raise TuneError(f"nfe={shown(nfe)} must be budgets, such as (5, 8, 10)")
    budgets = sorted({whole("nfe", one, TuneError, most=MOST, why="where any method is good") for one in given})
    found = dict[int, int]()
    for one in budgets:
        steps, predictions = steps_for(asked, only, one)
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
    kind = torch.bfloat16 if isinstance(getattr(inner, "net", None), Fast) else getattr(inner, "dtype", None)
    if kind in (torch.bfloat16, torch.float16):
        raise TuneError(
            f"the network computes in {str(kind).removeprefix('torch.')}, whose rounding hides the small changes that"
            " refining looks at; give one in float32, or refine=False"
        )


def _grid_method(name: str) -> Method:
    """A method whose grid can be tuned. Raises TuneError, MethodError."""
    of_kind("grid_only", name, str, "the name of a method, such as 'adams3'")
    method = get_method(name)
    if method.adaptive or not method.deterministic or method.exact:
        raise TuneError(f"grid_only={name!r} must be a method on a grid, without noise and in floats, such as 'adams3'")
    return method


def _labels(model: Model, labels: Labels) -> tuple[str, Tensor | None]:
    """Classes in words, as `Origin` has them, and those to take in turn. Raises TuneError, SampleError."""
    if labels is None or (labels == "each" and not model.num_classes):
        return "none", None
    if isinstance(labels, str):
        if labels != "each":
            raise TuneError(f"labels={labels!r} must be 'each', one class, some, or None")
        return "each", torch.arange(model.num_classes)
    given: list[Any] | None = [labels] if index(labels) is not None else entries(labels, MOST_LABELS)
    if not given:
        raise TuneError(f"labels={shown(labels)} must be 'each', one class, some, as in [0, 2], or None")
    classes = check_labels(model, given, len(given))
    assert classes is not None
    return ",".join(map(str, classes.tolist())), classes


def _in_turn(classes: Tensor | None, count: int) -> Tensor | None:
    """One for each sample, (count,) int64."""
    return None if classes is None else classes[torch.arange(count) % len(classes)]
