"""What an image is encoded to, kept with all that it takes to come back: `Latent`, in memory and on disk."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ddim_ode.errors import DDIMError, unknown
from ddim_ode.grids import explicit_grid
from ddim_ode.models.conditions import Conditions, Told
from ddim_ode.ode.flow import along
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import name_of
from ddim_ode.solvers.lattice import LATTICE
from ddim_ode.support.checks import ArgumentError, as_path, shown
from ddim_ode.support.dtypes import DTYPES
from ddim_ode.support.process import MOST_THREADS
from ddim_ode.support.scalars import index
from ddim_ode.support.tensors import SEAL, read_tensors, write_tensors
from ddim_ode.support.validation import parse

FORMAT = "ddim_ode latent 2"
FIRST = "ddim_ode latent 1"  # whose files had no digest
AGAIN = "give a file that encode has written, or encode the images again"
OPTIONS = (
    "method",
    "guidance",
    "guidance_range",
    "tol",
    "max_nfe",
    "first_step",
    "batch_size",
)  # of those that led here
FACTS = ("threads", "device", "prior", "model", "fast")


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
    threads: int = Field(ge=1, le=MOST_THREADS)
    device: str
    prior: float
    model: str
    fast: bool = False
    conditions: dict[str, str] = {}


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
    fast: whether the network was compiled, by `Denoiser.fast`, which rounds differently.
    conditions: what the network was told as keywords; None where there was nothing, or of a file.
    digests: of a file, those of the conditions that it was encoded under.

    To decode under other labels or conditions, as an edit, replace them: `dataclasses.replace(latent, labels=...)`.
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
    fast: bool = False
    conditions: Conditions | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.nfe)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> "Latent":
        """Some of them: a slice, or indices. In a batch of other companions a network may round differently."""
        if index(rows) is not None:
            raise ArgumentError(f"a latent is indexed with a slice or a list: [[{rows}]] makes one of a single image")
        if isinstance(rows, range):
            rows = list(rows[: len(self) + 1])  # a long one is never made
        try:
            nfe = self.nfe[rows]
        except (IndexError, TypeError, ValueError, RuntimeError):
            nfe = self.nfe[:0].reshape(0, 1)
        if nfe.ndim != 1:
            raise LatentError(f"{shown(rows)} are no places among {len(self)} latents; give a slice or a list of them")
        return replace(
            self,
            states=tuple(state[rows] for state in self.states),
            nfe=nfe,
            converged=self.converged[rows],
            labels=None if self.labels is None else self.labels[rows],
            conditions=None if (told := self._conditions()) is None else told[rows],
            digests={},
        )

    @property
    def told(self) -> Told:
        """Labels and conditions in one value. Raises LatentError for a file's, which have to be given again."""
        if (found := self._conditions()) is None:
            return self.labels
        return found.with_labels(self.labels)

    def _conditions(self) -> Conditions | None:
        """Those that were kept. Raises LatentError where a file has kept their digests alone."""
        if self.conditions is None and self.digests:
            names = ", ".join(sorted(self.digests))
            raise LatentError(
                f"it was encoded under conditions ({names}), of which the file holds digests alone; give them again, as"
                " decode(..., conditions={...})"
            )
        return self.conditions

    def under(self, conditions: Mapping[str, Tensor], null: Mapping[str, Tensor] | None = None) -> "Latent":
        """The latent of a file with the conditions that it was encoded under.

        Raises:
            LatentError: they are others.
            ConditionError: as `Conditions`.
        """
        found = Conditions(None, conditions, {} if null is None else null)
        wanted = self.digests if self.conditions is None else self.conditions.digests()
        given = found.digests()
        for name in sorted({*wanted, *given}):
            if wanted.get(name) != given.get(name):
                fault = "had no" if name not in wanted else "needs" if name not in given else "had another"
                kind, _, bare = name.rpartition(" ")
                raise LatentError(
                    f"the latent {fault} {kind or 'conditions'}[{bare!r}]; give that of encode, or replace it, as an"
                    " edit: dataclasses.replace(latent, conditions=Conditions(...))"
                )
        return replace(self, conditions=found)

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
        """Write a safetensors file with a digest of itself, whole or not at all.

        Raises:
            LatentError: the method has no name.
            OutputError: the file cannot be written.
        """
        options = self.options
        # Tuned grids need not be kept: the sigmas are.
        name = options.method if isinstance(options.method, str) else name_of(options.method)
        if name is None:
            raise LatentError("a latent of a Method without a name cannot be saved; use one in METHODS")
        tensors = {f"state{n}": state for n, state in enumerate(self.states)}
        tensors |= {"sigmas": self.sigmas, "nfe": self.nfe, "converged": self.converged}
        if self.labels is not None:
            tensors["labels"] = self.labels
        settings = StoredOptions(
            **{key: getattr(options, key) for key in OPTIONS} | {"method": name},
            **{key: getattr(self, key) for key in FACTS},
            dtype=str(options.dtype).removeprefix("torch."),
            conditions=dict(self.digests if self.conditions is None else self.conditions.digests()),
        )
        without = {name for name in ("conditions", "fast") if not getattr(settings, name)}
        told = {"format": FORMAT, "settings": settings.model_dump_json(exclude=without)}
        write_tensors(as_path("file", file), tensors, told)

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> "Latent":
        """A file that `save` has written.

        Raises:
            LatentError: it is missing, cut short, not a latent, or not as it was written.
            ConfigError: its settings are not valid.
        """
        tensors, metadata = read_tensors(as_path("file", file), LatentError, AGAIN, sealed=False)
        if metadata.get("format") not in (FORMAT, FIRST) or (metadata["format"] == FORMAT and SEAL not in metadata):
            raise LatentError(f"{file} is not a latent of this version ({FORMAT!r}); {AGAIN}")
        settings = parse(StoredOptions, _json(metadata.get("settings", "")), str(file))
        values = {name: getattr(settings, name) for name in OPTIONS}
        try:
            if settings.dtype not in DTYPES:
                raise LatentError(unknown("dtype", settings.dtype, DTYPES))
            options = SolveOptions(**values, dtype=DTYPES[settings.dtype], final="sigma_min")
            found = _checked(tensors, options)
        except DDIMError as error:
            raise LatentError(f"{file}: {error}; {AGAIN}") from None
        facts = {name: getattr(settings, name) for name in FACTS}
        return cls(**found, options=options, digests=settings.conditions, **facts)


