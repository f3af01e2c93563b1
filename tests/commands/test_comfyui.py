"""`ddim-ode comfyui`: what it says it has done."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.command_line import Command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("comfy", "custom_nodes"):
        (tmp_path / "ComfyUI" / name).mkdir(parents=True)
    return tmp_path / "ComfyUI"


def test_nodes_are_put_in_and_taken_out(run: Command, folder: Path) -> None:
    place = folder / "custom_nodes" / "ddim-ode"
    ran = run("comfyui", "--install", folder)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{place}: the nodes are there; restart ComfyUI and look for 'ODE Sampler'\n"
    assert place.is_dir()
    ran = run("comfyui", "--uninstall", folder / "custom_nodes", "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"folder": str(place), "installed": False})
    assert not place.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give either --install DIR or --uninstall DIR"),
        (("--install", ".", "--uninstall", "."), "give either --install DIR or --uninstall DIR"),
        (("--install", "nowhere"), "nowhere is not ComfyUI's"),
        (("--uninstall", "nowhere"), "nowhere is not ComfyUI's"),
    ],
)
def test_what_cannot_be_is_one_line(fails: Callable[..., str], options: tuple[str, ...], words: str) -> None:
    assert words in fails("comfyui", *options)


def test_nodes_that_are_not_there_cannot_be_taken_out(fails: Callable[..., str], folder: Path) -> None:
    assert "nothing was taken away" in fails("comfyui", "--uninstall", folder)
