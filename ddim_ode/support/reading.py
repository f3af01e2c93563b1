"""Files as strangers give them: what is no regular file, too large, not text or too deep is refused as it enters."""

import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, BinaryIO

import yaml

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import of_kind

MB = 2**20
MOST_JSON = 64 * MB
MOST_YAML = MB // 4  # which takes seconds to read
MOST_ALIASES = 20  # in one YAML file, which could otherwise stand for billions of values
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}

Fault = type[DDIMError]
Tags = dict[str, Callable[[yaml.SafeLoader, Any], Any]]


def open_regular(file: str | os.PathLike[str], error: Fault, remedy: str = "give another") -> BinaryIO:
    """A regular file, open for bytes; a pipe or a device, which could have no end, is refused without a wait.

    Raises `error`, which names the file and ends in the remedy: it is missing, cannot be read, or is no regular file.
    """
    of_kind("file", file, (str, os.PathLike), "the path of a file")
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as fault:  # ValueError: a path with a zero byte
        raise error(f"{file} cannot be read: {getattr(fault, 'strerror', None) or fault}; {remedy}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = next((words for test, words in KINDS.items() if test(mode)), "something else")
        raise error(f"{file} is {kind}, and no file; {remedy}")
    opened = os.fdopen(descriptor, "rb")
    try:
        opened.peek(1)
    except OSError as fault:  # as of a process's memory, which passes for a file
        opened.close()
        raise error(f"{file} cannot be read: {fault.strerror}; {remedy}") from None
    return opened


def read_bytes(file: str | os.PathLike[str], error: Fault, most: int, remedy: str = "give another") -> bytes:
    """The bytes of a regular file. Raises `error` as `open_regular`, and for more than `most` bytes."""
    with open_regular(file, error, remedy) as opened:
        try:
            found = opened.read(most + 1)
        except OSError as fault:
            raise error(f"{file} cannot be read: {fault.strerror}; {remedy}") from None
    if len(found) > most:
        size = max(os.path.getsize(file), len(found)) / MB
        raise error(f"{file} holds {size:,.1f} MB, where such a file has at most {most / MB:g}; {remedy}")
    return found


def read_text(file: str | os.PathLike[str], error: Fault, most: int = MOST_JSON, remedy: str = "give another") -> str:
    """The text of a regular file, UTF-8. Raises `error` as `read_bytes`, and for bytes that are no text."""
    try:
        return read_bytes(file, error, most, remedy).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{file} is not text: {fault.reason} at byte {fault.start}; {remedy}") from None


def read_json(file: str | os.PathLike[str], error: Fault, remedy: str = "give another") -> Any:
    """What a JSON file holds. Raises `error` as `read_text`, for what is no JSON, and for a key that is there twice."""
    text = read_text(file, error, MOST_JSON, remedy)
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as fault:
        raise error(f"{file} is not valid JSON: {_why(fault)}; {remedy}") from None


def read_yaml_values(
    file: str | os.PathLike[str],
    error: Fault,
    remedy: str = "give an existing YAML file",
    tags: Tags | None = None,
) -> Any:
    """What a YAML file holds. Raises `error` as `read_text`, for what is no YAML, a key that is there twice, or aliases
    that could stand for more than anybody has written.

    tags: constructors of tags besides YAML's own.
    """
    text = read_text(file, error, MOST_YAML, remedy)
    constructors: dict[Any, Any] = {**_Loader.yaml_constructors, **(tags or {})}
    kind = type("Loader", (_Loader,), {"yaml_constructors": constructors})
    loader = None
    try:
        loader = kind(text)  # which looks at every character
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, KeyError) as fault:
        raise error(f"{file} is not valid YAML: {_why(fault)}; {remedy}") from None
    finally:
        if loader:
            with suppress(yaml.YAMLError):
                loader.dispose()


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with no key twice and few aliases."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MOST_ALIASES:
            raise yaml.YAMLError(f"more than {MOST_ALIASES} aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key, count in Counter(keys).items() if count > 1]:
            raise yaml.YAMLError(f"the key {twice[0]!r} is there twice")
        return super().construct_mapping(node, deep)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"the key {next(name for name, count in counts.items() if count > 1)!r} is there twice")
    return found


def _why(fault: Exception) -> str:
    return "it is too deep" if isinstance(fault, RecursionError) else str(fault) or type(fault).__name__
