"""Either the old file or the new one, whatever interrupts the writing."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ddim_ode.support.files import replacing


def test_the_new_bytes_take_the_place_of_the_old(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    with replacing(file) as tmp:
        tmp.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_the_temporary_file_lies_beside_the_file_and_is_hidden(tmp_path):
    with replacing(tmp_path / "a.txt") as tmp:
        tmp.write_bytes(b"new")
        assert tmp.parent == tmp_path  # another file system could not be renamed from atomically
        assert tmp.name.startswith(".")


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, failure, written, old):
    file = tmp_path / "a.txt"
    if old:
        file.write_bytes(old)

    def interrupted() -> None:
        with replacing(file) as tmp:
            if written:
                tmp.write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        interrupted()
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == ({"a.txt": old} if old else {})


def test_a_kill_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    script = f"""
import os, signal
from pathlib import Path
from ddim_ode.support.files import replacing
with replacing(Path({str(file)!r})) as tmp:
    tmp.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_bytes() == b"old"


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_permissions_follow_the_umask_not_the_writer(tmp_path, umask):
    file = tmp_path / "a.txt"
    with replacing(file) as tmp:
        tmp.write_bytes(b"new")
        tmp.chmod(0o600)  # what safetensors does
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    assert os.umask(umask) == umask  # looking at it did not change it


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), replacing(tmp_path / "absent" / "a.txt") as tmp:
        Path(tmp).write_bytes(b"new")
