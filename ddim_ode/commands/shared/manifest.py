"""A run of `ddim-ode sample`: its settings, the files it leaves, and the manifest that recreates it bit for bit."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from ddim_ode.checkpoints import CheckpointError, load
from ddim_ode.commands.shared.parsing import pick_device
from ddim_ode.data import is_picture, save_grid, save_images
from ddim_ode.grids import Final
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.planning.tolerance import ends_for
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import Solution, get_method
from ddim_ode.support.counts import Spread, spread
from ddim_ode.support.dtypes import DTYPES
from ddim_ode.support.files import replacing
from ddim_ode.support.process import computing
from ddim_ode.support.records import finite, write_json
from ddim_ode.support.validation import ConfigError, Record, parse
from ddim_ode.support.versions import circumstances


class RunSettings(Record):
    """Everything that decides the samples, apart from the weights: `options`, in words that JSON has, and more."""

    model: str
    method: str
    nfe: int | None
    tol: float | None = None
    max_nfe: int | None = None
    seeds: tuple[int, ...]
    label: int | Literal["each"] | None
    guidance: float
    guidance_range: tuple[float, float | None] | None
    eta: float | Literal["ddpm_large"] | None = None
    eta_range: tuple[float, float | None] | None = None
    grid: str | tuple[float, ...] | None
    final: Final
    dtype: Literal["float32", "float64"]
    batch_size: int
    device: Literal["cpu", "cuda"]
    fast: bool = False

    @property
    def options(self) -> SolveOptions:
        """How to solve."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return SolveOptions(**values | {"dtype": DTYPES[self.dtype]})


#: the settings that are options, under the same names
OPTIONS = tuple(name for name in RunSettings.model_fields if name in SolveOptions.__dataclass_fields__)


class Weights(Record):
    """What tells a model from another."""

    sha256: str
    config: ModelConfig | None  # None: not a network of ours


def weights_of(model: Denoiser) -> Weights:
    """The weights of a model that was loaded."""
    assert model.provenance
    return Weights(sha256=model.provenance.sha256, config=model.provenance.config)


class Manifest(Record):
    """What `manifest.json` holds."""

    arguments: RunSettings
    model: Weights
    labels: tuple[int, ...] | None
    sigmas: tuple[float, ...]  # the grid; of an adaptive method its ends
    tol: float | None = None  # of an adaptive method, whether given or found for a budget
    nfe: Spread  # measured
    seconds: float
    threads: int = Field(ge=1)
    versions: dict[str, str]
    platform: str


@dataclass(frozen=True)
class Drawn:
    """Samples, and how they came to be."""

    solution: Solution
    sigmas: tuple[float, ...]  # as in Manifest
    labels: list[int] | None
    seconds: float
    threads: int


def draw(
    model: Denoiser, settings: RunSettings, record: Manifest | None = None, callback: Callback | None = None
) -> Drawn:
    """The samples that the settings ask for; with its record given, by an earlier run's grid or tolerance, and threads.

    Raises as `sample` does.
    """
    options = settings.options
    if record:
        options = replace(options, nfe=None, grid=record.sigmas, tol=record.tol)
    labels = _labels(settings, model.num_classes)
    if options.guidance != 1 and model.num_classes and settings.label is None:
        raise GuidanceError(f"guidance={settings.guidance:g} has no label to guide to; give --label 0 or --label each")
    with computing(record.threads if record else None):
        moved = model.to(settings.device, options.dtype)
        if settings.fast:
            moved = moved.fast()
            warm_up(moved, min(settings.batch_size, len(settings.seeds)))
        started = time.perf_counter()
        solution = sample_with(moved, options, seeds=settings.seeds, labels=labels, callback=callback)
        seconds, threads = time.perf_counter() - started, torch.get_num_threads()
    sigmas = ends_for(moved, options) if options.row.adaptive else solution.sigmas
    return Drawn(solution, tuple(sigmas.tolist()), labels, seconds, threads)


@torch.no_grad()  # as in a run: with gradients it would be compiled for again
def warm_up(model: Denoiser, count: int) -> None:
    """Compile a fast model by a pass of `count` samples, so that the time of a run is that of sampling."""
    labels = torch.zeros(count, dtype=torch.int64, device=model.device) if model.num_classes else None
    model(torch.zeros(count, *model.shape, device=model.device), 1.0, labels)


