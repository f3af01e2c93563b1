"""The recipes of docs/pipelines.md, on pipelines of the zoo."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.pipelines import ZOO, parts
from tests.helpers.pipelines.tiny import WARNINGS

pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in WARNINGS]

PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"


def after(title: str, pipe: Any, **names: Any) -> dict[str, Any]:
    """What the first code after the title leaves behind. What is imported further up counts, as for a reader."""
    text = PAGE.read_text()
    imports = re.findall(r"^(?:import|from) .*", text, flags=re.MULTILINE)
    code = re.findall(r"```python\n(.*?)```", text[text.index(f"**{title}.**") :], flags=re.DOTALL)[0]
    names |= {"pipe": pipe, "__name__": "example"}
    exec("\n".join([*imports, code]), names)
    return names


@pytest.mark.parametrize(("title", "name"), [("Stable Diffusion 1.5", "sd15"), ("SDXL", "sdxl")])
def test_a_scheduler_is_set(title, name):
    pipe = ZOO[name]().pipe
    names = after(title, pipe)
    assert names["image"].size == (16, 16)
    assert pipe.scheduler.converged in (True, None)


def test_methods_are_compared_on_prompts():
    study = after("Stable Diffusion 3.5", ZOO["sd3"]().pipe)["study"]
    assert len(study.rows) == 10  # five methods at two budgets
    assert all(row.error.median < 1 for row in study.rows)


def test_an_image_is_edited():
    names = after("Edit an image", ZOO["sd15"]().pipe, photo=2 * parts.image() - 1)
    assert torch.equal(names["same"], names["auto"].to_latent(names["photo"]))
    assert names["other"].shape == (1, 3, 16, 16)
