"""The command line: how it is used, and how quickly it says so."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ddim_ode
from ddim_ode.planning.options import DEFAULT_MOST, DEFAULT_NFE, DEFAULT_TOL
from tests.helpers.command_line import Command


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