def _labels(settings: RunSettings, num_classes: int) -> list[int] | None:
    if settings.label is None:
        return None
    if not num_classes:
        raise SampleError("this model has no classes; leave --label out")
    return [i % num_classes if settings.label == "each" else settings.label for i in range(len(settings.seeds))]


def manifest(model: Denoiser, settings: RunSettings, drawn: Drawn) -> Manifest:
    """All that it takes to draw these samples again."""
    return Manifest(
        arguments=settings,
        model=weights_of(model),
        labels=None if drawn.labels is None else tuple(drawn.labels),
        sigmas=drawn.sigmas,
        tol=drawn.solution.tol,
        nfe=spread(drawn.solution.nfe),
        seconds=drawn.seconds,
        **circumstances() | {"threads": drawn.threads},
    )


def account(model: Denoiser, command: str, arguments: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """The `manifest.json` of another command: what was asked of which model, and what came of it."""
    record = {
        "command": command,
        "arguments": dict(arguments),
        "model": weights_of(model).model_dump(mode="json"),
        **facts,
        **circumstances(),
    }
    written: dict[str, Any] = finite(record)
    return written


def read_manifest(file: Path) -> Manifest:
    """A `manifest.json`. Raises ConfigError when it is missing or not valid."""
    try:
        values = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; give the manifest.json of a run") from None
    except ValueError as error:  # not JSON, or not text
        raise ConfigError(f"{file} is not valid JSON: {error}; give the manifest.json of a run") from None
    if isinstance(values, dict) and "command" in values:
        raise ConfigError(f"{file} is of `ddim-ode {values['command']}`; give the manifest.json of a sample run")
    return parse(Manifest, values, str(file))


def recall(file: Path) -> tuple[Denoiser, Manifest]:
    """What to `draw` to get a manifest's samples again, bit for bit on the same machine.

    The grid and the tolerance are those of the record, so that they are the same even if a later version places or
    finds them differently; so is the number of torch's threads, over which sums are split, and rounded accordingly.

    Raises:
        ConfigError: the manifest is missing or not valid.
        CheckpointError: the model is missing, or is not the one that was used.
    """
    wanted = read_manifest(file)
    settings = wanted.arguments
    pick_device(settings.device)
    if get_method(settings.method).adaptive != (wanted.tol is not None):
        rule = "needs the tolerance that was used" if wanted.tol is None else "has no tolerance"
        raise ConfigError(f"{file}: tol: {settings.method} {rule}; give the manifest.json of a run as it was written")
    model = load(settings.model)
    found = weights_of(model)
    if found.sha256 != wanted.model.sha256:
        raise CheckpointError(
            f"the weights of {settings.model} have sha256 {found.sha256}, but {file} was made with"
            f" {wanted.model.sha256}; put those weights back"
        )
    if found.config != wanted.model.config:
        raise CheckpointError(
            f"the configuration of {settings.model} (config.yaml in a folder of ours) is not what {file} was made with"
            "; put that one back"
        )
    return model, wanted


def write(
    folder: Path, model: Denoiser, settings: RunSettings, drawn: Drawn, images: bool = False, trace: bool = False
) -> Manifest:
    """Fill a run's folder: grid.png, samples.safetensors, manifest.json and, if asked for, images/ and trace.png."""
    solution = drawn.solution
    x = solution.x.cpu()
    tensors = {"x": x, "seeds": torch.tensor(settings.seeds), "sigmas": solution.sigmas}
    if drawn.labels is not None:
        tensors["labels"] = torch.tensor(drawn.labels)
    if get_method(settings.method).adaptive:
        tensors |= {"nfe": solution.nfe, "converged": solution.converged}
    write_samples(folder, tensors, columns=model.num_classes if settings.label == "each" else 8, images=images)
    if trace:
        from ddim_ode.commands.shared.pictures import save_trace

        save_trace(solution, settings.method, folder / "trace.png")
    record = manifest(model, settings, drawn)
    write_json(folder / "manifest.json", record.model_dump(mode="json"))
    return record


def write_samples(folder: Path, tensors: dict[str, Tensor], columns: int = 8, images: bool = False) -> None:
    """samples.safetensors, grid.png if its x are pictures and, if asked for, images/."""
    x = tensors["x"]
    if is_picture(x.shape[1:]):
        save_grid(x, folder / "grid.png", columns=min(columns, len(x)))
    if images:
        save_images(x, folder / "images")
    with replacing(folder / "samples.safetensors") as tmp:
        tmp.write_bytes(save(tensors))
