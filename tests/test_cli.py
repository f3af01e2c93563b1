"""The command line: how it is used, and how quickly it says so."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ddim_ode
from ddim_ode.planning.options import DEFAULT_MOST, DEFAULT_NFE, DEFAULT_TOL
from ddim_ode.support import interrupts
from tests.helpers.command_line import Command

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"], ["--version"], ["sample"], ["nothing"]])
def test_torch_is_not_imported_to_say_how_it_is_used(arguments: list[str]) -> None:
    code = (
        "import sys; from ddim_ode.cli import main; main(sys.argv[1:]);"
        "print('heavy:', {'torch', 'numpy', 'matplotlib', 'einops', 'safetensors', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: set()\n")


def test_the_program_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "ddim_ode", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ddim-ode {ddim_ode.__version__}\n", "")
    done = subprocess.run([sys.executable, "-m", "ddim_ode", "nothing"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_every_option_has_a_line_of_help(run: Command) -> None:
    help_text = run("sample", "--help").out
    for option in ("--nfe", "-n", "--seeds", "--label", "--guidance-range", "--final", "--manifest", "--overwrite"):
        assert option in help_text
    for option, default in [("--tol", DEFAULT_TOL), ("--max-nfe", DEFAULT_MOST), ("--nfe", DEFAULT_NFE)]:
        described = help_text.partition(f" {option} ")[2]
        assert re.search(r"\[default: \((.*?)\)\]", described)[1] == str(default), option


def test_usage(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    assert "sample" in fails("smaple")
    assert "--out" in fails("sample", model)
    assert "MODEL" in fails("sample", "--out", tmp_path / "out")


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m ddim_ode methods --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


PYTHON = f"{sys.executable} -m ddim_ode"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `ddim-ode` is this program."""
    code = f'ddim-ode() {{ {PYTHON} "$@"; }}; set -o pipefail; {line}'
    environment = os.environ | environment
    return subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, errors="replace", env=environment, timeout=120
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("what", ["--version", "sample --help"])
def test_a_full_disk_below_standard_output_is_one_line(what: str, unbuffered: str) -> None:
    done = shell(f"ddim-ode {what} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ddim-ode --version >&-", 0),
        ("ddim-ode nothing 2>&-", 2),
        ("ddim-ode nothing >&- 2>&-", 2),
        ("ddim-ode nothing 2> /dev/full", 2),
        ("ddim-ode --help | true", 1),
        ("ddim-ode nothing 2>&1 | true", 2),
    ],
)
def test_nobody_to_tell_is_no_traceback(line: str, code: int) -> None:
    done = shell(line)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_gets_its_words(encoding: str) -> None:
    done = shell("ddim-ode --help; ddim-ode $'n\\xc3\\xb6\\xff\\x1b[31m'", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert "Usage: ddim-ode" in done.stdout
    assert done.stderr.startswith("error: No such command")
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_package_and_the_program_begin_without_anything_slow() -> None:
    code = "import sys; before = set(sys.modules); import ddim_ode.__main__; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    heavy = {"typing", "importlib.metadata", "typer", "rich", "ddim_ode.cli", "inspect", "re"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_an_interrupted_command_is_one_line(
    run: Command, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    def load(*_: object) -> None:
        if error:
            raise error
        monkeypatch.setattr(interrupts, "_happened", True)
        raise ImportError("half a module")  # as a library makes of an interrupt

    monkeypatch.setattr("ddim_ode.checkpoints.load", load)
    assert run("info", "fashion") == (130, "", "interrupted\n")
