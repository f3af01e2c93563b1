"""`Row` is the one description of a row: the CSV, the page and its scripts name nothing that a row does not have."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ddim_ode.study.report import page, tables
from ddim_ode.study.rows import LEAVES, Row, leaf
from ddim_ode.study.schema import SchemaError, leaves_of, lookup, read

TEMPLATES = Path(page.__file__).parent / "templates"

#: Written down once more, so that a change of the columns is meant.
COLUMNS = """
    key method grid eta nfe tol kind status reason measured_nfe_min measured_nfe_median measured_nfe_mean
    measured_nfe_max steps found_tol grid_cost_profile grid_cost_trials not_converged error_median error_median_low
    error_median_high error_rms error_rms_low error_rms_high error_share resolved psnr ssim consistency
    distribution_frechet distribution_kid distribution_kid_error distribution_precision distribution_recall
    distribution_sliced_wasserstein reconstruction_rms reconstruction_bit_exact reconstruction_nfe_up
    reconstruction_nfe_down timing_seconds timing_images_per_second timing_peak_memory_mb
"""


def test_the_columns_of_the_csv_are_the_values_of_a_row():
    assert [column.replace(".", "_") for column in page.CSV_COLUMNS] == COLUMNS.split()


@pytest.mark.parametrize("file", ["report.html.j2", "plot.js", "sheet.js"])
def test_a_template_names_nothing_that_a_row_does_not_have(file):
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    text = text[text.find("{% macro picture") :] if file.endswith("j2") else text  # above it rows are those of tables
    named = {".".join(filter(None, found)) for found in re.findall(r"\brow\??\.(\w+)(?:\??\.(\w+))?", text)}
    known = {*LEAVES, *(name.partition(".")[0] for name in LEAVES)}
    assert len(named) > 5 or file == "sheet.js"
    assert named <= known


def test_a_leaf_that_no_row_has_is_an_error_at_once():
    assert leaf("error.median") == "error.median"
    for make in (leaf, tables._plain, tables._text, tables._error, tables._with_error, tables._with_range):
        with pytest.raises(LookupError, match=r"a row has no '"):
            make("error.mean")


@dataclass(frozen=True)
class Inner:
    x: float | None
    notes: dict[str, str]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None
    many: tuple[Inner, ...]
    counts: list[int]


def test_nested_records():
    record = {"name": "a", "inner": None, "many": [{"x": 1, "notes": {"a": "b"}}], "counts": [1, 2]}
    found = read(Outer, record, "it")
    assert found == Outer("a", None, (Inner(1, {"a": "b"}),), [1, 2])
    assert isinstance(found.many[0].x, int)  # as it was written
    assert leaves_of(Outer) == ("name", "inner.x", "many.x", "counts")
    assert lookup(record, "inner.x") is None
    with pytest.raises(SchemaError, match=r"it\.counts\[1\] is 'x', and should be int"):
        read(Outer, record | {"counts": [1, "x"]}, "it")
    with pytest.raises(SchemaError, match=r"it\.many\[0\] lacks fields: notes"):
        read(Outer, record | {"many": [{"x": 1}]}, "it")
    with pytest.raises(SchemaError, match="it is None, and should be a record"):
        read(Outer, None, "it")


def test_every_field_of_a_row_is_described_by_a_type():
    assert len(LEAVES) == len(set(LEAVES)) == len(COLUMNS.split())
    assert {name.partition(".")[0] for name in LEAVES} == set(Row.__dataclass_fields__)
