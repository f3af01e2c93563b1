"""Functions that keep what they have found, by arguments that say for themselves which they are."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

Given = ParamSpec("Given")
Found = TypeVar("Found")


def remembering(size: int) -> Callable[[Callable[Given, Found]], Callable[Given, Found]]:
    """A decorator like `lru_cache(size)` for functions of positional arguments, which finds anew what cannot be told
    apart.

    That is what cannot be hashed, and an object that inherits the equality of a dataclass without being one itself: its
    own parameters, of which that knows nothing, may be others.
    """

    def decorated(function: Callable[Given, Found]) -> Callable[Given, Found]:
        known: Any = lru_cache(maxsize=size)(cast(Any, function))

        @wraps(function)
        def call(*given: Given.args, **named: Given.kwargs) -> Found:
            try:
                hash(given)
            except TypeError:
                return function(*given, **named)
            kinds: tuple[Any, ...] = tuple(map(type, given))
            if not all(map(_has_own_equality, kinds)):
                return function(*given, **named)
            found: Found = known(*given, **named)
            return found

        return call

    return decorated


@lru_cache(maxsize=1024)
def _has_own_equality(kind: type) -> bool:
    return not hasattr(kind, "__dataclass_fields__") or "__eq__" in vars(kind)
