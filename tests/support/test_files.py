"""Either the old file or the new one, whatever interrupts the writing, and nothing left of it."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ddim_ode.errors import DDIMError
from ddim_ode.support import files
from ddim_ode.support.files import OutputError, replacing, sweep, sweep_all, temporary
from tests.helpers.assertions import one_line


def write(file: Path, content: bytes, failure: BaseException | None = None) -> None:
    with replacing(file) as new:
        new.write(content)
        if failure:
            raise failure


def test_the_new_bytes_take_the_place_of_the_old(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    with replacing(file) as new:
        new.write(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_the_temporary_file_lies_beside_the_file_and_is_hidden(tmp_path):
    with replacing(tmp_path / "a.txt") as new:
        assert Path(new.name).parent == tmp_path  # another file system could not be renamed from atomically
        assert Path(new.name).name.startswith(".")


@pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, failure, old):
    file = tmp_path / "a.txt"
    if old:
        file.write_bytes(old)
    with pytest.raises(type(failure)):
        write(file, b"half", failure)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == ({"a.txt": old} if old else {})


def test_other_errors_within_are_not_taken_for_the_disks(tmp_path):
    for failure in (FileNotFoundError(2, "No such file or directory", "g++"), RuntimeError("no compiler")):
        with pytest.raises(type(failure)) as caught:
            write(tmp_path / "a.txt", b"half", failure)
        assert caught.value is failure


def test_a_full_disk_is_one_line_with_the_path(tmp_path):
    """With a limit on the size of files, which fails as a full disk does; torch's writer included."""
    (tmp_path / "a.txt").write_bytes(b"old")
    script = f"""
import resource, signal, torch
from pathlib import Path
from ddim_ode.support.files import OutputError, replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda new: new.write(bytes(5000)), lambda new: torch.save(torch.zeros(5000), new)):
    try:
        with replacing(Path({str(tmp_path / "a.txt")!r})) as new:
            write(new)
    except OutputError as error:
        print(error)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    line = f"{tmp_path / 'a.txt'} cannot be written: File too large; what was there is unchanged\n"
    assert (found.stdout, found.stderr) == (2 * line, "")
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"a.txt": b"old"}


def test_a_kill_leaves_the_old_file_and_the_next_writer_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    script = f"""
import os, signal
from pathlib import Path
from ddim_ode.support.files import replacing
with replacing(Path({str(file)!r})) as new:
    new.write(b"half")
    new.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write(file, b"new")
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"a.txt": b"new"}


def test_what_is_being_written_is_not_swept(tmp_path):
    file = tmp_path / "a.txt"
    with replacing(file) as new:
        new.write(b"new")
        sweep(file)
        sweep_all(tmp_path)
        write(file, b"another")
    assert file.read_bytes() == b"new"


WRITERS = """
import os, sys, time
from pathlib import Path
from ddim_ode.support.files import replacing
from ddim_ode.support.outputs import OutputError, finish, new_folder
root, end, counts = Path(sys.argv[1]), time.monotonic() + 1.5, [0, 0, 0]
for child in range(3):
    if not (pid := os.fork()):
        while time.monotonic() < end:
            with replacing(root / "a.txt") as new:
                new.write(b"x" * 1000)
            try:
                with new_folder(root / "out", overwrite=True) as folder:
                    (folder / "a.txt").write_bytes(b"x")
                    finish(folder, "test", {})
            except OutputError as error:
                assert "another run is at work" in str(error) or "what was made is" in str(error), error
        os._exit(0)
print([os.waitstatus_to_exitcode(os.wait()[1]) for child in range(3)])
"""


def test_processes_that_write_the_same_do_not_sweep_each_other(tmp_path):
    found = subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], capture_output=True, text=True)
    assert found.stdout == "[0, 0, 0]\n", found.stderr[-1000:]
    assert (tmp_path / "a.txt").read_bytes() == b"x" * 1000
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_link_stays_one_and_permissions_stay_what_they_were(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    file.chmod(0o640)
    (tmp_path / "link").symlink_to(file)
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert f"{tmp_path / name} is " in one_line(OutputError, write, tmp_path / name, b"new")
    for name in (Path(""), Path("/"), tmp_path / "a\0b", Path("\ud800")):
        assert "is no name" in one_line(DDIMError, write, name, b"new")


def test_where_there_are_no_locks_files_are_written_and_nothing_is_swept(tmp_path, monkeypatch):
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    (tmp_path / ".a.txt.0123456789ab.tmp").touch()
    write(tmp_path / "a.txt", b"new")
    assert sorted(os.listdir(tmp_path)) == [".a.txt.0123456789ab.tmp", "a.txt"]


def test_what_only_looks_like_ours_is_left_alone_without_a_wait(tmp_path):
    os.mkfifo(tmp_path / ".a.txt.0123456789ab.tmp")
    (tmp_path / ".a.txt.0123456789ac.tmp").symlink_to("/")
    write(tmp_path / "a.txt", b"new")
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("length", [200, 238, 255])
def test_names_as_long_as_the_system_has_them(length, tmp_path):
    file = tmp_path / ("a" * length)
    write(file, b"new")
    left = temporary(file)
    left.touch()
    write(file, b"newer")
    assert os.listdir(tmp_path) == [file.name]


def test_only_what_is_left_of_that_output_is_swept(tmp_path):
    strangers = [".a.txt.tmp", ".b.txt.0123456789ab.tmp", "a.txt.0123456789ab.tmp", ".a.txt.0123456789AB.tmp"]
    for name in (*strangers, ".a.txt.0123456789ab.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".a.txt.0123456789ac.old").mkdir()
    (tmp_path / ".a.txt.0123456789ac.old" / "x").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    sweep(tmp_path / "a.txt")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*strangers, "a.txt"])


def test_a_folder_that_was_about_to_be_replaced_is_put_back(tmp_path):
    old = temporary(tmp_path / "out", "old")
    old.mkdir()
    (old / "x").write_text("x")
    sweep(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["x"]


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_permissions_follow_the_umask(tmp_path, umask):
    write(tmp_path / "a.txt", b"new")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
    assert os.umask(umask) == umask  # looking at it did not change it


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    line = one_line(OutputError, write, tmp_path / "absent" / "a.txt", b"new")
    assert line.startswith(f"{tmp_path / 'absent' / 'a.txt'} cannot be written: No such file or directory")
