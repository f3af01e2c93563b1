"""`benchmarks/gpu.py` at a tiny size on the CPU: it measures, says what failed, and goes on where it stopped."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_sections import SECTIONS, report, running
from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError, Values
from benchmarks.gpu_sections.report import BEGIN, END, Call, Circumstances, Report, Row, Table

ROOT = Path(__file__).parents[1]
CPU = Setting(torch.device("cpu"), small=True)
MAY_BE_ZERO = {"error", "differ by", "largest error", "bit for bit, %", "between, ms", "between, us a round"}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Report, str, str]:
    """The report of a whole run as a user starts it, its page, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu")
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "TMPDIR": str(folder)}
    quiet["TORCHDYNAMO_DISABLE"] = "1"  # compiling takes half a minute, and says nothing of this
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--small"]
    ran = subprocess.run(command, env=quiet, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    numbers, page = (Path(line.partition(": ")[2]) for line in ran.stdout.splitlines()[-2:])
    assert numbers.parent == page.parent
    assert numbers.parent.parent == folder
    return report.read(numbers), page.read_text(), ran.stdout


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
    found, page, printed = small
    assert page.startswith(BEGIN)
    assert page.endswith(f"{END}\n")
    assert "these are no measurements" in page
    rows = [row for table in found.tables for row in table.rows if row.status == "measured"]
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == len(rows) + len(found.tables)  # and a head each
    assert set(lines) <= set(printed.splitlines())


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
    return Report(calls=[Call(date="2026-01-01", command="python benchmarks/gpu.py")], circumstances=known)


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


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A file with a number of "a card", which is the one that is here too."""
    held, file = empty(small=True), tmp_path / "a.json"
    held.tables.append(Table(name="card", title="", rows=[Row(names={}, status="measured", values={"ms": 1.0})]))
    file.write_text(held.model_dump_json())
    monkeypatch.setattr(gpu, "circumstances", lambda setting: held.circumstances)
    return file


def begin(file: Path, *more: str) -> Report:
    words = ["--device", "cpu", "--small", "--json", str(file), *more]
    return gpu.begun(gpu.parse(words), words, CPU)


def test_a_report_is_gone_on_with_and_says_by_which_commands(kept):
    found = begin(kept)
    assert [table.rows[0].values for table in found.tables] == [{"ms": 1.0}]
    assert [call.date for call in found.calls] == ["2026-01-01", date.today().isoformat()]
    assert report.markdown(found).startswith(
        "`python benchmarks/gpu.py` (2026-01-01), then `python benchmarks/gpu.py --dev"
    )
    kept.write_text(found.model_dump_json())
    assert begin(kept).calls == found.calls  # the same one again
    assert begin(kept, "--again").tables == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"device": "another"}, r"device a card \(here another\)"),
        ({"code": "1"}, r"code 0 \(here 1\)"),
        ({"versions": {"torch": "9", "CUDA": "13"}}, r"CUDA unknown \(here 13\)"),
    ],
)
def test_numbers_of_other_circumstances_are_not_thrown_away(changed, why, kept, monkeypatch):
    here, before = empty(small=True).circumstances.model_copy(update=changed), kept.read_bytes()
    monkeypatch.setattr(gpu, "circumstances", lambda setting: here)
    with pytest.raises(SystemExit, match=rf"a.json is of {why}; give another --json, or --again to replace it$"):
        gpu.main(["--device", "cpu", "--small", "--json", str(kept)])
    assert kept.read_bytes() == before
    assert not kept.with_suffix(".md").exists()
    assert begin(kept, "--again").circumstances == here


@pytest.mark.parametrize("content", [b"", b'{"date": ', b'{"calls": []}', b"\xff", None])
def test_a_file_that_cannot_be_read_is_told_in_a_line(content, tmp_path):
    file = tmp_path / "a.json"
    file.mkdir() if content is None else file.write_bytes(content)
    for words in (["--device", "cpu", "--small"], ["--tables"]):
        with pytest.raises(SystemExit, match=r"a\.json .+; .*--json") as stopped:
            gpu.main([*words, "--json", str(file)])
        assert "\n" not in str(stopped.value)


def test_there_are_no_tables_without_numbers(tmp_path):
    with pytest.raises(SystemExit, match=r"none\.json cannot be read \(No such file or directory\); --tables needs"):
        gpu.main(["--tables", "--json", str(tmp_path / "none.json")])
    assert list(tmp_path.iterdir()) == []


def test_the_documentation_shows_whole_runs_on_a_gpu_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def places(*words: str) -> list[Path]:
        given = gpu.parse(words)
        return [given.json, given.page]

    ours = [ROOT / "docs" / "gpu.json", ROOT / "docs" / "performance.md"]
    assert places() == places("--tables") == ours
    assert places("--json", "a/b.json") == [Path("a/b.json"), Path("a/b.md")]
    for words in (["--small"], ["--device", "cpu"]):
        assert all(tmp_path in place.parents for place in places(*words))


@pytest.mark.parametrize(
    ("words", "why"),
    [
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
