"""A run of `ddim-ode sample`: its settings, the files it leaves, and the manifest that recreates it bit for bit."""

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save

from ddim_ode.checkpoints import CheckpointError, load
from ddim_ode.config import ConfigError, ModelConfig, parse
from ddim_ode.denoiser import Denoiser
from ddim_ode.errors import unknown
from ddim_ode.files import replacing
from ddim_ode.grids import GRIDS, Final, GridError
from ddim_ode.guidance import GuidanceError, Guided
from ddim_ode.images import save_grid, save_images
from ddim_ode.planning import SampleError
from ddim_ode.sampling import Progress, sample
from ddim_ode.solvers import Solution, get_method

DEFAULT_COUNT = 16
MOST = 10_000_000


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(Record):
    """Everything that decides the samples, apart from the weights."""

    model: str
    method: str
    nfe: int | None
    seeds: tuple[int, ...]
    label: int | Literal["each"] | None
    guidance: float
    guidance_range: tuple[float, float | None] | None
    grid: str | tuple[float, ...] | None
    final: Final
    dtype: Literal["float32", "float64"]
    batch_size: int
    device: Literal["cpu", "cuda"]


class Weights(Record):
    sha256: str
    config: ModelConfig


class Spent(Record):
    min: int
    max: int


class Manifest(Record):
    """What `manifest.json` holds."""

    arguments: Settings
    model: Weights
    labels: tuple[int, ...] | None
    sigmas: tuple[float, ...]
    nfe: Spent  # measured, over the samples
    seconds: float
    threads: int = Field(ge=1)
    versions: dict[str, str]
    platform: str


@dataclass(frozen=True)
class Drawn:
    """Samples, and how they came to be."""

    solution: Solution
    labels: list[int] | None
    seconds: float


def parse_seeds(text: str | None, count: int | None) -> tuple[int, ...]:
    """The seeds of "0-63", "0,5,9", "3" or a mixture; a count alone means 0..count-1. Raises SampleError."""
    if count is not None and count < 1:
        raise SampleError(f"n={count} must be a whole number >= 1")
    if text is None:
        text = f"0-{(count or DEFAULT_COUNT) - 1}"
    ranges = []
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        if not (low.isdecimal() and (high.isdecimal() or not dash)) or len(part) > 50:
            raise SampleError(f"seeds={text!r}: {part!r} is no seed; give whole numbers, as in 0-63 or 0,5,9 or 3")
        ranges.append(range(int(low), int(high or low) + 1))
        if not ranges[-1]:
            raise SampleError(f"seeds={text!r}: the range {part} is empty; write it as {high}-{low}")
    total = sum(r.stop - r.start for r in ranges)
    if total > MOST:
        raise SampleError(f"{total} samples are too many for one run; ask for at most {MOST} at a time")
    if count not in (None, total):
        raise SampleError(f"n={count} contradicts seeds={text!r}, which are {total}; leave one of them out")
    return tuple(seed for r in ranges for seed in r)


def parse_label(text: str | None) -> int | Literal["each"] | None:
    """A class, or "each" for 0, 1, 2, ... in turn. Raises SampleError."""
    if text is None:
        return None
    if text == "each":
        return "each"
    try:
        if len(text) > 9:
            raise ValueError
        return int(text)
    except ValueError:
        raise SampleError(f"label={text!r} is no class; give a whole number, or 'each' for all in turn") from None


def parse_grid(text: str | None) -> str | tuple[float, ...] | None:
    """A grid's name, or sigmas between commas. Raises GridError."""
    if text is None or text in GRIDS:
        return text
    if "," not in text:
        raise GridError(unknown("grid", text, GRIDS) + "; or give decreasing sigmas, as in 80,10,1,0")
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise GridError(f"grid={text!r} is not a list of numbers; write decreasing sigmas, as in 80,10,1,0") from None


def parse_guidance_range(text: str | None) -> tuple[float, float | None] | None:
    """LOW:HIGH in sigma; an end left out is open. Raises GuidanceError."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low or 0), float(high) if high else None
    except ValueError:
        raise GuidanceError(f"the guidance range {text!r} is not LOW:HIGH; write it as in 0.1:10") from None


def pick_device(name: str) -> Literal["cpu", "cuda"]:
    """ "auto" is the GPU where there is one. Raises SampleError when a GPU is asked for and there is none."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise SampleError("device='cuda': torch finds no GPU here; use device='cpu'")
    return "cuda"


