"""Comparing solvers at equal measured NFE: every cell from the same noise, against one trusted reference."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddim_ode.data import png_of
from ddim_ode.metrics.spaces import Features
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import check_labels, check_seeds
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Labels
from ddim_ode.solvers import Method
from ddim_ode.study.archive import opened
from ddim_ode.study.cells import EtaValue, StudyError, cells_of, named
from ddim_ode.study.measure import Bench, Setting, shown
from ddim_ode.study.reference import METHOD
from ddim_ode.study.rows import Row, best
from ddim_ode.support.records import finite, write_json
from ddim_ode.support.scalars import number
from ddim_ode.support.versions import circumstances

COMPARED = ("ddim", "heun_angle", "dpmpp_2m", "unipc_2", "deis_tab3", "adams2", "adams3", "adams4", "rk4", "adaptive")
BUDGETS = (5, 10, 20, 50)
FORMAT = 1


class Stopped(BaseException):
    """By the callback: what it raises is no failure of a cell."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


class StudyProgress(NamedTuple):
    """What a callback is told: which cell is at work, how many of all are done, and how far this one is, 0 to 1."""

    what: str
    done: int
    total: int
    share: float


@dataclass(frozen=True)
class Study:
    """A comparison.

    results: what results.json holds, rows included. pictures: key of a row, or "reference" -> (up to 8, C, H, W) bytes
    of the first samples, where samples are pictures.
    """

    rows: tuple[Row, ...]
    results: Mapping[str, Any]
    pictures: Mapping[str, Tensor]

    @property
    def best(self) -> list[dict[str, Any]]:
        """At each budget the key of the row of the smallest median error, and those of the rows that tie with it."""
        return self.results["best"]

    def row(self, key: str) -> Row:
        return next(row for row in self.rows if row.key == key)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write report.html, results.json, results.csv and pictures into a folder, each whole or not at all."""
        from ddim_ode.study.report.page import write_csv, write_report
        from ddim_ode.study.report.plots import save_sheet, save_work_precision

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        strips = {key: png_of(pictures) for key, pictures in self.pictures.items()}
        write_report(folder / "report.html", self.results, strips)
        write_json(folder / "results.json", self.results)
        write_csv(folder / "results.csv", self.results)
        files = ["report.html", "results.json", "results.csv"]
        if any(row.error for row in self.rows):
            save_work_precision(self.results, folder / "work_precision.png")
            files.append("work_precision.png")
        if strips:
            save_sheet(self.results, strips, folder / "sheet.png")
            files.append("sheet.png")
        return [folder / name for name in files]

    def to_pandas(self) -> Any:
        """A pandas data frame, one row a cell, nested values as columns such as "error.median".

        Raises StudyError where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise StudyError("to_pandas needs pandas; pip install pandas") from None
        return pandas.json_normalize([row.to_dict() for row in self.rows])


