"""`benchmarks/gpu.py` at a tiny size on the CPU: it measures, says what failed, and goes on where it stopped."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_sections import SECTIONS, report, running
from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError, Values
from benchmarks.gpu_sections.report import BEGIN, END, Circumstances, Report, Row, Table
from benchmarks.gpu_sections.solvers import Traffic
from benchmarks.roofline import Roof

ROOT = Path(__file__).parents[1]
CPU = Setting(torch.device("cpu"), small=True)
MAY_BE_ZERO = {"error", "differ by", "largest error", "bit for bit, %", "between, ms", "between, us a round"}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Report, str, str]:
    """The report of a whole run as a user starts it, its page, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu")
    files = folder / "gpu.json", folder / "page.md"
    words = ["--device", "cpu", "--small", "--json", str(files[0]), "--page", str(files[1])]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words]
    ran = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Report.model_validate_json(files[0].read_text()), files[1].read_text(), ran.stdout


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_finds_finite_positive_numbers(name, small):
    [table] = [table for table in small[0].tables if table.name == name]
    measured = [row for row in table.rows if row.status == "measured"]
    assert measured
    for row in measured:
        assert row.values
        for column, value in row.values.items():
            assert math.isfinite(value), (row.names, column)
            assert value > 0 or column in MAY_BE_ZERO, (row.names, column)


def test_a_cpu_leaves_out_what_needs_cuda_and_says_so(small):
    missing = [row for table in small[0].tables for row in table.rows if row.status != "measured"]
    assert {row.status for row in missing} == {"skipped"}
    assert {row.why for row in missing} == {"TF32 needs CUDA", "graphs need CUDA"}
    assert all(f"skipped: {', '.join(map(str, row.names.values()))}: {row.why}" in small[1] for row in missing)


def test_the_page_has_every_row_and_says_that_it_is_no_measurement(small):
    found, page, _ = small
    assert page.startswith(BEGIN)
    assert page.endswith(f"{END}\n")
    assert "these are no measurements" in page
    rows = [row for table in found.tables for row in table.rows if row.status == "measured"]
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == len(rows) + len(found.tables)  # and a head each


def test_the_images_that_are_decoded_in_their_own_batch_are_the_same_bits(small):
    [table] = [table for table in small[0].tables if table.name == "exactness"]
    rows = [row for row in table.rows if row.names["decoded"] == "the same batch, and again"]
    assert [row.values["bit for bit, %"] for row in rows] == [100.0]
    assert [row.values["same latents, %"] for row in rows] == [100.0]


# What a run does with cases


def section(name: str, *works: Callable[[], Values], seconds: float = 1.0) -> Section:
    def cases(setting: Setting) -> Iterator[Case]:
        for number, work in enumerate(works):
            yield Case({"case": number}, work)

    return Section(name, f"The title of {name}.", seconds, cases)


def empty(small: bool = False) -> Report:
    known = Circumstances(device="a card", small=small, versions={"torch": "9"}, code="0")
    return Report(date="2026-01-01", command="python benchmarks/gpu.py", circumstances=known)


@pytest.fixture
def _quick(monkeypatch) -> None:
    """Do not look for what nobody holds any more, which takes a second in a large process."""
    monkeypatch.setattr(running, "release", lambda: None)


def measure(found: Report, *sections: Section, seconds: float = 60.0) -> list[str]:
    """Run them, and return what became of the cases that were not held already."""
    told: list[str] = []
    running.run(found, sections, CPU, time.monotonic() + seconds, lambda table, row: told.append(row.status))
    return told


def failing() -> Values:
    raise RuntimeError("CUDA out of memory.\nTried to allocate 2 TiB")


def absent() -> Values:
    raise SkippedError("no card has it")


def test_a_failed_case_is_told_in_a_line_and_the_next_is_measured():
    found = empty()
    assert measure(found, section("a", failing, absent, lambda: {"ms": 1.0})) == ["failed", "skipped", "measured"]
    assert [row.why for row in found.tables[0].rows] == ["RuntimeError: CUDA out of memory.", "no card has it", ""]
    assert found.failed == 1
    page = report.markdown(found)
    assert "- failed: 0: RuntimeError: CUDA out of memory.\n- skipped: 1: no card has it" in page
    assert "| case | ms |\n|---|---|\n| 2 | 1 |" in page


