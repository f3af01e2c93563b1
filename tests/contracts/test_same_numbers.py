"""The library says what it said: the numbers of `same_numbers.json`, up to the rounding of another machine."""

import json
from pathlib import Path

import pytest

from tests.contracts.same_numbers import SHORT, entries

BEFORE = json.loads(Path(__file__).with_name("same_numbers.json").read_text())
ENTRIES = entries()


@pytest.mark.parametrize("name", SHORT)
def test_the_numbers_are_those_that_were_recorded(name):
    assert ENTRIES[name]()["numbers"] == pytest.approx(BEFORE[name]["numbers"], rel=3e-4, abs=3e-5)


def test_the_record_holds_what_is_asked_of_it():
    assert set(BEFORE) == set(SHORT) <= set(ENTRIES)
