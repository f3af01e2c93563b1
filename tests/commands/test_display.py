"""What a terminal is shown of names and warnings that other people's files, and other libraries, come with."""

import io
import sys
import warnings
from typing import Any

import pytest
import torch

from ddim_ode.commands.shared import display

NAMES = ["[red]a[/]", "[/]", "a\\", ":smile:", "\x1b[31ma", "a\nb", "a\u202eb", "a\udcff", "two  spaces", "x" * 1500]
SHOWN = {"\x1b[31ma": r"\x1b[31ma", "a\nb": r"a\nb", "a\u202eb": r"a\u202eb", "a\udcff": r"a\udcff"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_or_as_escapes(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert display.visible(name) == SHOWN.get(name, name)
    display.print_table(("name", "n"), [{"name": name, "n": 3}])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith("3")]
    assert line.split("  3")[0].strip() == SHOWN.get(name, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], name: str) -> None:
    display.warn(name)
    line = capsys.readouterr().err
    assert line.startswith("warning: ")
    assert line[:-1].isprintable()
    assert len(line) < 1100


@pytest.mark.parametrize(
    ("category", "shown"),
    [(UserWarning, True), (RuntimeWarning, True), (DeprecationWarning, False), (FutureWarning, False)],
)
def test_warnings_of_other_libraries_have_no_source_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, category: type[Warning], shown: bool
) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    with display.plain_warnings():
        warnings.simplefilter("always")
        warnings.warn("two\nlines", category, stacklevel=1)
    assert capsys.readouterr().err == ("warning: two lines\n" if shown else "")


def test_a_warning_of_several_processes_is_said_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "speaks", lambda message: message == "first")
    with display.plain_warnings():
        warnings.simplefilter("always")
        for message in ("first", "second"):
            warnings.warn(message, UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: first\n"


def test_who_asks_for_warnings_sees_where_they_come_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    with warnings.catch_warnings(), display.plain_warnings():
        warnings.simplefilter("always")
        shown = []
        monkeypatch.setattr(warnings, "_showwarnmsg_impl", lambda message: shown.append(message.filename))
        warnings.warn("words", FutureWarning, stacklevel=1)
    assert shown == [__file__]


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "±"), ("latin-1", "±"), ("ascii", "+-"), ("cp1251", "±")])
def test_a_sign_that_cannot_be_printed_is_spelled(monkeypatch: pytest.MonkeyPatch, encoding: str, sign: str) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert display.plus_minus() == sign


def test_how_many_samples_are_on_the_sheet_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    class Solved:
        nfe = torch.full((20_000,), 7)
        steps, rejected = nfe, 0 * nfe
        converged = nfe > 0

    class Record:
        seconds, tol = 2.0, None

        class nfe:
            min = max = 7

    (tmp_path / "grid.png").touch()
    for in_grid, said in ((320, True), (20_000, False), (None, False)):
        display.report(tmp_path, Record, Solved, in_grid=in_grid)  # type: ignore[arg-type]
        out = capsys.readouterr().out
        assert ("the first 320 of 20,000 samples are in grid.png\n" in out) == said
