"""A finished study: its findings by name, on disk and read back."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.data import png_of
from ddim_ode.errors import unknown
from ddim_ode.models.denoiser import Model
from ddim_ode.models.provenance import describe, provenance_of
from ddim_ode.study.archive import IDENTITY, KIND, is_ours
from ddim_ode.study.cells import EtaValue, StudyError
from ddim_ode.study.measure import SHOWN
from ddim_ode.study.meter import Cost
from ddim_ode.study.reference import METHOD, Reference
from ddim_ode.study.rows import Best, Row
from ddim_ode.study.schema import SchemaError, read
from ddim_ode.support.checks import as_path, of_kind
from ddim_ode.support.files import OutputError, reported
from ddim_ode.support.outputs import added, going_on
from ddim_ode.support.reading import read_json
from ddim_ode.support.records import SEAL, finite, seal, unsealed, write_json
from ddim_ode.support.tensors import read_tensors, write_tensors

FORMAT = 1
RESULTS, PICTURES = "results.json", "pictures.safetensors"
FILES = ("report.html", RESULTS, "results.csv", PICTURES, "work_precision.png", "sheet.png")
AGAIN = "run the same study again with this --out, which measures nothing that is kept"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The model of a study. None stands for a fact that the model does not tell, and for an infinite sigma."""

    name: str
    shape: list[int]
    classes: int
    predicts: str | None
    schedule: str
    sigma_min: float | None
    sigma_max: float | None
    parameters: int | None
    fingerprint: str

    @classmethod
    def of(cls, model: Model, fingerprint: str) -> "ModelFacts":
        """The facts of a model, guided or not."""
        facts, origin = describe(model), provenance_of(model)
        steps, (low, high) = facts["timesteps"], facts["sigma_range"]
        name = facts["schedule"].lower() if origin or not steps else ""  # a table of one's own has no name
        return cls(
            name=Path(origin.folder).resolve().name if origin else "model",
            schedule=", ".join(filter(None, (name, f"{steps} timesteps" if steps else ""))),
            sigma_min=low,
            sigma_max=high,
            fingerprint=fingerprint,
            **{name: facts[name] for name in ("shape", "classes", "predicts", "parameters")},
        )


@dataclass(frozen=True)
class RealFacts:
    """The real images that samples are measured against."""

    what: str
    count: int


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """The choices that a study was made with.

    own_grids: name of a method -> its own grid; adaptive ones have none.
    guidance_range: [low, high] in sigma, an open end is None; or None where guidance acts everywhere.
    conditions: a digest of each condition, by its name.
    """

    methods: list[str]
    nfe: list[int]
    tols: list[float]
    grids: list[str]
    own_grids: dict[str, str]
    etas: list[EtaValue]
    batch_size: int | None
    seeds: list[int]
    labels: list[int] | None
    guidance: float
    guidance_range: list[float | None] | None
    dtype: str
    features: str | None
    real: RealFacts | None
    conditions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnErrors:
    """The reference's own error, estimated, over the samples; each RMS over a sample."""

    median: float
    rms: float


