"""Folders and files that are ours alone to replace, whole or not at all, and one run at a time in one that goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddim_ode.support import outputs
from ddim_ode.support.outputs import OutputError, added, finish, going_on, new_file, new_folder
from tests.helpers.assertions import one_line


def fill(out: Path, text: str, overwrite: bool = False) -> None:
    with new_folder(out, overwrite) as folder:
        (folder / "a.txt").write_text(text)
        finish(folder, "test", {"text": text})


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.name != "manifest.json"}


@pytest.fixture(params=[True, False], ids=["exchanged", "renamed twice"])
def way(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(outputs, "_exchange", lambda *folders: False)


@pytest.mark.usefixtures("way")
def test_a_folder_of_ours_is_replaced(tmp_path):
    out = tmp_path / "out"
    fill(out, "one")
    assert "replace it with --overwrite" in one_line(OutputError, fill, out, "two")
    fill(out, "two", overwrite=True)
    assert content(out) == {"a.txt": "two"}
    assert list(tmp_path.iterdir()) == [out]


def forged(**changes: object) -> str:
    return json.dumps({"kind": "ddim_ode sample 1", "files": ["a.txt"], "sha256": "0" * 64} | changes)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        "{}",
        '"manifest"',
        forged(),
        forged(kind="npm"),
        forged(kind=3),
        forged(files=3),
        forged(files={"a.txt": 8}),
        None,
    ],
)
def test_a_folder_of_strangers_is_refused(manifest, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("precious")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    assert "is not empty and not a run of this program" in one_line(OutputError, fill, out, "two", overwrite=True)
    assert content(out) == {"a.txt": "precious"}


STRANGE = {"a folder": Path.mkdir, "a file": Path.touch, "a link": lambda file: file.symlink_to("/")}


@pytest.mark.parametrize("where", ["notes", "images/notes"])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_a_stranger_put_beside_our_files_is_not_deleted(kind, where, tmp_path):
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "images").mkdir()
        (folder / "images" / "0.png").touch()
        finish(folder, "test", {})
    STRANGE[kind](out / where)
    line = one_line(OutputError, fill, out, "two", overwrite=True)
    assert f"{out} holds {where}" in line
    assert "which this run has not written like that" in line
    assert os.path.lexists(out / where)
    (out / where).rename(tmp_path / "elsewhere")
    fill(out, "two", overwrite=True)
    assert content(out) == {"a.txt": "two"}


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from ddim_ode.support import outputs

out, way = Path(sys.argv[1]), sys.argv[2]
renamed, exchange, left = lambda *folders: False, outputs._exchange, 0

def fill(out, text):
    with outputs.new_folder(out, overwrite=True) as folder:
        (folder / "a.txt").write_text(text)
        outputs.finish(folder, "test", {"text": text})

def counted(call):
    def wrapper(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapper

def killed(calls):
    global left
    left = calls
    for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "open"):
        setattr(os, name, counted(getattr(os, name)))
    outputs._exchange = counted(exchange if way == "exchanged" else renamed)
    shutil.rmtree = counted(shutil.rmtree)
    fill(out, "two")

outputs._exchange = exchange if way == "exchanged" else renamed
for calls in range(100):
    fill(out, "one")
    if not (child := os.fork()):
        killed(calls)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = (out / "a.txt").read_text() if out.exists() else "none"
    fill(out, "one")
    print(ended, found, *sorted(os.listdir(out.parent)))
    if ended == 0:
        break
"""


