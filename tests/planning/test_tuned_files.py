"""Files of tuned methods: read back to the last bit, and whatever else is in one is refused in a line that names it."""

import copy
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch

from ddim_ode import METHODS, load_tuned, paths, sample, save_tuned
from ddim_ode.planning.tuned_files import TunedError
from ddim_ode.planning.tuned_schema import in_ranges, ranges_in
from ddim_ode.solvers.tuned import Table, tabulated
from ddim_ode.support.checks import ArgumentError
from ddim_ode.support.records import SEAL, seal
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tuned import ddim_table, grids_for, origin_of, tables_for

MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Noise(0.01, 50.0))
TABLES, GRIDS = tables_for(MODEL, scale=0.1 + 0.2), grids_for(MODEL, "adams3")
GUIDED = tables_for(MODEL, guidance=1.5, guidance_range=(0.1, math.inf))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tuned.json"


@pytest.mark.parametrize("method", [TABLES, GRIDS, GUIDED], ids=["tables", "grids", "guided"])
def test_it_comes_back_as_it_was(method, file):
    save_tuned(method, file)
    again = load_tuned(file)
    assert again == method  # floats and all
    first = file.read_bytes()
    save_tuned(again, file)
    assert file.read_bytes() == first
    forced = load_tuned(str(file), force=True)
    assert forced == replace(method, origin=replace(method.origin, forced=True))
    save_tuned(forced, file)
    assert file.read_bytes() == first


def test_a_sample_is_the_same_bytes(file):
    save_tuned(TABLES, file)
    assert torch.equal(sample(MODEL, load_tuned(file), 5).x, sample(MODEL, TABLES, 5).x)


def test_people_can_read_it(file):
    save_tuned(TABLES, file)
    text = file.read_text()
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) < 80
    told = json.loads(text)
    assert told["kind"] == "ddim_ode tuned 1"
    assert told["seeds"] == "1000-1031,5,7"
    assert [table["predictions"] for table in told["tables"]] == [3, 5]
    assert told["tables"][0]["sigmas"] == [20, 2, 0.3]
    assert told["tables"][0]["others"]["adaptive"] == {"median": 0.05}  # the other is infinite


@pytest.mark.parametrize("numbers", [(5,), (0, 1, 2), (7, 3, 4, 5, 4), (1, 0), (2**32 - 1,)])
def test_seeds_keep_their_order(numbers):
    assert [seed for part in ranges_in(in_ranges(numbers)) for seed in part] == list(numbers)


# --- files that are wrong


def refused(file) -> str:
    said = one_line(TunedError, load_tuned, file)
    assert said.startswith(str(file))
    assert "tune it anew" in said
    return said


def resealed(file, told: dict[str, Any]) -> None:
    told = {name: value for name, value in told.items() if name != SEAL}
    file.write_text(json.dumps({**told, SEAL: seal(told)}))


def stored(file, method=TABLES) -> dict[str, Any]:
    save_tuned(method, file)
    return json.loads(file.read_text())


def test_every_digit_that_changes_a_number_is_found(file):
    save_tuned(TABLES, file)
    text, found = file.read_text(), 0
    for n, digit in enumerate(text):
        if digit.isdecimal():
            other = text[:n] + str((int(digit) + 1) % 10) + text[n + 1 :]
            file.write_text(other)
            try:
                same = json.loads(other) == json.loads(text)  # the last of seventeen may leave a number as it is
            except ValueError:
                same = False
            if same:
                load_tuned(file)
            else:
                refused(file)
                found += 1
    assert found > 500


def test_every_cut_is_found(file):
    save_tuned(TABLES, file)
    whole = file.read_bytes()
    for n in range(0, len(whole) - 2, 97):
        file.write_bytes(whole[:n])
        refused(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", "no sealed file"),
        (b"null", "no sealed file"),
        (b'{"kind": "ddim_ode tuned 1"}', "no sealed file"),
        (b'{"kind": "ddim_ode tuned 1", "sha256": 5}', "not as it was written"),
        (b'{"kind": "ddim_ode sample 1", "sha256": "0"}', "no sealed file"),
        (b'{"kind": "ddim_ode tuned 1", "sha256": ' + b"[" * 900 + b"]" * 900 + b"}", "not as it was written"),
        (b"[" * 10**5, "too deep"),
        (b"\xff\xfe", "not text"),
    ],
)
def test_other_files_are_refused(file, content, words):
    file.write_bytes(content)
    assert words in refused(file)


