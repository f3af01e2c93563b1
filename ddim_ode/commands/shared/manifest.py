"""The settings of a run of `ddim-ode sample`, the manifest that recreates it bit for bit, accounts of other runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from ddim_ode.checkpoints import CheckpointError, is_local, load
from ddim_ode.commands.shared.parsing import pick_device
from ddim_ode.data import is_picture, save_grid, save_images
from ddim_ode.errors import one_line
from ddim_ode.grids import Final
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.tuned_schema import StoredMethod
from ddim_ode.support.counts import Spread
from ddim_ode.support.dtypes import DTYPES
from ddim_ode.support.process import MOST_THREADS
from ddim_ode.support.reading import read_json
from ddim_ode.support.records import finite, unsealed
from ddim_ode.support.tensors import write_tensors
from ddim_ode.support.validation import ConfigError, Record, parse
from ddim_ode.support.versions import circumstances

SAMPLES, PROFILE = "samples.safetensors", "profile.safetensors"


class RunSettings(Record):
    """Everything that decides the samples, apart from the weights: `options`, in words that JSON has, and more."""

    model: str
    method: str
    nfe: int | None
    tol: float | None = None
    max_nfe: int | None = None
    seeds: tuple[int, ...]
    label: int | str | None  # a class, "each", a file of them, "proportions:" and what has some
    guidance: float
    guidance_range: tuple[float, float | None] | None
    eta: float | Literal["ddpm_large"] | None = None
    eta_range: tuple[float, float | None] | None = None
    grid: str | tuple[float, ...] | None  # "auto" for a profile in a file too
    final: Final
    dtype: Literal["float32", "float64"]
    batch_size: int
    device: Literal["cpu", "cuda"]
    fast: bool = False
    tuned: StoredMethod | None = None  # where method is "tuned": all of it, whatever becomes of its file
    force: bool = False  # whether that may run on a model that it was not tuned to

    @property
    def options(self) -> SolveOptions:
        """How to solve."""
        values = {name: getattr(self, name) for name in OPTIONS}
        method = self.method if self.tuned is None else self.tuned.to_method(self.force)
        return SolveOptions(**values | {"dtype": DTYPES[self.dtype], "method": method})


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


class Shards(Record):
    """How samples in shards are kept, see `ddim_ode.shards`."""

    format: str
    shard_size: int


class Manifest(Record):
    """What `manifest.json` holds, besides its kind and seal."""

    arguments: RunSettings
    model: Weights
    labels: tuple[int, ...] | None
    sigmas: tuple[float, ...]  # the grid; of an adaptive method its ends
    tol: float | None = None  # of an adaptive method, whether given or found for a budget
    nfe: Spread  # measured
    seconds: float
    threads: int = Field(ge=1, le=MOST_THREADS)
    versions: dict[str, str]
    platform: str
    shards: Shards | None = None  # None: they are in one file
    files: dict[str, int] = Field(default_factory=dict)  # bytes of what is in the folder; the first manifests had none


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
    """A `manifest.json`. Raises ConfigError when it is missing, not valid, or not as it was written."""
    remedy = "give the manifest.json of a sample run"
    values = read_json(file, ConfigError, remedy)
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is no manifest; {remedy}")
    if "command" in values:
        raise ConfigError(f"{file} is of `ddim-ode {one_line(str(values['command']), 40)}`; {remedy}")
    return parse(Manifest, unsealed(values, file, ConfigError), str(file))


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
    if settings.options.row.adaptive != (wanted.tol is not None):
        rule = "needs the tolerance that was used" if wanted.tol is None else "has no tolerance"
        raise ConfigError(f"{file}: tol: {settings.method} {rule}; give the manifest.json of a run as it was written")
    try:
        model = load(settings.model, offline=True)
    except CheckpointError:
        if is_local(settings.model):
            raise
        raise CheckpointError(
            f"{file}: the model {settings.model!r} is not on this machine, and is not fetched because a file names it"
            f"; if you trust it, fetch it first: ddim-ode info {settings.model}"
        ) from None
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


def write_samples(folder: Path, tensors: dict[str, Tensor], columns: int = 8, images: bool = False) -> None:
    """samples.safetensors, grid.png if its x are pictures and, if asked for, images/."""
    x = tensors["x"]
    if is_picture(x.shape[1:]):
        save_grid(x, folder / "grid.png", columns=min(columns, len(x)))
    if images:
        save_images(x, folder / "images")
    write_tensors(folder / SAMPLES, tensors)
