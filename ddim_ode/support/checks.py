"""Arguments as strangers give them: of another kind, of no known name, out of range. The message names the argument."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddim_ode.errors import DDIMError, one_line, unknown
from ddim_ode.support.scalars import index, number

SHOWN = 60  # characters of a value in a message


class ArgumentError(DDIMError, TypeError):
    """An argument of another kind than asked for; the message names it and says what to give."""


def of_kind(name: str, value: object, kind: type | tuple[type, ...], give: str) -> None:
    """Raise ArgumentError unless the argument is of a kind; `give` says what to give instead."""
    if not isinstance(value, kind):
        raise ArgumentError(f"{name} is {described(value)}; give {give}")


def flag(name: str, value: object, give: str = "True or False") -> bool:
    """The argument as a bool, of Python or of NumPy. Raises ArgumentError for what is neither True nor False."""
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):  # before NumPy 2 it is bool_
        return bool(value)
    of_kind(name, value, bool, give)
    return bool(value)


def choice(name: str, value: object, known: Mapping[str, Any] | Sequence[str], error: type[DDIMError]) -> str:
    """The argument, if it is one of some names. Raises ArgumentError for no text, `error` for an unknown one."""
    of_kind(name, value, str, f"one of {', '.join(known)}")
    assert isinstance(value, str)
    if value not in known:
        raise error(unknown(name, value, known))
    return value


def whole(
    name: str, value: object, error: type[DDIMError], least: int | None = 1, most: int | None = None, why: str = ""
) -> int:
    """The argument as an int. Raises `error` unless it is whole and between least and most; `why` is the rule."""
    found = index(value)
    if found is None or (least is not None and found < least):
        raise error(f"{name}={shown(value)} must be a whole number" + ("" if least is None else f" >= {least}"))
    if most is not None and found > most:
        raise error(f"{name}={shown(found)} is too many{f', {why}' if why else ''}; give at most {most}")
    return found


def real(name: str, value: object, error: type[DDIMError], low: float, high: float, example: str) -> float:
    """The argument as a float. Raises `error` unless it is a number with low <= value <= high."""
    found = number(value)
    if not low <= found <= high:
        raise error(f"{name}={shown(value)} must be a number from {low:g} to {high:g}, such as {example}")
    return found


def as_path(name: str, value: object, what: str = "file") -> Path:
    """The argument as a path. Raises ArgumentError for what is no path, or one that no system can have."""
    of_kind(name, value, (str, os.PathLike), f"the path of a {what}")
    assert isinstance(value, str | os.PathLike)
    with suppress(UnicodeEncodeError, TypeError):  # of half a pair of surrogates; of a path in bytes
        if b"\0" not in os.fsencode(found := Path(value)):
            return found
    raise ArgumentError(f"{name}={shown(value)} is no name that a {what} can have; give another")


def shown(value: object, most: int = SHOWN) -> str:
    """A value in a message: its repr, short, on one line; of an array its shape."""
    try:
        if getattr(value, "shape", None) and hasattr(value, "dtype"):
            return described(value)
        return one_line(repr(value), most)
    except Exception:  # of an object that cannot even say what it is
        return f"<{type(value).__name__}>"


def described(value: object) -> str:
    """A value of the wrong kind in words: "the str 'fashion'", "a list of 3", "a Tensor of shape (3, 4)"."""
    kind = type(value).__name__
    if value is None:
        return "None"
    with suppress(Exception):  # a nested tensor has no shape to tell
        if isinstance(shape := getattr(value, "shape", None), tuple):
            if shape:
                return f"a {kind} of shape {tuple(shape)}"
            return f"the {kind} {shown(value.item())}"  # type: ignore[attr-defined]  # one number, of NumPy or torch
    if isinstance(value, list | tuple | dict | set):
        return f"a {kind} of {len(value)}"
    if isinstance(value, type):
        return f"the class {kind if value is type else value.__name__}"
    return f"the {kind} {shown(value)}" if isinstance(value, str | bytes | int | float | complex) else f"a {kind}"