def draw(
    model: Denoiser,
    settings: Settings,
    sigmas: tuple[float, ...] | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Drawn:
    """The samples that the settings ask for, on an explicit grid if `sigmas` are given. Raises as `sample` does."""
    if settings.guidance_range and settings.guidance == 1:
        raise GuidanceError("a guidance range does nothing with guidance=1; give another --guidance")
    labels = _labels(settings, model.num_classes)
    dtype = {"float32": torch.float32, "float64": torch.float64}[settings.dtype]
    moved = model.to(settings.device, dtype)
    started = time.perf_counter()
    solution = sample(
        moved if settings.guidance == 1 else _guided(moved, settings),
        method=settings.method,
        nfe=settings.nfe if sigmas is None else None,
        seeds=settings.seeds,
        labels=labels,
        grid=settings.grid if sigmas is None else sigmas,
        final=settings.final,
        dtype=dtype,
        batch_size=settings.batch_size,
        callback=callback,
    )
    return Drawn(solution, labels, time.perf_counter() - started)


def _guided(model: Denoiser, settings: Settings) -> Guided:
    low, high = settings.guidance_range or (0.0, None)
    guided = Guided(model, settings.guidance, (low, math.inf if high is None else high))
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
    names = ("ddim_ode", "torch", "torchdiffeq", "numpy")
    nfe = drawn.solution.nfe
    return Manifest(
        arguments=settings,
        model=Weights(sha256=model.info["sha256"], config=model.info["config"]),
        labels=None if drawn.labels is None else tuple(drawn.labels),
        sigmas=tuple(drawn.solution.sigmas.tolist()),
        nfe=Spent(min=int(nfe.min()), max=int(nfe.max())),
        seconds=drawn.seconds,
        threads=torch.get_num_threads(),
        versions={name: version(name) for name in names} | {"python": platform.python_version()},
        platform=platform.platform(),
    )


def read_manifest(file: Path) -> Manifest:
    """A `manifest.json`. Raises ConfigError when it is missing or not valid."""
    try:
        values = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; give the manifest.json of a run") from None
    except ValueError as error:  # not JSON, or not text
        raise ConfigError(f"{file} is not valid JSON: {error}; give the manifest.json of a run") from None
    return parse(Manifest, values, str(file))


def recall(file: Path) -> tuple[Denoiser, Settings, tuple[float, ...] | None]:
    """What to `draw` to get a manifest's samples again, bit for bit on the same machine.

    The sigmas come with it, so that the grid is the same even if a later version places it differently. Torch is
    set to as many threads as then: sums are split over them, and rounded accordingly.

    Raises:
        ConfigError: the manifest is missing or not valid.
        CheckpointError: the model is missing, or is not the one that was used.
    """
    wanted = read_manifest(file)
    settings = wanted.arguments
    pick_device(settings.device)
    model = load(settings.model)
    if model.info["sha256"] != wanted.model.sha256:
        raise CheckpointError(
            f"the weights of {settings.model} have sha256 {model.info['sha256']}, but {file} was made with"
            f" {wanted.model.sha256}; put those weights back"
        )
    if model.info["config"] != wanted.model.config:
        raise CheckpointError(f"{settings.model}/config.yaml is not what {file} was made with; put that one back")
    torch.set_num_threads(wanted.threads)
    return model, settings, None if get_method(settings.method).adaptive else wanted.sigmas


def describe(model: Denoiser) -> dict[str, Any]:
    """What `ddim-ode info` shows."""
    config, file = model.info["config"], Path(model.info["file"])
    network = config.network
    assert isinstance(model.net, torch.nn.Module)  # `load` gives no other
    return {
        "shape": list(model.shape),
        "classes": model.num_classes,
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "description": f"UNet of {', '.join(map(str, network.channels))} channels, {config.schedule.name} schedule",
        "predicts": model.predicts,
        "schedule": config.schedule.name,
        "timesteps": config.schedule.timesteps,
        "sigma_range": [model.sigma_min, model.sigma_max],
        "weights": str(file),
        "bytes": file.stat().st_size,
        "sha256": model.info["sha256"],
    }


def has_pictures(model: Denoiser) -> bool:
    """Whether its samples can be written as PNG: grey or RGB images."""
    return len(model.shape) == 3 and model.shape[0] in (1, 3)


def write(folder: Path, model: Denoiser, settings: Settings, drawn: Drawn, images: bool = False) -> Manifest:
    """Fill a run's folder: grid.png, samples.safetensors, manifest.json and, if asked for, images/00000.png, ..."""
    solution = drawn.solution
    x = solution.x.cpu()
    tensors = {"x": x, "seeds": torch.tensor(settings.seeds), "sigmas": solution.sigmas}
    if drawn.labels is not None:
        tensors["labels"] = torch.tensor(drawn.labels)
    columns = model.num_classes if settings.label == "each" else 8
    if has_pictures(model):
        save_grid(x, folder / "grid.png", columns=min(columns, len(x)))
    if images:
        save_images(x, folder / "images")
    with replacing(folder / "samples.safetensors") as tmp:
        tmp.write_bytes(save(tensors))
    record = manifest(model, settings, drawn)
    with replacing(folder / "manifest.json") as tmp:
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.model_dump(mode="json").items())
        tmp.write_text("{\n  " + ",\n  ".join(lines) + "\n}\n")
    return record
