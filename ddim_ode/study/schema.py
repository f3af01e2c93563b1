"""Dataclasses as the one description of a record: which values it has, where each lies, and how JSON becomes one again.

A leaf, such as "error.median", says where a value lies inside nested records.
"""

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from ddim_ode.errors import DDIMError

T = TypeVar("T")


class SchemaError(DDIMError):
    """A record that has other fields, or other kinds of values, than it should."""


def leaves_of(kind: type) -> tuple[str, ...]:
    """The leaves of a dataclass, in the order of its fields; what is held by names of its own is left out."""
    found: list[str] = []
    for name, hint in get_type_hints(kind).items():
        inner: list[Any] = [part for part in (hint, *get_args(hint)) if is_dataclass(part)]
        if inner:
            found += [f"{name}.{leaf}" for leaf in leaves_of(inner[0])]
        elif get_origin(hint) is not dict:
            found.append(name)
    return tuple(found)


def lookup(record: Mapping[str, Any], leaf: str) -> Any:
    """The value at a leaf; None where a part of the way is missing."""
    value: Any = record
    for name in leaf.split("."):
        value = None if value is None else value.get(name)
    return value


def read(kind: type[T], record: Any, where: str) -> T:
    """The dataclass, or TypedDict, that a record of JSON was written from; numbers stay as they were written.

    Raises SchemaError, which says `where`, for a field that is unknown or missing or has another kind of value.
    """
    if not isinstance(record, Mapping):
        raise SchemaError(f"{where} is {_short(record)}, and should be a record with names")
    hints = get_type_hints(kind)
    if unknown := sorted(record.keys() - hints.keys()):
        raise SchemaError(f"{where} has unknown fields: {', '.join(unknown)}")
    if missing := sorted(hints.keys() - record.keys()):
        raise SchemaError(f"{where} lacks fields: {', '.join(missing)}")
    return kind(**{name: _value(hint, record[name], f"{where}.{name}") for name, hint in hints.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    hint = next((part for part in parts if _fits(part, value)), None)
    if hint is None:
        names = " or ".join(part.__name__ if isinstance(part, type) else str(part) for part in parts)
        raise SchemaError(f"{where} is {_short(value)}, and should be {names}")
    if is_dataclass(hint) or is_typeddict(hint):
        return read(hint, value, where)
    if isinstance(value, list):
        of = get_origin(hint)
        return of(_value(get_args(hint)[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value of JSON can be of a kind, as far as one sees without looking into it."""
    kind = get_origin(hint) or hint
    if kind is Literal:
        return value in get_args(hint)
    if isinstance(value, Mapping):
        return is_dataclass(kind) or is_typeddict(kind) or kind in (dict, Mapping)
    if isinstance(value, list):
        return kind in (list, tuple)
    return type(value) in ((int, float) if kind is float else (kind,))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."
