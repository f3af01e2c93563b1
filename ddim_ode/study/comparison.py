"""Comparing solvers at equal measured NFE: every cell from the same noise, against one trusted reference."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from ddim_ode.metrics.spaces import Features
from ddim_ode.models.conditions import Conditions
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import (
    Labels,
    check_callback,
    check_labels,
    check_model,
    check_seeds,
    check_size,
    check_told,
    conditions_of,
)
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import Method
from ddim_ode.study.cells import Cell, EtaValue, Shared, StudyError, cells_of, listed, named
from ddim_ode.study.measure import Bench, shown
from ddim_ode.study.progress import Stopped, StudyProgress, Watch
from ddim_ode.study.results import ModelFacts, RealFacts, ReferenceFacts, Study, StudySettings
from ddim_ode.study.rows import Row, best
from ddim_ode.study.sharing import sharing
from ddim_ode.support.checks import as_path, of_kind
from ddim_ode.support.checks import shown as shown_value
from ddim_ode.support.processes import Processes, alone, processes
from ddim_ode.support.scalars import number
from ddim_ode.support.versions import circumstances

__all__ = ["BUDGETS", "COMPARED", "Study", "StudyProgress", "compare"]

COMPARED = ("ddim", "heun_angle", "dpmpp_2m", "unipc_2", "deis_tab3", "adams2", "adams3", "adams4", "rk4", "adaptive")
BUDGETS = (5, 10, 20, 50)
EACH: Final = "each"  # of all classes in turn
TOLD = ("seeds", "labels", "guidance", "guidance_range", "dtype", "features")  # of what makes a folder one study's


def compare(
    model: Model,
    methods: Sequence[str] | Mapping[str, str | Method] = COMPARED,
    nfe: Sequence[int] = BUDGETS,
    seeds: Iterable[int] = range(64),
    *,
    labels: Labels | Literal["each"] = EACH,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    grids: Sequence[str] = ("own",),
    etas: Sequence[EtaValue] = (),
    tols: Sequence[float] = (),
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    reference_tol: float = 1e-3,
    real: Tensor | None = None,
    features: Features | None = None,
    out: str | os.PathLike[str] | None = None,
    callback: Callable[[StudyProgress], None] | None = None,
    command: str | None = None,
) -> Study:
    """Run every method at every budget from the same noise, and measure it against the flow's own solution.

    Under torchrun all processes call it alike and share the work: each takes the next cell and keeps it in `out`, which
    all must see. Each measures on a GPU, or on cores, of its own; one without leaves the cells to the others. But for
    times the study is the same as of one process with as many threads.

    Args:
        model: a `Denoiser`, or something around one.
        methods: names in `METHODS`, "tuned" for the one beside the model, or a mapping of names to names or `Method`s.
        nfe: budgets, the most evaluations a sample may cost (adaptive methods: on average).
        seeds, conditions, null, guidance, guidance_range, dtype, batch_size: as in `sample`.
        labels: "each" for all classes in turn, if the model has any; or as in `sample`: one, or one a seed, in
            0..num_classes-1, None for the null class.
        grids: names in `GRIDS`, "own" for each method's own, "all" for every one, "auto" for those that are made for
            each method on this model.
        etas: scales of noise, each tried with each method; none for the methods as they are.
        tols: tolerances of adaptive methods, instead of the budgets.
        reference_tol: to which two resolutions of the reference must agree, RMS over a sample in data units.
        real: (M, C, H, W) real images, bytes or floats in [-1, 1], to measure the distribution of samples against.
        features: where consistency and distributions are measured (default: `metrics.default_features`).
        out: a folder to keep what is measured, cell by cell: a study that was cut short goes on, and cells that an
            earlier study of the same model, seeds, labels and reference has measured are not measured again, unless the
            method, the reference or a metric answers otherwise by now.
        callback: called with a `StudyProgress` after every step, in every process, and while one waits for others.
        command: how to make the same study again, for its report.

    Returns:
        A `Study`, the same in every process. A cell that cannot be done, or fails, is a row that says why.

    Raises:
        StudyError, MethodError, SampleError, GuidanceError, MetricError: a study that cannot be, as of several
            processes without `out`.
        ProcessError: another process of the run has failed, or their launcher is gone.
        TunedError: "tuned" is asked for, and there is no tuned.json beside the model, or it is damaged.
        OutputError: `out` cannot be written, or is not the folder of a study.
    """
    here = processes()
    with here.together():
        check_model(model)
        check_callback(callback)
        folder = None if out is None else as_path("out", out, "folder")
        if folder is None and not here.alone:
            share = f"{here.size} processes share a study by its folder"
            raise StudyError(f"out=None: {share}; give out, or start one process")
        if command is not None:
            of_kind("command", command, str, "a text, or None")
        grids = listed("grids", grids)
        cells = cells_of(named(methods, model), nfe, tols, grids, etas)
        options = SolveOptions(guidance=guidance, guidance_range=guidance_range, dtype=dtype, batch_size=batch_size)
        told = conditions_of(conditions, null)
        bench = bench_for(model, options, seeds, labels, reference_tol, conditions=told, real=real, features=features)
        return study_of(bench, cells, grids, folder, callback, here=here, command=command)


def bench_for(
    model: Model,
    options: SolveOptions,
    seeds: Iterable[int],
    labels: Labels | Literal["each"],
    reference_tol: float,
    *,
    conditions: Conditions | None = None,
    real: Tensor | None = None,
    features: Features | None = None,
) -> Bench:
    """What measures the cells of a study. The arguments are those of `compare`, which says what it raises."""
    check_model(model)
    if not 0 < number(reference_tol) < 1:
        raise StudyError(f"reference_tol={shown_value(reference_tol)} must be a number between 0 and 1, such as 0.001")
    numbers = check_seeds(seeds)
    classes = _classes(model, labels, len(numbers))
    check_size(model, len(numbers), torch.float64, None)  # of the reference
    told = classes if conditions is None else check_told(model, conditions.with_labels(classes), len(numbers))
    return Bench(model, Shared(numbers, told, options, float(reference_tol)), real, features)


def study_of(
    bench: Bench,
    cells: Sequence[Cell],
    grids: Sequence[str],
    out: Path | None = None,
    callback: Callable[[StudyProgress], None] | None = None,
    *,
    here: Processes | None = None,
    command: str | None = None,
    worth: Callable[[Cell, Sequence[Row]], bool] = lambda cell, rows: True,
) -> Study:
    """Measure cells one after another, and say how they compare.

    here: the processes that share them (default: this one alone).
    worth: of one process alone, whether a cell is to be measured after those of the rows.
    """
    here = alone() if here is None else here
    watch = Watch(here, len(cells), callback)
    try:
        with sharing(bench, cells, out, here, watch) as shared:
            reference = shared.reference()
            found = shared.cells(cells, reference, worth)
            cost = shared.cost()
    except Stopped as stopped:
        raise stopped.error from None
    rows = tuple(row for row, _ in found)
    errors = {row.key: each["error"] for row, each in found if "error" in each}
    pictures = {row.key: each["shown"] for row, each in found if "shown" in each}
    budgets = sorted({cell.nfe for cell in cells if cell.nfe})
    return Study(
        model=ModelFacts.of(bench.given, bench.identity["model"]),
        settings=StudySettings(
            methods=list(dict.fromkeys(cell.name for cell in cells)),
            nfe=budgets,
            tols=sorted({cell.tol for cell in cells if cell.tol}),
            grids=list(grids),
            own_grids={cell.name: cell.method.grid for cell in cells if cell.grid and not cell.method.grids},
            etas=list(dict.fromkeys(cell.eta for cell in cells if cell.eta is not None)),
            batch_size=bench.shared.options.batch_size,
            **{name: bench.identity[name] for name in TOLD},
            conditions=bench.identity.get("conditions", {}),
            real=None if bench.real is None else RealFacts("images", len(bench.real.images)),
        ),
        versions=circumstances()["versions"],
        command=command,
        reference=ReferenceFacts.of(reference),
        rows=rows,
        best=best(rows, errors, budgets),
        timing=cost,
        pictures={**pictures, "reference": shown(reference.x)} if pictures else {},
    )


def _classes(model: Model, labels: Labels | Literal["each"], count: int) -> Tensor | None:
    """The class of each sample, (count,), or None for the null class and of a model that has none."""
    if not isinstance(labels, str):
        return check_labels(model, labels, count)
    if labels != EACH:
        raise StudyError(
            f"labels={shown_value(labels)} is unknown; give 'each' for all classes in turn, numbers, or None for the"
            " null class"
        )
    return torch.arange(count) % model.num_classes if model.num_classes else None
