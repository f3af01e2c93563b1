"""What is read back is as it was written, or refused."""

import json

import pytest

from ddim_ode.support.records import RecordError, finite, read_record, write_json, write_record
from tests.helpers.assertions import one_line

RECORD = {"a": 1.5, "b": [1, None, "x"], "c": {"d": True}}


def test_a_record_comes_back(tmp_path):
    write_record(tmp_path / "a.json", "ddim_ode test 1", RECORD)
    assert read_record(tmp_path / "a.json") == RECORD
    assert read_record(tmp_path / "a.json", "ddim_ode test 1") == RECORD
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["kind", "a", "b", "c", "sha256"]


def test_a_bit_that_flips_is_found_or_says_the_same(tmp_path):
    file = tmp_path / "a.json"
    write_record(file, "ddim_ode test 1", RECORD)
    written = file.read_bytes()
    for bit in range(0, 8 * len(written), 3):
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            found = read_record(file, "ddim_ode test 1")
        except RecordError:
            continue
        assert found == RECORD  # of a space that is another one now


@pytest.mark.parametrize("kind", ["ddim_ode sample 1", "ddim_ode test 2"])
def test_another_kind_is_refused(kind, tmp_path):
    write_record(tmp_path / "a.json", kind, RECORD)
    assert "is no sealed file of the kind" in one_line(RecordError, read_record, tmp_path / "a.json", "ddim_ode test 1")


def test_json_knows_no_nan(tmp_path):
    record = finite({"a": float("nan"), "b": (1.0, float("inf")), "c": {"d": [float("-inf")]}})
    assert record == {"a": None, "b": [1.0, None], "c": {"d": [None]}}
    write_json(tmp_path / "a.json", record)
    assert json.loads((tmp_path / "a.json").read_text()) == record
