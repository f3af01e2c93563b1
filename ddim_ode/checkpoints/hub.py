"""Models of the Hugging Face hub, where `huggingface_hub` is installed.

The hub is asked only for a name that can be nothing else, and only if the model is not in the cache; that it is asked
is said, and a hub that does not answer is not waited for. Of a model's weights one file is fetched, with its shards.
"""

import glob
import os
import re
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NoReturn, TypeVar

from ddim_ode.checkpoints.diffusers_folder import WEIGHTS
from ddim_ode.checkpoints.faults import CheckpointError, CheckpointWarning
from ddim_ode.checkpoints.files import shards
from ddim_ode.errors import one_line

#: what a pipeline around a UNet2DModel is made of, and nothing else
FACTS = ["*.json", "unet/*.json", "scheduler/*.json"]
KINDS = ("model_index.json", "config.json")  # of which one says what a folder is
SCHEDULERS = ("scheduler/scheduler_config.json", "scheduler_config.json")

ETAG_SECONDS = 10.0  # for the answer to one question
ANSWER_SECONDS = 30.0  # for all the small files, after which the hub is taken to be silent
LONGEST = 96  # characters of a name there

Answer = TypeVar("Answer")
SUFFIXES = (
    *(".pt", ".pth", ".ckpt", ".bin", ".pkl", ".safetensors", ".onnx", ".h5", ".gguf", ".git", ".npy", ".npz"),
    *(".yaml", ".yml", ".json", ".toml", ".txt", ".csv", ".md", ".py", ".zip", ".tar", ".gz", ".png", ".jpg"),
)


def is_hub_id(name: str) -> bool:
    """Whether it looks like owner/name and cannot mean something on this machine: there is no such file or folder, no
    folder of that owner, and the name does not end as a file's does.
    """
    part = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", name) or len(name) > LONGEST or ".." in name or "--" in name:
        return False
    return not (name.lower().endswith(SUFFIXES) or os.path.lexists(name) or os.path.isdir(name.partition("/")[0]))


def fetch(name: str, offline: bool = False) -> Path:
    """The folder of a model of the hub, fetched if it is not in the cache.

    offline, or the environment variable HF_HUB_OFFLINE: look in the cache only. Where that holds a part of a model, as
    of a network that was loaded without its pipeline, the part is taken then, with a warning; otherwise the hub is
    asked.

    Raises:
        CheckpointError: huggingface_hub is not installed, or cannot get it, or gets no answer.
    """
    try:
        from huggingface_hub import list_repo_files, snapshot_download
    except ImportError:
        raise CheckpointError(
            f"there is no folder {name!r}, and huggingface_hub, which would look on the hub, is not installed"
            "; pip install huggingface_hub, or give a folder"
        ) from None
    cached = _cached(partial(snapshot_download, name, local_files_only=True))
    if cached is not None and _has(cached, KINDS) and _has(cached, SCHEDULERS):
        return cached
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        if cached is not None:
            warnings.warn(
                f"the cache of the hub holds a part of {name} only, without its scheduler or what it is made of",
                CheckpointWarning,
                stacklevel=4,
            )
            return cached if _has(cached, KINDS) else cached / "unet"
        raise CheckpointError(
            f"there is no folder {name!r}, it is not in the cache of the hub, and the hub is not asked when offline"
            "; give a folder, or leave offline=True (--offline, HF_HUB_OFFLINE) out"
        )
    warnings.warn(f"looking for {name} on the Hugging Face hub", CheckpointWarning, stacklevel=4)  # caller of `load`
    ask = partial(snapshot_download, name, etag_timeout=ETAG_SECONDS)
    try:
        folder = Path(_answered(partial(ask, allow_patterns=FACTS), ANSWER_SECONDS))
        found = _answered(partial(list_repo_files, name), ANSWER_SECONDS)
        return Path(ask(allow_patterns=[*FACTS, *map(glob.escape, _weights(folder, found))]))
    except Exception as error:  # no such model, no right to it, no network: of many classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        other = "" if cached is None else ", or offline=True (--offline) for the part that is in the cache"
        raise CheckpointError(
            f"there is no folder {name!r}, and it could not be fetched from the hub ({one_line(reason, 300)})"
            f"; give a folder{other}"
        ) from None


def _cached(look: Callable[[], str]) -> Path | None:
    """The folder of a model in the cache, if its weights are there, whole."""
    try:
        folder = Path(look())
        found = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        weights = _weights(folder, found)
        whole = all((folder / file).is_file() for file in weights)
    except Exception:  # not in the cache, or not as it should be: of many classes
        return None
    return folder if weights and whole else None


def _weights(folder: Path, found: Iterable[str]) -> list[str]:
    """Of the files that a model has, the weights that are read: one file, or an index, which is in the folder, with its
    shards.
    """
    names = set(found)
    place = "unet/" if any(name.startswith("unet/") for name in names) else ""
    chosen = next((place + name for name in WEIGHTS if place + name in names), None)
    if chosen is None:
        return []
    return sorted({chosen, *(place + shard.name for shard in shards(folder / chosen))})


def _has(folder: Path, names: Iterable[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _answered(call: Callable[[], Answer], seconds: float) -> Answer:
    """What a call returns, which may never do so; then it is left alone. Raises what it raises, or TimeoutError."""
    outcome: SimpleQueue[Callable[[], Answer]] = SimpleQueue()

    def run() -> None:
        try:
            answer = call()
        except Exception as error:
            outcome.put(partial(_raise, error))
        else:
            outcome.put(lambda: answer)

    Thread(target=run, daemon=True).start()
    try:
        answered = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    return answered()


def _raise(error: Exception) -> NoReturn:
    raise error
