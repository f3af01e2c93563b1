"""Options as text: numbers of any length, lists of any length, and what is no number, each in one short line."""

from collections.abc import Callable
from typing import Any

import pytest

from ddim_ode.commands.shared import parsing
from ddim_ode.commands.shared.labels import parse_classes
from ddim_ode.errors import DDIMError
from tests.helpers.assertions import one_line

LONG = "9" * 5000


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [3]),
        ("0-2", [0, 1, 2]),
        (" 0 - 2 , 9", [0, 1, 2, 9]),
        ("5,5", [5, 5]),
        ("٣-٥", [3, 4, 5]),  # digits as they are written elsewhere
    ],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert list(parsing.parse_seeds(text, None)) == seeds
    assert list(parsing.parse_seeds(text, len(seeds))) == seeds


def test_as_many_seeds_as_a_run_may_have() -> None:
    most = parsing.MOST
    assert len(parsing.parse_seeds(None, most)) == most
    for text, count in [(None, most + 1), (f"0-{most}", None), (f"1,1-{most}", None), ("0-" + "9" * 40, None)]:
        assert "too many for one run" in one_line(DDIMError, parsing.parse_seeds, text, count)


@pytest.mark.parametrize(
    ("parse", "arguments"),
    [
        (parsing.parse_seeds, (LONG, None)),
        (parsing.parse_seeds, ("1," * 5000, None)),
        (parsing.parse_seeds, ("²", None)),
        (parsing.parse_seeds, ("1e9", None)),
        (parsing.parse_seeds, ("0-3", 10**4000)),
        (parsing.parse_seeds, (None, -(10**4000))),
        (parsing.parse_label, (LONG,)),
        (parse_classes, (LONG,)),
        (parse_classes, ("\0",)),
        (parsing.parse_label, ("\x1b[31m" * 100,)),
        (parsing.parse_labels, (LONG, 3)),
        (parsing.parse_labels, ("1," * 50_000 + "1", 3)),
        (parsing.parse_numbers, ("nfe", LONG, int)),
        (parsing.parse_numbers, ("nfe", "1e9", int)),
        (parsing.parse_numbers, ("nfe", "5," * 20_000, int)),
        (parsing.parse_numbers, ("tols", "x" * 5000, float)),
        (parsing.parse_grid, ("x" * 5000,)),
        (parsing.parse_grid, ("x," * 5000,)),
        (parsing.parse_guidance_range, ("x" * 5000,)),
        (parsing.parse_guidance_range, ("a:b" * 5000,)),
        (parsing.parse_eta_range, ("1:2:" * 5000,)),
        (parsing.parse_eta, ("x" * 5000,)),
        (parsing.parse_eta, ("0,5",)),
    ],
)
def test_what_is_no_number_is_told_shortly(parse: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    line = one_line(DDIMError, parse, *arguments)
    assert line.isprintable()
    assert len(line) < 400


@pytest.mark.parametrize("text", ["nan,1,0", "10,nan,0", "inf,1,0", "10,1,-1", "10,10,0", "1,"])
def test_a_grid_of_what_is_no_sigma_is_refused(text: str) -> None:
    assert one_line(DDIMError, parsing.solve_options, grid=text, dtype="float32", method="ddim")


@pytest.mark.parametrize("text", ["nan:1", "1:nan", "3:2", "-1:2"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    low_high = parsing.parse_guidance_range(text)
    options = {"grid": None, "dtype": "float32", "method": "ddim", "guidance": 2.0, "guidance_range": low_high}
    assert "guidance range" in one_line(DDIMError, parsing.solve_options, **options)
