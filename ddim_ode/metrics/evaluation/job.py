"""The folder in which an evaluation is made and goes on: `evaluation-job.json` says what the features in it depend on.

    samples/00000.safetensors, real/00000.safetensors       features, see `shards`
    evaluation.json, statistics.npz                         the results

The first process holds the folder; the others see that theirs is the same.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_ode.metrics.checks import MetricError
from ddim_ode.metrics.evaluation.features import answers_alike
from ddim_ode.support.files import OutputError, reported, sweep_all
from ddim_ode.support.outputs import going_on
from ddim_ode.support.processes import Processes
from ddim_ode.support.records import read_record

JOB, KIND = "evaluation-job.json", "ddim_ode evaluation job 1"
SIDES = ("samples", "real")
OTHER = "choose another --out"


@dataclass(frozen=True)
class Job:
    """What the features of two sets depend on.

    sets: of each side its name, count and a digest of its images. options: by the names that they are given by.
    answers: of a network of the caller's, which no name tells; else none.
    """

    sets: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    answers: Sequence[float]

    @property
    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        told: dict[str, Any] = json.loads(json.dumps({**self.sets, **self.options, "answers": list(self.answers)}))
        return told


@contextmanager
def opened(here: Processes, folder: Path, job: Job) -> Iterator[dict[str, Any]]:
    """A folder to make a job in, or to go on with it, whose record is yielded; held by the first process.

    Raises:
        OutputError: it is of another job, or the images have changed since it was begun; it holds something else,
            cannot be written or is not the one that the first process sees; or an evaluation is at work in it.
    """
    record = job.record
    with ExitStack() as stack:

        def begin() -> dict[str, Any]:
            stored = stack.enter_context(going_on(folder, JOB, KIND, record))
            _check_same(folder, stored, record)
            with reported(folder):
                for side in job.sets:
                    (folder / side).mkdir(exist_ok=True)
                    sweep_all(folder / side)
            return stored

        stored = here.shared("evaluation job", begin)
        if not here.main:
            _check_seen(folder, stored, here)
            _check_same(folder, stored, record)
        yield stored


def _check_same(folder: Path, stored: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    for name, value in record.items():
        was = stored.get(name)
        if name in SIDES and isinstance(was, dict):
            _check_set(folder, name, was, value)
        elif name == "answers":
            if not answers_alike(was or (), value):
                raise OutputError(f"{folder} belongs to another evaluation: its features answer otherwise; {OTHER}")
        elif was != value:
            raise OutputError(f"{folder} belongs to another evaluation: its {name} is {was}, not {value}; {OTHER}")


def _check_set(folder: Path, side: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if was["images"] == now["images"]:
        return
    if was["name"] != now["name"]:
        raise OutputError(
            f"{folder} belongs to another evaluation: its {side} is {was['name']}, not {now['name']}; {OTHER}"
        )
    what = f"{was['count']:,} then and {now['count']:,} now" if was["count"] != now["count"] else "by their files"
    raise OutputError(f"the images of {now['name']} have changed since {folder} was begun ({what}); {OTHER}")


def _check_seen(folder: Path, stored: Mapping[str, Any], here: Processes) -> None:
    file = folder / JOB
    if not file.is_file() or read_record(file, KIND, MetricError) != stored:
        raise OutputError(
            f"process {here.rank + 1} of {here.size} does not see {file} of this evaluation"
            "; give a folder on a file system that all processes share"
        )
