"""Ctrl-C at any moment of a program that is watched: one line, exit code 130, and no traceback."""

import os
import signal
import subprocess
import sys

import pytest

from ddim_ode.support import interrupts

PROGRAM = """
import os, signal, sys
from contextlib import suppress
from ddim_ode.support.interrupts import CODE, happened, watch, working

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Lost:
    def __del__(self):
        interrupt()

def end():
    print("cleaned up", flush=True)
    sys.exit(CODE)

watch()
"""


def ran(code: str) -> subprocess.CompletedProcess[str]:
    # In the background a program begins without Python's handler.
    began = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.run([sys.executable, "-c", began + PROGRAM + code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "interrupt()",
        "with working(): pass\ninterrupt()",
        "with working():\n  try: interrupt()\n  finally: interrupt()",  # twice, and quickly
        "with working(): sys.path[:0] = [sys.argv[0]]; Lost()",
        "with working(): import tests.helpers.interrupting",
    ],
    ids=["before", "after", "twice", "in a destructor", "in an import"],
)
def test_it_ends_at_once_where_nothing_can_be_unfinished(code: str, tmp_path) -> None:
    (tmp_path / "interrupting.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    code = code.replace(
        "import tests.helpers.interrupting", f"sys.path.insert(0, {str(tmp_path)!r}); import interrupting"
    )
    done = ran(code + "\nprint('went on')")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    "code",
    [
        "with working():\n  try: interrupt()\n  except KeyboardInterrupt: assert happened(); end()",
        "with working():\n"
        "  try:\n"
        "    try: interrupt()\n"
        "    except KeyboardInterrupt: raise ImportError\n"
        "  except ImportError: assert happened(); end()",
        "with working():\n  with suppress(KeyboardInterrupt): interrupt()\n  assert happened(); end()",
    ],
    ids=["raised", "turned into another", "lost"],
)
def test_in_between_it_is_raised_and_remembered(code: str) -> None:
    done = ran(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "")


def test_a_program_that_ignores_it_goes_on_ignoring() -> None:
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{PROGRAM}\ninterrupt(); print(happened())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_nobody_is_watched_who_did_not_ask() -> None:
    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with interrupts.working():
        assert signal.getsignal(signal.SIGINT) is before
    assert sys.unraisablehook is hook
    assert not interrupts.happened()
    assert os.getpid()
