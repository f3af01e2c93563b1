"""What is kept, and what must not be."""

from dataclasses import dataclass

import pytest

from ddim_ode.support.remembering import remembering


@dataclass(frozen=True)
class Curve:
    low: float = 0.0


@dataclass(frozen=True)
class Scaled(Curve):
    scale: float = 1.0


class Undecorated(Curve):
    """Two of another k are equal, as far as its inherited equality knows."""

    def __init__(self, k):
        super().__init__()
        object.__setattr__(self, "k", k)


@dataclass(frozen=True)
class Listing(Curve):
    values: tuple | list = ()


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        (Curve(), Curve(), 1),
        (Curve(), Curve(1.0), 2),
        (Curve(), Scaled(), 2),
        (Scaled(scale=2.0), Scaled(scale=2.0), 1),
        (Undecorated(1), Undecorated(2), 2),
        (Listing(values=[1]), Listing(values=[1]), 2),
        (Listing(values=(1,)), Listing(values=(1,)), 1),
    ],
    ids=["equal", "other field", "other class", "equal subclass", "undecorated", "not hashable", "hashable"],
)
def test_what_is_found_anew(first, second, calls):
    asked = []

    @remembering(8)
    def of(curve, factor):
        asked.append(curve)
        return factor

    assert (of(first, 2.0), of(second, 2.0)) == (2.0, 2.0)
    assert len(asked) == calls


def test_an_error_of_the_function_is_its_own():
    calls = []

    @remembering(8)
    def fails(x):
        calls.append(x)
        raise TypeError("its own")

    with pytest.raises(TypeError, match="its own"):
        fails(1)
    assert calls == [1]
