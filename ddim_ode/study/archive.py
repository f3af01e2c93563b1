"""The folder of a study: what has been measured is kept by content, so that a study that was cut short goes on, and one
with another method runs that method alone.

    study.json            the model, seeds, labels, reference, features and real images that the folder belongs to
    cells/DIGEST.safetensors        one a cell, and one for the reference, each written whole or not at all

A cell holds as long as the methods and metrics that it comes from answer as they did, see `study.answers`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ddim_ode.study.answers import Answers, agree
from ddim_ode.study.cells import StudyError
from ddim_ode.support.files import replacing
from ddim_ode.support.outputs import OutputError
from ddim_ode.support.records import write_json

IDENTITY, CELLS, LOCK = "study.json", "cells", ".lock"


@dataclass(frozen=True)
class Kept:
    """The measurements of a cell: numbers of each sample, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Archive:
    """Measured cells by digest; nothing is kept where there is no folder."""

    folder: Path | None = None

    def get(self, digest: str, ask: Callable[[], Answers]) -> Kept | None:
        """The measurements, if their answers are those of today; None for others, for none and for a damaged file."""
        if self.folder is None:
            return None
        with suppress(FileNotFoundError, SafetensorError, KeyError, ValueError):
            kept, answers = _read(self.folder / CELLS / f"{digest}.safetensors")
            return kept if agree(answers, ask()) else None
        return None

    def put(self, digest: str, kept: Kept, ask: Callable[[], Answers]) -> None:
        """Keep measurements, with the answers that tell how long they hold."""
        if self.folder is None:
            return
        tensors = {name: value.cpu().contiguous() for name, value in kept.tensors.items()}
        with replacing(self.folder / CELLS / f"{digest}.safetensors") as tmp:
            tmp.write_bytes(save(tensors, {"facts": json.dumps(kept.facts), "answers": json.dumps(ask())}))


@contextmanager
def opened(folder: Path | None, identity: Mapping[str, Any], answers: Sequence[float] = ()) -> Iterator[Archive]:
    """The archive in a folder, made if need be, for one study at a time; a kill leaves the folder free.

    answers: numbers of the model's predictions for fixed noise, the same up to rounding wherever the study goes on.

    Raises:
        StudyError: the folder is of another study, or one is at work in it.
        OutputError: it holds something else, or cannot be written.
    """
    if folder is None:
        yield Archive()
        return
    try:
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _ours(folder))):
            raise OutputError(f"{folder} is not empty and not the folder of a study; choose another --out")
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        with lock:
            for left in [*(folder / CELLS).glob(".*.tmp"), *folder.glob(f".{IDENTITY}.*.tmp")]:  # by a kill
                left.unlink(missing_ok=True)
            _claim(folder, identity, answers)
            yield Archive(folder)
    except Timeout:
        raise StudyError(f"another study is at work in {folder}; wait for it, or choose another --out") from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None


def digest_of(facts: Mapping[str, Any]) -> str:
    """A name for facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _ours(folder: Path) -> bool:
    begun = (CELLS, LOCK, IDENTITY)
    return (folder / IDENTITY).is_file() or all(
        entry.name in begun or entry.name.startswith(f".{IDENTITY}.") for entry in folder.iterdir()
    )


def _claim(folder: Path, identity: Mapping[str, Any], answers: Sequence[float]) -> None:
    file = folder / IDENTITY
    if not file.exists():
        write_json(file, {**identity, "answers": list(answers)})
        return
    try:
        stored = json.loads(file.read_text())
    except ValueError:
        raise StudyError(
            f"{file} is damaged; remove it if the folder is of this study, or choose another --out"
        ) from None
    for name, value in json.loads(json.dumps(identity)).items():
        if (found := stored.get(name)) != value:
            raise StudyError(
                f"{folder} belongs to another study: its {name} is {_short(found)}, not {_short(value)}"
                "; choose another --out"
            )
    if not np.allclose(stored.get("answers", ()), answers, rtol=1e-3, atol=1e-4):
        raise StudyError(f"{folder} belongs to another study: its network answers otherwise; choose another --out")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:30]} ... {text[-6:]}"


def _read(file: Path) -> tuple[Kept, Answers]:
    with safe_open(file, "pt") as stored:
        # The handle of safetensors has keys(), but cannot be iterated over.
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        told = stored.metadata()
        return Kept(tensors, json.loads(told["facts"])), json.loads(told["answers"])