def _checked(tensors: Mapping[str, Tensor], options: SolveOptions) -> dict[str, Any]:
    """The states, sigmas, counts and labels of a file, if they are what the method leaves and `decode` needs.

    Raises LatentError, or GridError for sigmas that are no grid.
    """
    method, integers = options.row, options.row.exact
    names = ["state0", "state1"][: 1 + method.invertible]
    wanted = {*names, "sigmas", "nfe", "converged"}
    if tensors.keys() - {"labels"} != wanted:
        raise LatentError(f"it holds {', '.join(sorted(tensors))}, where {options.method!r} leaves {', '.join(wanted)}")
    states = tuple(tensors[name] for name in names)
    kinds = (torch.int64,) if integers else (torch.float32, torch.float64)
    for name, state in zip(names, states, strict=True):
        if state.dtype not in kinds or not state.ndim or state.shape != states[0].shape or not state.numel():
            found = f"{name} is {state.dtype} of shape {tuple(state.shape)}"
            raise LatentError(f"{found}, where {options.method!r} leaves {kinds[0]} (B, *shape), alike")
        if not torch.isfinite(state).all():
            raise LatentError(f"{name} holds NaN or infinity")
    each = {"nfe": torch.int64, "converged": torch.bool} | ({"labels": torch.int64} if "labels" in tensors else {})
    for name, dtype in each.items():
        if tensors[name].dtype != dtype or tensors[name].shape != states[0].shape[:1] or (tensors[name] < 0).any():
            raise LatentError(f"{name} is not {dtype} (B,), 0 or more")
    sigmas = explicit_grid(tensors["sigmas"])
    return {"states": states, "sigmas": sigmas, "labels": tensors.get("labels")} | {
        name: tensors[name] for name in ("nfe", "converged")
    }


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