@dataclass(frozen=True, kw_only=True)
class ReferenceFacts:
    """How the reference was solved, and how exact it is; see `study.reference.Reference`."""

    method: str
    tol: float
    nfe_mean: float
    wanted: float
    agreed: bool
    error: OwnErrors
    dtype: str

    @classmethod
    def of(cls, found: Reference) -> "ReferenceFacts":
        """The facts of a reference, without its samples."""
        return cls(
            method=METHOD,
            **{name: getattr(found, name) for name in ("tol", "nfe_mean", "wanted", "agreed")},
            error=OwnErrors(found.median, found.rms),
            dtype="float64",
        )


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison.

    versions: of the packages that measured it last. command: how to make the same study again.
    best: at each budget the row of the smallest median error, and those that tie with it.
    pictures: key of a row, or "reference" -> (up to 8, C, H, W) bytes of the first samples, where they are pictures.
    """

    model: ModelFacts
    settings: StudySettings
    versions: dict[str, str]
    command: str | None
    reference: ReferenceFacts
    rows: tuple[Row, ...]
    best: list[Best]
    timing: Cost
    pictures: Mapping[str, Tensor]

    @property
    def results(self) -> dict[str, Any]:
        """The contents of results.json: everything but the pictures, in values that JSON has."""
        told = asdict(replace(self, pictures={}))
        del told["pictures"]
        return {"format": FORMAT, **finite(told)}

    def row(self, key: str) -> Row:
        """The row of a key. Raises StudyError where there is none."""
        of_kind("key", key, str, "that of a row")
        rows = {row.key: row for row in self.rows}
        if key not in rows:
            raise StudyError(unknown("row", key, rows))
        return rows[key]

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write report.html, results.json, results.csv and pictures into a folder, all of them or none.

        results.json comes last: where it is, the study is finished, and `load` reads it back.

        Raises OutputError: the folder cannot be written, holds files of these names that no study has left, or another
        study is at work in it.
        """
        folder, results = as_path("folder", folder, "folder"), self.results
        with reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _check_ours(folder)
        with ExitStack() as stack:
            if (folder / IDENTITY).exists():  # a study goes on there
                stack.enter_context(going_on(folder, IDENTITY, KIND, {}))
            scratch = stack.enter_context(added(folder, RESULTS))
            self._write(scratch, results)
            written = {file.name for file in scratch.iterdir()}
        return [folder / name for name in FILES if name in written]

    def _write(self, folder: Path, results: dict[str, Any]) -> None:
        """Write the files into an empty folder."""
        from ddim_ode.study.report.page import write_csv, write_report
        from ddim_ode.study.report.plots import save_sheet, save_work_precision

        strips, digest = {key: png_of(pictures) for key, pictures in self.pictures.items()}, seal(results)
        write_report(folder / "report.html", results, strips)
        write_csv(folder / "results.csv", results)
        if any(row.error for row in self.rows):
            save_work_precision(results, folder / "work_precision.png")
        if strips:
            write_tensors(folder / PICTURES, self.pictures, {"results": digest})
            save_sheet(results, strips, folder / "sheet.png")
        write_json(folder / RESULTS, {**results, SEAL: digest})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Study":
        """Read what `save` has written. An infinite number, which JSON does not have, is None.

        Raises StudyError: no such folder, a study that is not finished, files that are damaged or of another version.
        """
        file = as_path("folder", folder, "folder") / RESULTS
        if not os.path.exists(file):
            raise StudyError(_missing(Path(folder)))
        told = read_json(file, StudyError, AGAIN)
        digest, told = (told.get(SEAL), unsealed(told, file, StudyError)) if isinstance(told, dict) else (None, {})
        found = told.pop("format", None)
        if found != FORMAT:
            raise StudyError(f"{file} has format {found!r}, and this version reads format {FORMAT}; {AGAIN}")
        _add_what_was_not_told_at_first(told)
        try:
            study = read(cls, {**told, "pictures": {}}, "the study")
        except SchemaError as error:
            raise StudyError(f"{file}: {error}; {AGAIN}") from None
        return replace(study, pictures=study._pictures(file.with_name(PICTURES), digest))

    def _pictures(self, file: Path, digest: str | None) -> dict[str, Tensor]:
        """The pictures in a file, in the order of the rows; digest: of the results that they belong to, if known."""
        done = [row.key for row in self.rows if row.status == "done"]
        if not done or self.settings.features is None:  # samples that are no pictures have no features either
            return {}
        stored, metadata = read_tensors(file, StudyError, AGAIN, sealed=False)
        if digest and metadata.get("results", digest) != digest:
            raise StudyError(f"{file} is of other results than {RESULTS}; {AGAIN}")
        shape = (min(SHOWN, len(self.settings.seeds)), *self.model.shape)
        kinds = {key: (value.dtype, tuple(value.shape)) for key, value in stored.items()}
        wrong = [key for key in (*done, "reference") if kinds.get(key) != (torch.uint8, shape)]
        if wrong:
            raise StudyError(f"{file} has no pictures of {wrong[0]}; {AGAIN}")
        return {key: stored[key] for key in (*done, "reference")}

    def to_pandas(self) -> Any:
        """A pandas data frame, one row a cell, nested values as columns such as "error.median".

        Raises StudyError where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise StudyError("to_pandas needs pandas; pip install pandas") from None
        return pandas.json_normalize([row.to_dict() for row in self.rows])


def _check_ours(folder: Path) -> None:
    """Raise OutputError where a file would be replaced that no study has left."""
    here = [name for name in FILES if (folder / name).exists()]
    if here and not is_ours(folder, RESULTS):
        raise OutputError(f"{folder} holds {here[0]}, and no study of ours; choose another folder")


def _add_what_was_not_told_at_first(told: dict[str, Any]) -> None:
    """Complete the results of an earlier version."""
    if isinstance(settings := told.get("settings"), dict):
        settings.setdefault("guidance_range", None)
        settings.setdefault("own_grids", {})
    if isinstance(timing := told.get("timing"), dict):
        timing.setdefault("processes", 1)
        timing.setdefault("devices", [])
    for row in told["rows"] if isinstance(told.get("rows"), list) else []:
        if isinstance(row, dict):
            row.setdefault("grid_cost", None)


def _missing(folder: Path) -> str:
    """Why there is nothing to load."""
    if not os.path.isdir(folder):
        return f"{folder} is not a folder; give one that `ddim-ode compare --out` or `Study.save` has written"
    if os.path.isfile(folder / IDENTITY):
        return f"the study in {folder} is not finished; run it again with this --out, and it goes on where it was"
    return f"{folder} holds no study (no {RESULTS}); give one that `ddim-ode compare --out` has written"
