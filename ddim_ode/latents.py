"""What an image is encoded to, kept with all that it takes to come back: `Latent`, in memory and on disk."""

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
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.ode.flow import along
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import METHODS
from ddim_ode.solvers.lattice import LATTICE
from ddim_ode.support.dtypes import DTYPES
from ddim_ode.support.files import replacing
from ddim_ode.support.scalars import index
from ddim_ode.support.validation import parse

FORMAT = "ddim_ode latent 1"
OPTIONS = (
    "method",
    "guidance",
    "guidance_range",
    "tol",
    "max_nfe",
    "first_step",
    "batch_size",
)  # of those that led here
FACTS = ("threads", "device", "prior", "model")


class LatentError(DDIMError):
    """A latent that cannot be read, or does not belong to the model."""


class StoredOptions(BaseModel):
    """What a file's metadata says of a latent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    guidance: float
    guidance_range: tuple[float, float | None] | None = None  # the first files had none
    tol: float | None
    max_nfe: int | None
    first_step: float | None = None
    dtype: str
    batch_size: int = Field(ge=1)
    threads: int = Field(ge=1)
    device: str
    prior: float
    model: str


@dataclass(frozen=True, kw_only=True)
class Latent:
    """Encoded images, and how they came to be.

    states: what `decode` begins with, each (B, *shape): xbar at the largest sigma or, of a reversible method, the pair
        of states on its path that it ended with; int64 in units of 2^-52 where that is exact.
    sigmas: (N + 1,) float64, decreasing: the grid that led here, in reverse, or an adaptive method's ends.
    nfe: (B,) int64, network passes spent on each.
    converged: (B,) bool, False where an adaptive method was stopped on the way, by max_nfe or too small a step.
    labels: (B,) int64, or None for the null class.
    options: how it was encoded; of an adaptive method with the tolerance it had.
    prior: standard deviation of xbar at the largest sigma.
    threads, device: as they were; with others, or batches of another size, a network may round differently. `decode`
        takes over the options and the threads; the device is the model's.
    model: a digest of the model, see `fingerprint`.

    To decode under other labels, as an edit, replace them: `dataclasses.replace(latent, labels=...)`.
    """

    states: tuple[Tensor, ...]
    sigmas: Tensor
    nfe: Tensor
    converged: Tensor
    labels: Tensor | None
    options: SolveOptions
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
            xbar = y / along(self.options.row.path.scale(self.sigmas[0]), y)
        return (xbar / self.prior).to(self.options.dtype)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all. Raises LatentError for a method without a name."""
        options = self.options
        if not isinstance(options.method, str):
            raise LatentError("a latent of a Method without a name cannot be saved; use one in METHODS")
        tensors = {f"state{n}": state for n, state in enumerate(self.states)}
        tensors |= {"sigmas": self.sigmas, "nfe": self.nfe, "converged": self.converged}
        if self.labels is not None:
            tensors["labels"] = self.labels
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        settings = StoredOptions(
            **{name: getattr(options, name) for name in OPTIONS},
            **{name: getattr(self, name) for name in FACTS},
            dtype=str(options.dtype).removeprefix("torch."),
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
        settings = parse(StoredOptions, _json(metadata.get("settings", "")), str(file))
        states = tuple(tensors[name] for name in ("state0", "state1") if name in tensors)
        shapes = {state.shape for state in states}
        counts = {len(x) for x in (*states, tensors.get("nfe", ()), tensors.get("converged", ()))}
        known = settings.method in METHODS and settings.dtype in DTYPES
        whole = known and len(states) == 1 + METHODS[settings.method].invertible and "sigmas" in tensors
        if not whole or len(shapes) != 1 or len(counts) != 1:
            raise LatentError(f"{file} does not hold what {settings.method!r} needs; encode the images again")
        values = {name: getattr(settings, name) for name in OPTIONS}
        try:
            options = SolveOptions(**values, dtype=DTYPES[settings.dtype], final="sigma_min")
        except DDIMError as error:
            raise LatentError(f"{file}: {error}") from None
        labels = tensors.get("labels")
        found = {name: tensors[name] for name in ("sigmas", "nfe", "converged")}
        facts = {name: getattr(settings, name) for name in FACTS}
        return cls(states=states, labels=labels, options=options, **found, **facts)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