def test_a_number_that_is_none_is_a_failure():
    found = empty()
    assert measure(found, section("a", lambda: {"ms": math.nan})) == ["failed"]
    assert found.tables[0].rows[0].why == "ArithmeticError: ms is nan"


def test_what_is_held_is_not_measured_again_and_what_failed_is():
    calls: list[str] = []

    def counted() -> Values:
        calls.append("")
        return {"ms": 2.0}

    found = empty()
    assert measure(found, section("a", counted, failing)) == ["measured", "failed"]
    again = Report.model_validate_json(found.model_dump_json())
    assert measure(again, section("a", counted, counted, counted)) == ["measured", "measured"]
    assert len(calls) == 3
    assert [row.names["case"] for row in again.tables[0].rows] == [0, 1, 2]
    assert again.failed == 0


@pytest.mark.usefixtures("_quick")
def test_time_that_is_over_skips_what_is_left_and_what_one_section_leaves_goes_to_the_next():
    def slow() -> Values:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)
        return {"ms": 1.0}

    found = empty()
    begin = time.monotonic()
    quick = section("b", lambda: {"s": 1.0})
    told = measure(found, section("a", slow, slow), quick, section("c", slow), seconds=1.5)
    assert told == ["skipped", "skipped", "measured", "skipped"]
    assert 1.4 < time.monotonic() - begin < 5
    first, second = (row.why for row in found.tables[0].rows)
    assert "when the section's time was over" in first
    assert second == "the section's time was over"
    assert found.tables[2].rows[0].why.startswith("stopped after 1 s")  # not its third alone


def test_the_report_is_gone_on_with_in_the_same_circumstances_alone(tmp_path, monkeypatch):
    words = ["--device", "cpu", "--small", "--json", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.md")]
    held, other = empty(small=True), empty()
    held.tables.append(Table(name="card", title="", rows=[Row(names={}, status="measured", values={"ms": 1.0})]))
    (tmp_path / "a.json").write_text(held.model_dump_json())
    monkeypatch.setattr(gpu, "circumstances", lambda setting: held.circumstances)
    assert gpu.begun(gpu.parse(words), words, CPU) == held
    assert gpu.begun(gpu.parse([*words, "--again"]), words, CPU).tables == []
    monkeypatch.setattr(gpu, "circumstances", lambda setting: other.circumstances)
    assert gpu.begun(gpu.parse(words), words, CPU).tables == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--device", "cpu", "--small"], "give --json and --page"),
        (["--only", "card,cards"], "cards is no section"),
        (["--seconds", "0"], "--seconds 0 is no time"),
        pytest.param(
            [], "torch finds no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused(words, why, capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu.parse(words)
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err


# The page


def test_tables_are_put_between_the_markers_and_nothing_else_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    report.put("new\n", page)
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("no place")
    with pytest.raises(SystemExit, match="has no place for tables"):
        report.put("new\n", page)


def test_the_page_of_the_documentation_has_a_place_for_the_tables():
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)
    if not (ROOT / "docs" / "gpu.json").exists():
        assert "no GPU" in text[text.index(BEGIN) : text.index(END)]


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (2.0, "2"), (0.123456, "0.123"), (12345.6, "12,346")])
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text


def test_tables_are_made_of_a_file_without_measuring(tmp_path):
    found = empty()
    measure(found, section("a", lambda: {"ms": 1.5}))
    file, page = tmp_path / "gpu.json", tmp_path / "page.md"
    file.write_text(json.dumps(found.model_dump()))
    assert gpu.main(["--tables", "--json", str(file), "--page", str(page)]) == 0
    assert "| 0 | 1.5 |" in page.read_text()
    assert "**a card**" in page.read_text()


# What is counted


def test_the_bytes_of_states_are_counted_and_those_of_views_and_numbers_are_not():
    x, y = torch.zeros(2, 4, 1000)
    with Traffic(least=x.numel()) as traffic:
        x.view(2, 2000) * 2.0  # read and written
        torch.add(x, y)  # two read, one written
        x.sum() + 1.0  # read alone
    assert (traffic.operations, traffic.bytes) == (3, 6 * x.nbytes)


def test_the_roof_of_a_pass_is_the_slower_of_computing_and_moving():
    roof = Roof("a card", peak=100.0, bandwidth=10.0)
    assert roof.seconds(flops=500.0, moved=20.0) == 5.0
    assert roof.seconds(flops=100.0, moved=20.0) == 2.0
    assert roof._replace(width=2).seconds(flops=50.0, moved=20.0) == 1.0