@pytest.mark.parametrize("way", ["exchanged", "renamed twice"])
def test_a_kill_at_any_call_leaves_the_old_folder_or_the_new_one(way, tmp_path):
    """Killed after each number of calls that change the disk; the next run leaves nothing else behind."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out"), way]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ended, found, beside = zip(*(line.split(" ", 2) for line in lines), strict=True)
    assert set(ended[:-1]) == {str(-signal.SIGKILL)}
    assert ended[-1] == "0"
    assert len(ended) > 10
    assert set(beside) == {"out"}
    if way == "exchanged":
        assert set(found) == {"one", "two"}
    else:
        assert found.count("none") <= 1  # killed between the two: the next run put it back, and then replaced it


def test_a_file_of_ours_that_was_changed_is_a_strangers(tmp_path):
    fill(tmp_path / "out", "one")
    (tmp_path / "out" / "a.txt").write_text("one, and my notes")
    assert "holds a.txt, which" in one_line(OutputError, fill, tmp_path / "out", "two", overwrite=True)


def test_what_file_managers_leave_is_nothing(tmp_path):
    fill(tmp_path / "out", "one")
    (tmp_path / "out" / ".DS_Store").touch()
    fill(tmp_path / "out", "two", overwrite=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "Thumbs.db").touch()
    with going_on(tmp_path / "new", NAME, KIND, {}):
        pass


def test_two_runs_with_one_output_are_told_at_the_start(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        assert "another run is at work on" in one_line(OutputError, fill, tmp_path / "out", "two")
        finish(folder, "test", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_what_is_refused_its_place_at_the_end_is_kept(tmp_path):
    def late() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "a.txt").write_text("hours of work")
            finish(folder, "test", {})
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").touch()

    line = one_line(OutputError, late)
    kept = Path(line.rpartition("what was made is ")[2])
    assert content(kept) == {"a.txt": "hours of work"}
    assert not kept.name.startswith(".")


def test_files_that_are_added_come_all_or_none(tmp_path):
    def add(text: str, failure: Exception | None = None) -> None:
        with added(tmp_path, "last.json") as scratch:
            for name in ("last.json", "a.txt"):
                (scratch / name).write_text(text)
            if failure:
                raise failure

    add("one")
    with pytest.raises(ValueError, match="a bug"):
        add("two", ValueError("a bug"))
    assert content(tmp_path) == {"a.txt": "one", "last.json": "one"}
    (tmp_path / "mine").write_text("mine")
    add("two")
    assert content(tmp_path) == {"a.txt": "two", "last.json": "two", "mine": "mine"}


def test_a_file_is_replaced_and_a_failure_leaves_it(tmp_path):
    file = tmp_path / "a.csv"

    def write(text: str, overwrite: bool = False) -> None:
        with new_file(file, overwrite) as new:
            new.write_text(text)

    write("one")
    assert "exists; choose another --out" in one_line(OutputError, write, "two")
    write("two", overwrite=True)
    assert file.read_text() == "two"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_within_names_the_folder_that_was_asked_for(tmp_path):
    def full() -> None:
        with new_folder(tmp_path / "out") as folder:
            raise OutputError(f"{folder / 'samples.safetensors'} cannot be written: No space left on device")

    line = one_line(OutputError, full)
    assert line == f"{tmp_path / 'out' / 'samples.safetensors'} cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


NAME, KIND = "study.json", "ddim_ode study 1"


def test_a_folder_goes_on_for_one_run_at_a_time(tmp_path):
    out = tmp_path / "out"
    with going_on(out, NAME, KIND, {"seed": 1}) as first:
        assert first == {"seed": 1}

        def second() -> None:
            with going_on(out, NAME, KIND, {"seed": 2}):
                pass

        assert "another run is at work in" in one_line(OutputError, second)
    with going_on(out, NAME, KIND, {"seed": 2}) as found:
        assert found == {"seed": 1}


@pytest.mark.parametrize("names", [["cells"], ["log.csv"], ["notes.txt", ".lock"], [".study.json.tmp"]])
def test_a_folder_without_our_file_is_not_ours(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("precious")

    def begin() -> None:
        with going_on(tmp_path, NAME, KIND, {}):
            pass

    assert f"is not empty and has no {NAME} of ours" in one_line(OutputError, begin)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    "text", ["{}", "", '{"kind": "ddim_ode study 1"}', '{"kind": "ddim_ode study 9", "sha256": ""}']
)
def test_a_file_of_that_name_that_is_not_ours_is_refused(text, tmp_path):
    (tmp_path / NAME).write_text(text)

    def begin() -> None:
        with going_on(tmp_path, NAME, KIND, {}):
            pass

    assert str(tmp_path / NAME) in one_line(OutputError, begin)
    assert (tmp_path / NAME).read_text() == text


def test_what_an_early_kill_leaves_is_taken_up(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".study.json.0123456789ab.tmp").write_text("{")
    with going_on(tmp_path, NAME, KIND, {"seed": 1}) as found:
        assert found == {"seed": 1}
    assert sorted(os.listdir(tmp_path)) == [".lock", NAME]
