"""`ddim-ode tune`: from a model to a file that other commands take."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.command_line import Command, make_model

SMALL = ("--seeds", "1000-1007", "--held-out", "0-3", "--no-refine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tune") / "model", num_classes=2)


def test_a_model_is_tuned_and_sampled_with_what_lies_beside_it(run: Command, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / "tuned.json"
    ran = run("tune", tmp_path / "model", "--nfe", "3,4", *SMALL, "--out", file)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[-1] == str(file)
    for word in ("predictions", "tuned", "unipc_2", "greedy", "evaluations"):
        assert word in ran.out
    assert "nfe 3: done" in ran.err
    ran = run("sample", tmp_path / "model", "--method", "tuned", "--nfe", 4, "-n", 2, "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert "measured NFE 4" in ran.out


def test_it_goes_on_with_a_file_and_answers_in_json(run: Command, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tuned.json"
    assert run("tune", folder, "--nfe", 3, *SMALL, "--out", file).code == 0
    ran = run("tune", folder, "--nfe", "3,4", *SMALL, "--out", file, "--json")
    assert ran.code == 0
    assert "nfe 3" not in ran.err
    told = json.loads(ran.out)
    assert [result["predictions"] for result in told["results"]] == [3, 4]
    assert set(told["results"][0]["errors"]) == {"median", "rms"}


def test_a_grid_of_ours_is_tuned(run: Command, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.json"
    assert run("tune", folder, "--nfe", 4, *SMALL, "--grid-only", "adams2", "--out", file).code == 0
    ran = run("sample", folder, "--method", file, "--nfe", 4, "-n", 1, "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nfe", "1"), "2 or more"),
        (("--nfe", "few"), "nfe='few'"),
        (("--guidance-range", "1:2"), "guidance"),
        (("--grid-only", "dopri5"), "dopri5"),
        (("--seeds", "0-3"), "8 or more"),
        (("--label", "7"), "label"),
    ],
)
def test_what_cannot_be_is_one_line(fails, folder: Path, tmp_path: Path, options, words: str) -> None:
    assert words in fails("tune", folder, "--out", tmp_path / "tuned.json", *options)
    assert not list(tmp_path.iterdir())
