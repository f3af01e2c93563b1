"""The notebooks of examples/: they run, they print what is stored in them, and that says nothing of a machine."""

import math
import re
import runpy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
assert NOTEBOOKS
each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)

LARGEST = 300_000  # bytes
OF_A_MACHINE = ("Traceback", "site-packages", "/tmp", str(ROOT), str(Path.home()))
NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.]*\w)")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: NotebookNode) -> list[str]:
    """What a cell has put out, without what it says on the error stream, such as that matplotlib looks for fonts."""
    found = [(output.output_type, output.get("name"), *sorted(output.get("data", ()))) for output in cell.outputs]
    return [" ".join(filter(None, kind)) for kind in found if kind[1] != "stderr"]


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def alike(a: str, b: str) -> bool:
    """The same words, and numbers that another processor's rounding may have moved, as far as a study repeats."""
    words, others = (NUMBER.split(text) for text in (a, b))
    return [word.split() for word in words[::2]] == [word.split() for word in others[::2]] and all(
        math.isclose(float(x), float(y), rel_tol=0.2, abs_tol=1e-4)
        for x, y in zip(words[1::2], others[1::2], strict=True)
    )


@each
def test_it_is_stored_with_its_outputs_and_nothing_of_the_machine(file):
    assert file.stat().st_size < LARGEST
    notebook = nbformat.read(file, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert all(cell.metadata == {} for cell in notebook.cells)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.get("name", "stdout") for cell in cells for output in cell.outputs} == {"stdout"}
    text = "".join(str({**output, "data": None}) for cell in cells for output in cell.outputs)
    text += "".join(cell.source for cell in notebook.cells)
    assert [word for word in OF_A_MACHINE if word in text] == []


@each
def test_its_links_lead_to_files(file):
    cells = nbformat.read(file, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not (file.parent / target).exists()] == []


@each
def test_it_runs_and_prints_what_is_stored(file):
    executed = runpy.run_path(str(ROOT / "examples" / "run.py"))["executed"]
    stored = code_cells(nbformat.read(file, as_version=4))
    for old, new in zip(stored, code_cells(executed(file)), strict=True):
        assert kinds(new) == kinds(old)
        assert alike(printed(new), printed(old)), f"{old.id}: {printed(old)!r} is stored, and now {printed(new)!r}"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("error 0.0101", "error  0.0099", True),
        ("error 0.0101", "error 0.0201", False),
        ("rounded 3e-06", "rounded 1e-07", True),
        ("take adams4", "take adams3", False),
        ("exact True", "exact False", False),
        ("10 of 10", "10 of", False),
    ],
)
def test_what_is_alike(a, b, same):
    assert alike(a, b) == same
