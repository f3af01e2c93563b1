"""The site of the documentation: complete, strict about its links, and alone."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[1]
LINKED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "mkdocs.yml", "ddim_ode", "tests", "benchmarks", "examples")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_hook", ROOT / "docs" / "hooks" / "api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=quiet, capture_output=True, text=True, timeout=600)


def copy_of_the_repository(folder: Path) -> Path:
    """With documents of its own, in which something can be planted."""
    shutil.copytree(ROOT / "docs", folder / "docs")
    for name in LINKED:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return folder


def test_every_public_name_has_a_docstring_and_one_place(hook):
    assert hook.problems(ROOT) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "problem"),
    [
        (
            "ddim_ode/grids.py",
            '    """atan sigma spaced evenly."""\n',
            "",
            "ddim_ode.grids.angle is public and has no doc",
        ),
        ("ddim_ode/paths.py", "class PathError", "def found(): ...\n\n\nclass PathError", "ddim_ode.paths.found"),
        (
            "ddim_ode/__init__.py",
            '    "tune",\n]',
            '    "tune",\n    "tuned",\n]',
            "cannot be found in the sources",
        ),
        ("docs/api/encoding.md", "::: ddim_ode.slerp\n", "", "slerp is public and stands 0 times"),
        ("docs/api/encoding.md", "::: ddim_ode.slerp\n", "::: ddim_ode.slerp\n\n" * 2, "stands 2 times"),
        ("docs/api/encoding.md", "::: ddim_ode.slerp\n", "::: ddim_ode.slurp\n", "which does not exist"),
    ],
)
def test_what_is_missing_is_found(hook, tmp_path, file, before, after, problem):
    for name in ("ddim_ode", "docs/api"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    text = (tmp_path / file).read_text()
    assert before in text
    (tmp_path / file).write_text(text.replace(before, after, 1))
    assert [found for found in hook.problems(tmp_path) if problem in found]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'\nversion = "{citation["version"]}"\n' in (ROOT / "pyproject.toml").read_text()


def test_the_site_builds_and_asks_no_other_host(tmp_path):
    made = build(ROOT, tmp_path)
    assert (made.returncode, "WARNING" in made.stderr) == (0, False), made.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    asked = {
        address
        for page in pages.values()
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page)
        for address in re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', tag)
    }
    assert asked == set()
    assert [style for style in tmp_path.rglob("*.css") if re.search(r"url\(.?https?:|@import", style.read_text())] == []
    assert "adams4" in pages["methods.html"]
    assert "--guidance-range" in pages["commands.html"]
    assert 'src="fashion.png"' in pages["index.html"]


def test_broken_links_and_anchors_fail_a_strict_build(tmp_path):
    root = copy_of_the_repository(tmp_path)
    with (root / "docs" / "training.md").open("a") as page:
        page.write("\n[gone](gone.md), [no place](comparing.md#gone), [no name](api/solvers.md#ddim_ode.gone)\n")
    made = build(root, tmp_path / "site")
    assert made.returncode == 1
    for words in ("'gone.md'", "'comparing.md#gone'", "'api/solvers.md#ddim_ode.gone'"):
        assert words in made.stderr
