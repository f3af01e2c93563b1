"""The folder of a study: what has been measured is kept by content, so that a study that was cut short goes on, and one
with another method runs that method alone.

    study.json            the model, seeds, labels, reference, features and real images that the folder belongs to
    cells/DIGEST.safetensors        one a cell, and one for the reference, each written whole or not at all
    reference/DIGEST.safetensors    parts of a reference that is not finished

All say digests of themselves. A folder is a study's because its study.json says so, and nothing else of it is touched.

A cell holds as long as the methods and metrics that it comes from answer as they did, see `study.answers`.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddim_ode.study.answers import Answers, agree
from ddim_ode.study.cells import StudyError
from ddim_ode.support.files import reported, sweep_all
from ddim_ode.support.outputs import going_on
from ddim_ode.support.reading import read_json
from ddim_ode.support.records import SEAL, read_record, unsealed
from ddim_ode.support.tensors import read_tensors, write_tensors

IDENTITY, CELLS, PARTS = "study.json", "cells", "reference"
KIND = "ddim_ode study 1"


class DamagedError(StudyError):
    """A cell that is not as it was written, and is measured again."""


@dataclass(frozen=True)
class Kept:
    """The measurements of a cell: numbers of each sample, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Archive:
    """Measured cells by digest; nothing is kept where there is no folder.

    inside: what is kept, "cells" or parts of the "reference".
    """

    folder: Path | None = None
    inside: str = CELLS

    def get(self, digest: str, ask: Callable[[], Answers] | None) -> Kept | None:
        """The measurements, if their answers are those of today; None for others, for none and for a damaged file.

        ask: for the answers of today; None where this run has asked already.
        """
        if self.folder is None:
            return None
        file = self.folder / self.inside / f"{digest}.safetensors"
        if not file.exists():
            return None
        with suppress(DamagedError):
            kept, answers = _read(file)
            return kept if ask is None or agree(answers, ask()) else None
        return None

    def put(self, digest: str, kept: Kept, ask: Callable[[], Answers]) -> None:
        """Keep measurements, with the answers that tell how long they hold."""
        if self.folder is None:
            return
        told = {"facts": json.dumps(kept.facts), "answers": json.dumps(ask())}
        with reported(self.folder):
            (self.folder / self.inside).mkdir(exist_ok=True)
        write_tensors(self.folder / self.inside / f"{digest}.safetensors", kept.tensors, told)

    @property
    def parts(self) -> "Archive":
        """Where the parts of a reference are kept until it is finished."""
        return replace(self, inside=PARTS)

    def forget_parts(self) -> None:
        """Remove them."""
        if self.folder is not None:
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)


@contextmanager
def opened(folder: Path | None, identity: Mapping[str, Any], answers: Sequence[float] = ()) -> Iterator[Archive]:
    """The archive in a folder, made if need be, for one study at a time; a kill leaves the folder free.

    answers: numbers of the model's predictions for fixed noise, the same up to rounding wherever the study goes on.

    Raises:
        StudyError: the folder is of another study.
        OutputError: it holds something else, cannot be written, or a study is at work in it.
    """
    if folder is None:
        yield Archive()
        return
    record = {**json.loads(json.dumps(identity)), "answers": list(answers)}
    with going_on(folder, IDENTITY, KIND, record) as stored:
        _compare(folder, stored, record)
        with reported(folder):
            (folder / CELLS).mkdir(exist_ok=True)
            sweep_all(folder / CELLS)
            sweep_all(folder / PARTS)
        yield Archive(folder)


def seen(folder: Path, identity: Mapping[str, Any], answers: Sequence[float], wanted: str) -> Archive:
    """The archive in a folder that the first process of this run has opened.

    wanted: the digest of the folder's record, by `record_digest`.

    Raises StudyError: this process does not see that folder, or was asked for another study.
    """
    if record_digest(folder) != wanted:
        raise StudyError(f"{folder} is not the folder that the first process sees; give one that all processes share")
    record = {**json.loads(json.dumps(identity)), "answers": list(answers)}
    _compare(folder, read_record(folder / IDENTITY, KIND, StudyError), record)
    return Archive(folder)


def record_digest(folder: Path | None) -> str | None:
    """The digest of what makes a folder a study's; None where it is none."""
    if folder is None:
        return None
    with suppress(StudyError):
        return digest_of(read_record(folder / IDENTITY, KIND, StudyError))
    return None


def digest_of(facts: Mapping[str, Any]) -> str:
    """A name for facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def is_ours(folder: Path, results: str) -> bool:
    """Whether a study has left its identity, or its results, in a folder."""
    with suppress(StudyError):
        read_record(folder / IDENTITY, KIND, StudyError)
        return True
    with suppress(StudyError):
        told = read_json(folder / results, StudyError)
        return isinstance(told, dict) and SEAL in told and "format" in unsealed(told, folder / results, StudyError)
    return False


def _compare(folder: Path, stored: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise StudyError for a folder of another study."""
    for name, value in record.items():
        if name != "answers" and (found := stored.get(name)) != value:
            raise StudyError(
                f"{folder} belongs to another study: its {name} is {_short(found)}, not {_short(value)}"
                "; choose another --out"
            )
    if not np.allclose(stored.get("answers", ()), record["answers"], rtol=1e-3, atol=1e-4):
        raise StudyError(f"{folder} belongs to another study: its network answers otherwise; choose another --out")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:30]} ... {text[-6:]}"


def _read(file: Path) -> tuple[Kept, Answers]:
    tensors, told = read_tensors(file, DamagedError, "remove it")
    try:
        return Kept(tensors, json.loads(told["facts"])), json.loads(told["answers"])
    except (KeyError, ValueError) as fault:
        raise DamagedError(f"{file} does not say what it holds ({fault}); remove it") from None