def compare(
    model: Model,
    methods: Sequence[str] | Mapping[str, str | Method] = COMPARED,
    nfe: Sequence[int] = BUDGETS,
    seeds: Iterable[int] = range(64),
    *,
    labels: Labels = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    grids: Sequence[str] = ("auto",),
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

    Args:
        methods: names in `METHODS`, or a mapping of names to names or `Method`s.
        nfe: budgets, the most evaluations a sample may cost (adaptive methods: on average).
        seeds, labels, guidance, guidance_range, dtype, batch_size: as in `sample`.
        grids: names in `GRIDS`, "auto" for each method's own, "all" for every one.
        etas: scales of noise, each tried with each method; none for the methods as they are.
        tols: tolerances of adaptive methods, instead of the budgets.
        reference_tol: to which two resolutions of the reference must agree, RMS over a sample in data units.
        real: (M, C, H, W) real images, bytes or floats in [-1, 1], to measure the distribution of samples against.
        features: where consistency and distributions are measured (default: `metrics.default_features`).
        out: a folder to keep what is measured, cell by cell: a study that was cut short goes on, and cells that an
            earlier study of the same model, seeds, labels and reference has measured are not measured again.
        callback: called with a `StudyProgress` after every step.
        command: how to make the same study again, for its report.

    Returns:
        A `Study`. A cell that cannot be done, or fails, is a row that says why.

    Raises:
        StudyError, MethodError, SampleError, MetricError: a study that cannot be.
        OutputError: `out` cannot be written, or is not the folder of a study.
    """
    begin = time.perf_counter()
    if not 0 < number(reference_tol) < 1:
        raise StudyError(f"reference_tol={reference_tol!r} must be a number between 0 and 1, such as 0.001")
    chosen = named(methods)
    cells = cells_of(chosen, nfe, tols, grids, etas)
    numbers = check_seeds(seeds)
    classes = check_labels(model, labels, len(numbers))
    options = SolveOptions(guidance=guidance, guidance_range=guidance_range, dtype=dtype, batch_size=batch_size)
    setting = Setting(numbers, classes, options, float(reference_tol))
    bench = Bench(model, chosen, setting, real, features)
    try:
        with opened(None if out is None else Path(out), bench.identity, bench.answers) as archive:
            tell = [_teller(callback, n, len(cells)) for n in range(len(cells))]
            reference = bench.reference(archive, tell[0])
            found = [bench.row(cell, archive, reference, tell[n]) for n, cell in enumerate(cells)]
    except Stopped as stopped:
        raise stopped.error from None
    rows, kept = tuple(row for row, _ in found), {row.key: each for row, each in found if each}
    errors = {key: each.tensors["error"] for key, each in kept.items() if "error" in each.tensors}
    pictures = {key: each.tensors["shown"] for key, each in kept.items() if "shown" in each.tensors}
    told = reference._asdict() | {"method": METHOD, "error": {"median": reference.median, "rms": reference.rms}}
    results = {
        "format": FORMAT,
        "model": facts_of(model) | {"fingerprint": bench.identity["model"]},
        "settings": {
            "methods": list(chosen),
            "nfe": sorted({c.nfe for c in cells if c.nfe}),
            "tols": sorted({c.tol for c in cells if c.tol}),
            "grids": list(grids),
            "etas": list(dict.fromkeys(c.eta for c in cells if c.eta is not None)),
            "batch_size": batch_size,
            **{name: bench.identity[name] for name in ("seeds", "labels", "guidance", "dtype", "features")},
            "real": None if real is None else {"what": "images", "count": len(real)},
        },
        "versions": circumstances()["versions"],
        "command": command,
        "reference": {name: told[name] for name in ("method", "tol", "nfe_mean", "wanted", "agreed", "error")}
        | {"dtype": "float64"},
        "rows": [row.to_dict() for row in rows],
        "best": best(rows, errors, sorted({c.nfe for c in cells if c.nfe})),
        "timing": {
            **_spent(bench, time.perf_counter() - begin),
            "date": date.today().isoformat(),
            "machine": _machine(model.device),
            "threads": torch.get_num_threads(),
        },
    }
    return Study(rows, finite(results), {**pictures, "reference": shown(reference.x)} if pictures else {})


def facts_of(model: Model) -> dict[str, Any]:
    """What a study says of its model; None for what a model does not tell."""
    inner = model.model if isinstance(model, Guided) else model
    net = inner.net if isinstance(inner, Denoiser) else None
    folder = inner.info.get("folder") if isinstance(inner, Denoiser) else None
    steps = model.path.num_timesteps
    return {
        "name": Path(folder).resolve().name if folder else "model",
        "shape": list(model.shape),
        "classes": model.num_classes,
        "predicts": inner.predicts if isinstance(inner, Denoiser) else None,
        "schedule": f"{steps} timesteps" if steps else type(model.path).__name__.lower(),
        "sigma_min": model.sigma_min,
        "sigma_max": model.sigma_max,
        "parameters": sum(p.numel() for p in net.parameters()) if isinstance(net, nn.Module) else None,
    }


def _teller(callback: Callable[[StudyProgress], None] | None, done: int, total: int) -> Callable[[str, float], None]:
    if callback is None:
        return lambda what, share: None

    def tell(what: str, share: float) -> None:
        try:
            callback(StudyProgress(what, done, total, share))
        except Exception as error:
            raise Stopped(error) from error

    return tell


def _spent(bench: Bench, seconds: float) -> dict[str, float | None]:
    """Of this run; what an earlier one has measured cost nothing."""
    network = bench.meter.seconds
    return {
        "seconds": seconds,
        "network_seconds": network,
        "ratio": seconds / network if network else None,
        "evaluations": bench.meter.evaluations,
    }


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores, {platform.machine()}"
