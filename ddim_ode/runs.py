"""A run of `ddim-ode sample`: its settings, the files it leaves, and the manifest that recreates it bit for bit."""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import Tensor

from ddim_ode.checkpoints import CheckpointError, load
from ddim_ode.config import ConfigError, ModelConfig, parse
from ddim_ode.denoiser import Denoiser
from ddim_ode.files import replacing
from ddim_ode.grids import Final
from ddim_ode.guidance import GuidanceError, Guided
from ddim_ode.images import save_grid, save_images
from ddim_ode.jobs import Progress
from ddim_ode.latents import DTYPES
from ddim_ode.options import pick_device
from ddim_ode.outputs import write_json
from ddim_ode.planning import SampleError, span
from ddim_ode.sampling import sample
from ddim_ode.solvers import Adaptive, Solution, get_method
from ddim_ode.solvers.adaptive import TorchDiffEq


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(Record):
    """Everything that decides the samples, apart from the weights."""

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


class Weights(Record):
    sha256: str
    config: ModelConfig | None  # None: not a network of ours


class Spread(Record):
    """Of a count, over the samples. The first manifests had no median and mean."""

    min: int
    median: float | None = None
    max: int
    mean: float | None = None


def spread(counts: Tensor) -> Spread:
    n = counts.numpy()
    return Spread(min=int(n.min()), median=float(np.median(n)), max=int(n.max()), mean=float(n.mean()))


class Manifest(Record):
    """What `manifest.json` holds."""

    arguments: Settings
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


def draw(
    model: Denoiser,
    settings: Settings,
    record: Manifest | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Drawn:
    """The samples that the settings ask for, with the grid or the tolerance of an earlier run if its record is given.

    Raises as `sample` does.
    """
    if settings.guidance_range and settings.guidance == 1:
        raise GuidanceError("a guidance range does nothing with guidance=1; give another --guidance")
    labels = _labels(settings, model.num_classes)
    dtype = DTYPES[settings.dtype]
    moved = model.to(settings.device, dtype)
    if settings.fast:
        moved = moved.fast()
        warm_up(moved, min(settings.batch_size, len(settings.seeds)))
    grid = record.sigmas if record else settings.grid
    started = time.perf_counter()
    solution = sample(
        moved if settings.guidance == 1 else _guided(moved, settings),
        method=settings.method,
        nfe=None if record else settings.nfe,
        seeds=settings.seeds,
        labels=labels,
        grid=grid,
        final=settings.final,
        dtype=dtype,
        batch_size=settings.batch_size,
        callback=callback,
        tol=record.tol if record else settings.tol,
        max_nfe=settings.max_nfe,
        eta=settings.eta,
        eta_range=settings.eta_range and (settings.eta_range[0], _open(settings.eta_range[1])),
    )
    seconds = time.perf_counter() - started
    adaptive = get_method(settings.method).adaptive
    sigmas = span(moved, settings.method, grid, settings.final) if adaptive else solution.sigmas
    return Drawn(solution, tuple(sigmas.tolist()), labels, seconds)


@torch.no_grad()  # as in a run: with gradients it would be compiled for again
def warm_up(model: Denoiser, count: int) -> None:
    """Compile a fast model by a pass of `count` samples, so that the time of a run is that of sampling."""
    labels = torch.zeros(count, dtype=torch.int64, device=model.device) if model.num_classes else None
    model(torch.zeros(count, *model.shape, device=model.device), 1.0, labels)


def _open(high: float | None) -> float:
    """The upper end of a range; JSON has no infinity."""
    return math.inf if high is None else high


def _guided(model: Denoiser, settings: Settings) -> Guided:
    low, high = settings.guidance_range or (0.0, None)
    guided = Guided(model, settings.guidance, (low, _open(high)))
    if settings.label is None:
        raise GuidanceError(f"guidance={settings.guidance:g} has no label to guide to; give --label 0 or --label each")
    return guided


def _labels(settings: Settings, num_classes: int) -> list[int] | None:
    if settings.label is None:
        return None
    if not num_classes:
        raise SampleError("this model has no classes; leave --label out")
    return [i % num_classes if settings.label == "each" else settings.label for i in range(len(settings.seeds))]


def manifest(model: Denoiser, settings: Settings, drawn: Drawn) -> Manifest:
    """All that it takes to draw these samples again."""
    return Manifest(
        arguments=settings,
        model=Weights(sha256=model.info["sha256"], config=model.info.get("config")),
        labels=None if drawn.labels is None else tuple(drawn.labels),
        sigmas=drawn.sigmas,
        tol=drawn.solution.tol,
        nfe=spread(drawn.solution.nfe),
        seconds=drawn.seconds,
        **circumstances(),
    )


def circumstances() -> dict[str, Any]:
    """Where the numbers were computed, and by what."""
    names = ("ddim_ode", "torch", "torchdiffeq", "torchsde", "numpy")
    return {
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
        "platform": platform.platform(),
    }


def account(model: Denoiser, command: str, arguments: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """The `manifest.json` of another command: what was asked of which model, and what came of it."""
    weights = Weights(sha256=model.info["sha256"], config=model.info.get("config"))
    return {
        "command": command,
        "arguments": dict(arguments),
        "model": weights.model_dump(mode="json"),
        **facts,
        **circumstances(),
    }


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
    finds them differently. Torch is set to as many threads as then: sums are split over them, and rounded accordingly.

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
    if model.info["sha256"] != wanted.model.sha256:
        raise CheckpointError(
            f"the weights of {settings.model} have sha256 {model.info['sha256']}, but {file} was made with"
            f" {wanted.model.sha256}; put those weights back"
        )
    if model.info.get("config") != wanted.model.config:
        raise CheckpointError(
            f"the configuration of {settings.model} (config.yaml in a folder of ours) is not what {file} was made with"
            "; put that one back"
        )
    torch.set_num_threads(wanted.threads)
    return model, wanted


def has_pictures(model: Denoiser) -> bool:
    """Whether its samples can be written as PNG."""
    return is_picture(model.shape)


def is_picture(shape: Sequence[int]) -> bool:
    """Of a grey or an RGB image."""
    return len(shape) == 3 and shape[0] in (1, 3)


def has_trace(method: str) -> bool:
    """Whether there are steps to draw: those that an adaptive method has chosen, and has told of."""
    solver = get_method(method).solver
    return isinstance(solver, Adaptive) and not (isinstance(solver, TorchDiffEq) and solver.scipy)


def write(
    folder: Path, model: Denoiser, settings: Settings, drawn: Drawn, images: bool = False, trace: bool = False
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
        from ddim_ode.plots import save_trace  # matplotlib takes a second to import

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
