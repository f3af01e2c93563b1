"""Whatever is no file of its kind is refused as it enters, in one line and without a wait."""

import os
import socket
from pathlib import Path

import pytest

from ddim_ode.errors import DDIMError
from ddim_ode.support.reading import read_bytes, read_json, read_text, read_yaml_values
from tests.helpers.assertions import one_line

READERS = [lambda file, error: read_bytes(file, error, 100), read_text, read_json, read_yaml_values]


def pipe(file: Path) -> None:
    os.mkfifo(file)


def linked_pipe(file: Path) -> None:
    os.mkfifo(file.with_suffix(".pipe"))
    file.symlink_to(file.with_suffix(".pipe"))


def bound(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(file))


NO_FILES = {
    "a pipe": (pipe, "is a pipe, and no file"),
    "a link to a pipe": (linked_pipe, "is a pipe, and no file"),
    "endless": (lambda file: file.symlink_to("/dev/zero"), "is a device, and no file"),
    "a terminal": (lambda file: file.symlink_to("/dev/null"), "is a device, and no file"),
    "a folder": (lambda file: file.mkdir(), "is a folder, and no file"),
    "a loop": (lambda file: file.symlink_to(file), "cannot be read: Too many levels of symbolic links"),
    "nothing": (lambda file: None, "cannot be read: No such file or directory"),
    "a socket": (bound, "cannot be read: No such device or address"),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file(kind, read, tmp_path):
    make, words = NO_FILES[kind]
    make(tmp_path / "a")
    assert words in one_line(DDIMError, read, tmp_path / "a", DDIMError)


@pytest.mark.parametrize("file", ["a\0b", 3, None, b"a", ["a"]])
def test_what_is_no_path(file):
    assert one_line(DDIMError, read_text, file, DDIMError)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(2**40)  # which takes no room on the disk
    assert "holds 1,048,576.0 MB, where such a file has at most 64" in one_line(
        DDIMError, read_json, tmp_path / "a", DDIMError
    )
    assert "at most 0.25" in one_line(DDIMError, read_yaml_values, tmp_path / "a", DDIMError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "it is too deep"),
        ('{"a": ' * 100_000, "it is too deep"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("{} {}", "Extra data"),
    ],
)
def test_what_is_no_json(text, words, tmp_path):
    (tmp_path / "a.json").write_text(text)
    assert words in one_line(DDIMError, read_json, tmp_path / "a.json", DDIMError)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "while parsing"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("[" * 3000, "it is too deep"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("!!python/object/apply:os.system ['exit 3']", "could not determine a constructor"),
        ("<<: 3", "expected a mapping"),
        ("{[1]: 2}", "unhashable key"),
        ("\0", "unacceptable character"),
        (BOMB, "more than 20 aliases"),
    ],
)
def test_what_is_no_yaml(text, words, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    assert words in one_line(DDIMError, read_yaml_values, tmp_path / "a.yaml", DDIMError)


def test_what_is_no_text(tmp_path):
    for content in (b"\xff\xfe1", b"\x80abc"):
        (tmp_path / "a").write_bytes(content)
        assert "is not text" in one_line(DDIMError, read_text, tmp_path / "a", DDIMError)


def test_a_mark_at_the_start_and_a_few_aliases_are_read(tmp_path):
    (tmp_path / "a.yaml").write_bytes("\ufeffa: &a [1, 2]\nb: *a\n".encode())
    assert read_yaml_values(tmp_path / "a.yaml", DDIMError) == {"a": [1, 2], "b": [1, 2]}
    (tmp_path / "a.json").write_bytes('\ufeff{"a": 1}'.encode())
    assert read_json(tmp_path / "a.json", DDIMError) == {"a": 1}
