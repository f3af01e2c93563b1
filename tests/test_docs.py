"""What the documents say: their links lead somewhere, their code runs, and nothing is left to fill in."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_nothing_is_left_to_fill_in(page):
    text = page.read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
    assert re.findall(r"@[A-Z]+@", text) == []


def test_the_example_in_the_readme_runs():
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    before = torch.random.get_rng_state()
    exec(code, names)
    assert names["sol"].x.shape == (8, 1, 28, 28)
    assert names["sol"].nfe.tolist() == [10] * 8
    assert torch.equal(torch.random.get_rng_state(), before)