def test_what_is_no_file_is_refused(file, tmp_path):
    assert "cannot be read" in refused(file)
    assert "a folder" in refused(tmp_path)
    assert "file is None" in one_line(ArgumentError, load_tuned, None)
    assert "force is" in one_line(ArgumentError, load_tuned, file, force="yes")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("tables", 0, "sigmas"), [2.0, 20.0, 0.3], "its sigmas do not decrease strictly"),
        (("tables", 0, "sigmas"), [20.0, 2.0, 2.0], "its sigmas do not decrease strictly"),
        (("tables", 0, "sigmas"), [20.0, 2.0], "as many sigmas above 0 as predictions"),
        (("tables", 0, "sigmas"), [20.0, 2.0, 0.0], "as many sigmas above 0"),
        (("tables", 0, "sigmas"), [math.inf, 2.0, 0.3], "finite"),
        (("tables", 0, "noise"), [1.0, 2.0], "noise has 3 numbers"),
        (("tables", 0, "data"), [[1.0], [1.0], [1.0]], "data 3 rows of 1, 2, ... numbers"),
        (("tables", 0, "data", 1, 0), math.nan, "finite"),
        (("tables", 0, "data", 1, 0), "0.5", "valid number"),
        (("tables", 0, "scale"), 0.0, "greater than 0"),
        (("tables", 0, "scale"), None, "belong together"),
        (("tables", 0, "predictions"), 5, "as many sigmas"),
        (("tables", 0, "errors"), {"median": -1.0, "rms": 1.0}, "greater than or equal to 0"),
        (("tables", 0, "extra"), 1, "unknown key 'tables.0.extra'"),
        (("tables",), [], "tables is empty"),
        (("method",), "adams3", "where method is left out"),
        (("method",), 5, "method"),
        (("seeds",), "5-3", "a range of seeds is empty"),
        (("seeds",), "0-4000000000", "more than 1,000,000"),
        (("seeds",), "4294967296", "above 2^32-1"),
        (("seeds",), "all", "pattern"),
        (("guidance",), True, "valid number"),
        (("guidance",), 10**400, "guidance"),
        (("digest",), "0", "pattern"),
        (("shape",), [0, 3], "greater than or equal to 1"),
        (("shape",), [10**30], "shape"),
        (("tried",), 1, "boolean"),
        (("labels",), "some", "pattern"),
    ],
)
def test_what_is_wrong_in_a_sealed_file_is_named(file, place, value, words):
    told = stored(file)
    at = told
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    resealed(file, told)
    assert words in refused(file)


def test_tables_out_of_order_and_grids_of_no_method(file):
    told = stored(file)
    told["tables"].reverse()
    resealed(file, told)
    assert "tables for 5, 3 predictions are not in order" in refused(file)
    for name in ("tuned", "adaptive", ""):
        resealed(file, stored(file, GRIDS) | {"method": name})
        assert "method is none that steps on a grid" in refused(file)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a JSON value."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


ODD = [None, True, -1, 0, 1e308, math.nan, 10**400, "", "x", "\ud800", [], {}, [[1.0]], {"a": 1}]


@pytest.mark.parametrize("method", [TABLES, GRIDS], ids=["tables", "grids"])
def test_nothing_in_a_sealed_file_is_a_traceback(file, method):
    told = stored(file, method)
    for n, path in enumerate(places(told)):
        for value in ODD[n % 3 :: 3]:
            changed = copy.deepcopy(told)
            at = changed
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            resealed(file, changed)
            with suppress(TunedError):  # of which no message has a second line
                assert load_tuned(file).grids


# --- methods that cannot be saved


def test_what_was_not_tuned_is_not_saved(file):
    for method in (METHODS["ddim"], tabulated([ddim_table((3.0, 1.0))]), replace(GRIDS, grids=())):
        assert "not tuned to a model" in one_line(TunedError, save_tuned, method, file)
    one = replace(TABLES, origin=origin_of(MODEL, [3]))
    assert "not tuned to a model" in one_line(TunedError, save_tuned, one, file)
    assert "method is the str" in one_line(ArgumentError, save_tuned, "tuned", file)
    broken = tabulated([Table((3.0, 1.0), 1.0, (0.5, math.nan), ((1.0,), (0.5, 0.5)))])
    said = one_line(ValueError, save_tuned, replace(broken, origin=origin_of(MODEL, [2])), file)
    assert said.startswith("this method: tables.0.noise.1")
    assert not file.exists()
