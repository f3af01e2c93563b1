"""What an image is encoded to, kept with all that it takes to come back: `Latent`, in memory and on disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ddim_ode.arguments import index
from ddim_ode.config import parse
from ddim_ode.denoiser import Denoiser, Model
from ddim_ode.errors import DDIMError
from ddim_ode.files import replacing
from ddim_ode.guidance import Guided
from ddim_ode.ode import along
from ddim_ode.paths import f64
from ddim_ode.solvers import METHODS, Method, get_method
from ddim_ode.solvers.reversible import LATTICE

FORMAT = "ddim_ode latent 1"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class LatentError(DDIMError):
    """A latent that cannot be read, or does not belong to the model."""


class Settings(BaseModel):
    """What a file's metadata says of a latent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    guidance: float
    tol: float | None
    max_nfe: int | None
    dtype: str
    batch_size: int = Field(ge=1)
    threads: int = Field(ge=1)
    device: str
    prior: float
    model: str


@dataclass(frozen=True)
class Latent:
    """Encoded images, and how they came to be.

    states: what `decode` begins with, each (B, *shape): xbar at the largest sigma or, of a reversible method, the pair
        of states on its path that it ended with; int64 in units of 2^-52 where that is exact.
    sigmas: (N + 1,) float64, decreasing: the grid that led here, in reverse, or an adaptive method's ends.
    nfe: (B,) int64, network passes spent on each.
    converged: (B,) bool, False where an adaptive method was stopped on the way, by max_nfe or too small a step.
    labels: (B,) int64, or None for the null class.
    prior: standard deviation of xbar at the largest sigma.
    batch_size, threads, device: as they were; with others a network may round differently. `decode` takes the first
        two over; the device is the model's.
    model: a digest of the model, see `fingerprint`.
    """

    states: tuple[Tensor, ...]
    sigmas: Tensor
    nfe: Tensor
    converged: Tensor
    labels: Tensor | None
    method: str | Method
    guidance: float
    tol: float | None
    max_nfe: int | None
    dtype: torch.dtype
    batch_size: int
    threads: int
    device: str
    prior: float
    model: str

    def __len__(self) -> int:
        return len(self.nfe)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> "Latent":
        """Some of them: a slice, or indices. In a batch of other companions a network may round differently."""
        if index(rows) is not None:
            raise TypeError(f"a latent is indexed with a slice or a list: [[{rows}]] makes one of a single image")
        return replace(
            self,
            states=tuple(state[rows] for state in self.states),
            nfe=self.nfe[rows],
            converged=self.converged[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    @property
    def noise(self) -> Tensor:
        """(B, *shape) the latents as standard normals, one state each: for `sample(noise=...)`, `slerp` and statistics.

        Of a pair it keeps the half that is at the largest sigma, so that an exact method is no longer exact.
        """
        state = self.states[0]
        if len(self.states) == 1:
            xbar = state
        else:
            y = LATTICE.leave(state) if state.dtype == torch.int64 else state
            xbar = y / along(get_method(self.method).path.scale(self.sigmas[0]), y)
        return (xbar / self.prior).to(self.dtype)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all. Raises LatentError for a method without a name."""
        if not isinstance(self.method, str):
            raise LatentError("a latent of a Method without a name cannot be saved; use one in METHODS")
        tensors = {f"state{n}": state.cpu().contiguous() for n, state in enumerate(self.states)}
        tensors |= {"sigmas": self.sigmas, "nfe": self.nfe, "converged": self.converged}
        if self.labels is not None:
            tensors["labels"] = self.labels.cpu()
        settings = Settings(
            **{name: getattr(self, name) for name in Settings.model_fields if name != "dtype"},
            dtype=str(self.dtype).removeprefix("torch."),
        )
        with replacing(Path(file)) as tmp:
            tmp.write_bytes(save(tensors, {"format": FORMAT, "settings": settings.model_dump_json()}))

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> "Latent":
        """A file that `save` has written.

        Raises:
            LatentError: it is missing, cut short, or not a latent.
            ConfigError: its settings are not valid.
        """
        if not Path(file).is_file():
            raise LatentError(f"there is no file {file}; give one that encode has written")
        try:
            with safe_open(file, "pt") as stored:
                metadata: dict[str, str] = stored.metadata() or {}
                # The handle of safetensors has keys(), but cannot be iterated over.
                tensors: dict[str, Any] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except OSError as error:
            raise LatentError(f"{file} cannot be read: {error}; give a file that encode has written") from None
        except SafetensorError as error:
            raise LatentError(f"{file} is damaged or no safetensors file ({error}); encode the images again") from None
        if metadata.get("format") != FORMAT:
            raise LatentError(f"{file} is not a latent of this version ({FORMAT!r}); give a file of encode")
        settings = parse(Settings, _json(metadata.get("settings", "")), str(file))
        states = tuple(tensors[name] for name in ("state0", "state1") if name in tensors)
        shapes = {state.shape for state in states}
        counts = {len(x) for x in (*states, tensors.get("nfe", ()), tensors.get("converged", ()))}
        known = settings.method in METHODS and settings.dtype in DTYPES
        whole = known and len(states) == 1 + METHODS[settings.method].invertible and "sigmas" in tensors
        if not whole or len(shapes) != 1 or len(counts) != 1:
            raise LatentError(f"{file} does not hold what {settings.method!r} needs; encode the images again")
        values: dict[str, Any] = settings.model_dump() | {"dtype": DTYPES[settings.dtype]}
        tensors |= {"labels": tensors.get("labels")}
        facts = {name: tensors[name] for name in ("sigmas", "nfe", "converged", "labels")}
        return cls(states=states, **facts, **values)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def fingerprint(model: Model) -> str:
    """A digest of what a model predicts with: its weights, path, shape and guidance; not the code of a function."""
    digest = hashlib.sha256()
    if isinstance(model, Guided):
        digest.update(f"guided {model.scale} {model.sigma_range} {fingerprint(model.model)}".encode())
        return digest.hexdigest()
    sigmas = torch.logspace(-3, 5, 200, dtype=torch.float64)
    facts = [model.path.scale(f64(1.0)).item(), model.sigma_min, model.sigma_max, *model.path.u(sigmas).tolist()]
    rounded = [f"{fact:.9e}" for fact in facts]  # the last bits may be another machine's
    digest.update(repr((model.shape, model.num_classes, rounded)).encode())
    if isinstance(model, Denoiser):
        digest.update(repr((model.predicts, model.quantize)).encode())
        if isinstance(model.net, nn.Module):
            for name, value in sorted(model.net.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
