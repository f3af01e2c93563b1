"""What the documents say: their links lead somewhere, their code runs, and nothing is left to fill in."""

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ddim_ode import paths
from ddim_ode.data import to_float
from ddim_ode.grids import make_grid
from ddim_ode.sampling import sample
from ddim_ode.solvers import Method
from tests.helpers.mixtures import labelled

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ddim_ode"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_nothing_is_left_to_fill_in(page):
    text = page.read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
    assert re.findall(r"@[A-Z]+@", text) == []


def run_the_example_in(page: Path) -> dict[str, Any]:
    [code] = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    return names


def test_the_solver_of_the_documents_works_and_has_its_order():
    names = run_the_example_in(ROOT / "docs" / "adding_a_solver.md")
    assert names["sol"].nfe.tolist() == [11] * 4
    model, x = labelled().denoiser(paths.Angle(0.1, 1.0)), labelled().sample(8, seed=0, sigma=1.0)

    def run(method: str | Method, n: int) -> torch.Tensor:
        grid = make_grid("angle", model.path, n, "sigma_min")
        return sample(model, method, start=x, grid=grid, dtype=torch.float64).x

    reference = run("rk4", 500)
    coarse, fine = ((run(names["ralston"], n) - reference).square().mean().sqrt() for n in (40, 80))
    assert math.log2(coarse / fine) == pytest.approx(names["ralston"].order, abs=0.15)


def test_the_example_of_guidance_runs():
    names = run_the_example_in(ROOT / "docs" / "guidance.md")
    assert names["boots"].nfe.tolist() == [10] * 2
    assert sample(names["dark"], nfe=8, labels=0).x.mean() < sample(names["free"], nfe=8, labels=0).x.mean()


def test_the_example_in_the_readme_runs():
    before = torch.random.get_rng_state()
    names = run_the_example_in(ROOT / "README.md")
    assert names["sol"].x.shape == (8, 1, 28, 28)
    assert names["sol"].nfe.tolist() == [10] * 8
    assert torch.equal(names["back"], to_float(names["images"][:8]))
    assert torch.equal(torch.random.get_rng_state(), before)


#: the pages for people, and those for whoever works on the library
EVERY = [*PAGES, ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    """Relative to the repository, or to the package."""
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)+\.(?:py|md|yaml|ipynb))(?:::\w+)?`", page.read_text())
    ours = [n for n in named if n.endswith(".py") or any((top / n.split("/")[0]).is_dir() for top in (ROOT, PACKAGE))]
    assert [name for name in ours if not ((ROOT / name).is_file() or (PACKAGE / name).is_file())] == []


def test_the_pages_do_name_files():
    text = "".join(page.read_text() for page in EVERY)
    assert len(re.findall(r"`[\w.-]+(?:/[\w.-]+)+\.py`", text)) > 20


def moved_modules() -> list[tuple[str, str]]:
    """(0.1.0, now) of every module in the table of the changelog, without `ddim_ode.` in front."""
    _, table = (ROOT / "CHANGELOG.md").read_text().split("| 0.1.0 | now |\n|---|---|\n")
    found = []
    for row in table.split("\n\n")[0].splitlines():
        before, now = (re.findall(r"`([\w.]+)`", cell) for cell in row.strip("|").split("|"))
        if "and the same name" in row:
            found += [(name, now[0] + name) for name in before]
            continue
        parent = ""
        for name in now:  # of the others only what differs is written: `commands.convert`, `.latents`
            parent = parent if name.startswith(".") else name.rpartition(".")[0]
            found.append((before[0], parent + name if name.startswith(".") else name))
    return found


def test_modules_that_have_moved_are_where_the_changelog_says():
    moved = moved_modules()
    assert len(moved) > 40
    assert ("unet", "models.unet") in moved
    missing = [now for _, now in moved if importlib.util.find_spec(f"ddim_ode.{now}") is None]
    assert missing == []
