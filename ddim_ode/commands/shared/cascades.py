"""A run of a cascade: what is asked of its stages, its samples in a folder, and the manifest that recreates them."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ddim_ode.cascade import Cascade, CascadeError, CascadeSolution, bundled_cascades
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.manifest import Weights, weights_of, write_samples
from ddim_ode.commands.shared.parsing import parse_numbers
from ddim_ode.data import is_picture, save_grid
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.image_condition import resized
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.planning.tolerance import ends_for
from ddim_ode.support.checks import shown
from ddim_ode.support.counts import Spread, spread
from ddim_ode.support.dtypes import DTYPES
from ddim_ode.support.outputs import finish
from ddim_ode.support.process import MOST_THREADS, computing
from ddim_ode.support.reading import read_json
from ddim_ode.support.records import KIND, unsealed
from ddim_ode.support.validation import ConfigError, Record, parse
from ddim_ode.support.versions import circumstances

COMMAND = "cascade"
RECORDED = f"ddim_ode {COMMAND} 1"
SHOWN = 10  # samples of which all stages are shown
REMEDY = "give the manifest.json of a cascade's run"


class StageSettings(Record):
    """How a stage is solved."""

    method: str
    nfe: int | None = None
    tol: float | None = None


class CascadeSettings(Record):
    """Everything that decides the samples, apart from the weights."""

    model: str
    stages: tuple[StageSettings, ...]
    seeds: tuple[int, ...]
    label: int | Literal["each"] | None
    guidance: float
    augmentation: tuple[float, ...]
    dtype: Literal["float32", "float64"]
    batch_size: int | None
    device: Literal["cpu", "cuda"]

    @property
    def options(self) -> list[SolveOptions]:
        """How to solve each stage. Raises as `SolveOptions`."""
        common: dict[str, Any] = {"dtype": DTYPES[self.dtype], "batch_size": self.batch_size, "guidance": self.guidance}
        return [SolveOptions(**stage.model_dump(), **common) for stage in self.stages]


class StageFacts(Record):
    """What a stage did: its grid, of an adaptive method the ends of it, and what it cost."""

    sigmas: tuple[float, ...]
    tol: float | None
    nfe: Spread
    weight: float  # of a pass, in those of the largest network


class CascadeManifest(Record):
    """What the `manifest.json` of a cascade holds, besides its kind and seal."""

    arguments: CascadeSettings
    models: tuple[Weights, ...]
    labels: tuple[int, ...] | None
    stages: tuple[StageFacts, ...]
    equivalents: float  # mean passes of the largest network
    seconds: float
    threads: int = Field(ge=1, le=MOST_THREADS)
    versions: dict[str, str]
    platform: str
    files: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """The samples of a cascade, how they were told to be drawn, and how long it took."""

    solution: CascadeSolution
    options: list[SolveOptions]
    labels: list[int] | None
    seconds: float
    threads: int


def parse_stages(text: str | None, count: int, otherwise: StageSettings) -> tuple[StageSettings, ...]:
    """Methods and budgets in words, "ddim:20,adaptive:tol=0.01", one a stage; without a text the same for all.

    Raises CascadeError.
    """
    if text is None:
        return (otherwise,) * count
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count:
        raise CascadeError(f"stages={shown(text)} are {len(parts)}, and this cascade has {count}; give METHOD:NFE each")
    return tuple(_stage(part, text) for part in parts)


def _stage(part: str, text: str) -> StageSettings:
    method, _, budget = part.partition(":")
    try:
        if budget.startswith("tol="):
            return StageSettings(method=method, tol=float(budget.removeprefix("tol=")))
        return StageSettings(method=method, nfe=int(budget) if budget else None)
    except ValueError:
        raise CascadeError(
            f"stages={shown(text)}: {shown(part)} is neither METHOD:NFE nor METHOD:tol=TOL; write it as in"
            " ddim:20,adams3:8"
        ) from None


def named(model: str) -> str:
    """How a manifest calls it: by the name of a bundled one, or by where it is."""
    return model if model in bundled_cascades() else str(Path(model).resolve())


def labels_for(cascade: Cascade, label: int | Literal["each"] | None, count: int) -> list[int] | None:
    """The class of each sample. Raises SampleError where there are none."""
    if label is None:
        return None
    if not cascade.num_classes:
        raise SampleError("this cascade has no classes; leave --label out")
    return [i % cascade.num_classes if label == "each" else label for i in range(count)]


def levels_of(cascade: Cascade, text: str | None) -> tuple[float, ...]:
    """The noise told to the stages that are told images: of a text for all, or between commas; else the cascade's own.

    Raises CascadeError, SampleError.
    """
    if text is None:
        return cascade.levels
    numbers = parse_numbers("augmentation", text, float)
    return Cascade(cascade.stages, numbers if len(numbers) > 1 else numbers[0]).levels if numbers else cascade.levels


def moved(cascade: Cascade, device: str, dtype: torch.dtype) -> Cascade:
    """The cascade where it is to run."""
    stages = [stage.to(device, dtype) if isinstance(stage, Denoiser) else stage for stage in cascade.stages]
    return Cascade(stages, cascade.levels)


def draw(
    cascade: Cascade, settings: CascadeSettings, record: CascadeManifest | None = None, callback: Callback | None = None
) -> Drawn:
    """Draw the samples that the settings ask for; with an earlier run's record by its grids, tolerances and threads.

    Raises as `Cascade.sample` does.
    """
    options = settings.options
    if record:
        options = [
            replace(option, nfe=None, tol=facts.tol, grid=facts.sigmas)
            for option, facts in zip(options, record.stages, strict=True)
        ]
    labels = labels_for(cascade, settings.label, len(settings.seeds))
    chain = moved(Cascade(cascade.stages, settings.augmentation), settings.device, DTYPES[settings.dtype])
    with computing(record.threads if record else None):
        assert chain.weights  # which are counted before the clock runs
        started = time.perf_counter()
        solution = chain.sample(options, settings.seeds, labels=labels, callback=callback)
        return Drawn(solution, options, labels, time.perf_counter() - started, torch.get_num_threads())


def write(folder: Path, cascade: Cascade, settings: CascadeSettings, drawn: Drawn, images: bool) -> CascadeManifest:
    """samples.safetensors, grid.png, stages.png with the images of all stages of the first samples, manifest.json."""
    solution = drawn.solution
    tensors = {"x": solution.x.cpu(), "seeds": torch.tensor(settings.seeds), "nfe": solution.nfe}
    tensors |= {f"x{k + 1}": stage.x.cpu() for k, stage in enumerate(solution.stages[:-1])}
    if drawn.labels is not None:
        tensors["labels"] = torch.tensor(drawn.labels)
    write_samples(folder, tensors, (cascade.num_classes or 8) if settings.label == "each" else 8, images)
    if is_picture(cascade.shape):
        one_above_another([stage.x.cpu() for stage in solution.stages], folder / "stages.png")
    record = CascadeManifest(
        arguments=settings,
        models=tuple(weights_of(stage) for stage in cascade.stages if isinstance(stage, Denoiser)),
        labels=None if drawn.labels is None else tuple(drawn.labels),
        stages=tuple(
            StageFacts(
                sigmas=tuple((ends_for(stage, option) if option.row.adaptive else found.sigmas).tolist()),
                tol=found.tol,
                nfe=spread(found.nfe),
                weight=weight,
            )
            for stage, option, found, weight in zip(
                cascade.stages, drawn.options, solution.stages, solution.weights, strict=True
            )
        ),
        equivalents=float(solution.equivalents.mean()),
        seconds=drawn.seconds,
        **circumstances() | {"threads": drawn.threads},
    )
    finish(folder, COMMAND, record.model_dump(mode="json", exclude={"files"}))
    return record


def one_above_another(rows: list[Tensor], file: Path, columns: int = SHOWN) -> None:
    """A sheet of the first samples, a column each, of images (B, C, h, w) of several sizes, all drawn as large."""
    size = rows[-1].shape[-2:]
    whole = [all(side % small == 0 for side, small in zip(size, x.shape[-2:], strict=True)) for x in rows]
    large = [
        _repeated(x[:columns], size) if fits else resized(x[:columns], (size[0], size[1]))
        for x, fits in zip(rows, whole, strict=True)
    ]
    save_grid(torch.cat(large).float(), file, columns=len(large[0]))


def _repeated(x: Tensor, size: torch.Size) -> Tensor:
    return x.repeat_interleave(size[0] // x.shape[-2], -2).repeat_interleave(size[1] // x.shape[-1], -1)


def is_cascade_run(file: Path) -> bool:
    """Whether a manifest.json is of a cascade."""
    found = read_json(file, ConfigError, "give the manifest.json of a run")
    return isinstance(found, dict) and found.get(KIND) == RECORDED


def recall(file: Path) -> tuple[Cascade, CascadeManifest]:
    """What to `draw` to get a manifest's samples again, bit for bit on the same machine.

    Raises:
        ConfigError: the manifest is not valid, or not as it was written.
        CascadeError, CheckpointError: the cascade is missing, or has other weights.
    """
    found_there = unsealed(read_json(file, ConfigError, REMEDY), file, ConfigError)
    wanted = parse(CascadeManifest, found_there, str(file))
    cascade = Cascade.load(wanted.arguments.model, offline=True)
    found = tuple(weights_of(stage) for stage in cascade.stages if isinstance(stage, Denoiser))
    if found != wanted.models:
        raise CheckpointError(
            f"the weights or the configuration of {wanted.arguments.model} are not those that {file} was made with; put"
            " those back"
        )
    return cascade, wanted


def costs(record: CascadeManifest) -> str:
    """NFE by stage, and in passes of the largest network."""
    each = " + ".join(display.cost(stage.nfe) for stage in record.stages)
    return f"measured NFE {each}, as {record.equivalents:.3g} passes of the largest network"


def report(out: Path, record: CascadeManifest, as_json: bool) -> None:
    """What a run has written, and what it cost."""
    files = display.files_in(out) | ({"stages": str(out / "stages.png")} if (out / "stages.png").is_file() else {})
    count = len(record.arguments.seeds)
    if as_json:
        nfe = [stage.nfe.model_dump() for stage in record.stages]
        spent = {"nfe": nfe, "weights": [s.weight for s in record.stages], "equivalents": record.equivalents}
        display.print_json({"out": str(out), **files, "count": count, **spent, "seconds": record.seconds})
    else:
        display.say(*[files[name] for name in ("grid", "stages") if name in files] or [str(out)])
        print(f"{display.many(count, 'samples')}, {costs(record)}, {record.seconds:.2f} s")
