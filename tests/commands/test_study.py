"""`ddim-ode compare` and `recommend`."""

import csv
import json
import re
import shlex

from ddim_ode.solvers import METHODS
from tests.helpers.command_line import make_model

FILES = {
    "report.html",
    "results.json",
    "results.csv",
    "sheet.png",
    "pictures.safetensors",
    "work_precision.png",
    "study.json",
    "cells",
    ".lock",
}


def test_compare_writes_a_page_that_says_how_to_make_it_again(run, model, tmp_path):
    common = ["compare", model, "--methods", "ddim,adams4,dpmpp_2m", "--nfe", "2,5", "-n", 4]
    code, out, _ = run(*common, "--out", tmp_path / "a")
    assert code == 0
    assert {file.name for file in (tmp_path / "a").iterdir()} == FILES
    assert "best at   5 evaluations: " in out
    assert "its own error about" in out
    assert out.rstrip().endswith(str(tmp_path / "a" / "sheet.png"))
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [row["status"] for row in results["rows"]] == ["done"] * 6
    assert results["settings"]["labels"] == [0, 1, 2, 3]
    with (tmp_path / "a" / "results.csv").open() as opened:
        assert len(list(csv.DictReader(opened))) == 6
    words = shlex.split(results["command"])
    assert words[0] == "ddim-ode"
    again = [*words[1:-1], tmp_path / "b"]
    assert json.loads(run(*again, "--json").out)["rows"][0]["error"] == results["rows"][0]["error"]
    # one more method, in the same folder
    more = ["compare", model, "--methods", "ddim,adams2", "--nfe", "2,5", "-n", 4, "--out", tmp_path / "a", "--json"]
    found = json.loads(run(*more).out)
    assert found["timing"]["evaluations"] == 4 * (2 + 5)
    assert found["rows"][0]["timing"] == results["rows"][0]["timing"]


def test_a_budget_that_is_too_small_is_a_row(run, model, tmp_path):
    code, out, _ = run("compare", model, "--methods", "dopri5,ddim", "--nfe", 2, "-n", 2, "--out", tmp_path / "a")
    assert code == 0
    assert "dopri5|-|nfe=2 skipped: nfe=2 is too small" in out


def test_a_study_of_which_nothing_could_be_done_is_a_failure(run, model, tmp_path):
    code, out, _ = run("compare", model, "--methods", "dopri5", "--nfe", 2, "-n", 2, "--out", tmp_path / "a")
    assert code == 1
    assert "dopri5|-|nfe=2 skipped" in out


def test_the_verdict_names_grids_that_are_not_the_methods_own_and_says_on_what_it_was_chosen(run, model, tmp_path):
    """`lms` and `ipndm_v` are the same method under two names, which cannot be told apart."""
    common = ["compare", model, "--methods", "lms,ipndm_v", "--nfe", 4, "--reference-tol", 0.1, "-n", 2, "--label", 3]
    own, karras, auto = (
        run(*common, "--grids", grid, "--out", tmp_path / grid).out for grid in ("own", "karras", "auto")
    )
    verdict = r"best at   4 evaluations: (?:lms|ipndm_v) on {}, error .* \(not told apart: (?:lms|ipndm_v){}\)\n"
    assert re.search(verdict.format(METHODS["lms"].grid, ""), own)
    assert re.search(verdict.format("karras", " on karras"), karras)
    assert re.search(verdict.format("auto", " on auto"), auto)
    assert "Chosen on 2 seeds of tiny (cosine, 50 timesteps, sigma " in own
    assert ", class 3, no guidance, at 4 evaluations, against adaptive " in own
    assert "To make 2 grids for the model (auto) took " in auto
    assert "(auto)" not in own


def test_classes_of_a_model_that_has_none_are_refused(run, fails, tmp_path):
    plain = make_model(tmp_path / "plain", num_classes=0)
    common = ["compare", plain, "--methods", "ddim", "--nfe", 2, "-n", 2, "--reference-tol", 0.1, "--out"]
    assert "this model has no classes; leave --label out" in fails(*common, tmp_path / "a", "--label", "each")
    assert "), at 2 evaluations, against adaptive " in run(*common, tmp_path / "a").out
    assert json.loads((tmp_path / "a" / "results.json").read_text())["settings"]["labels"] is None


def test_recommend_prints_a_command_that_runs(run, model, tmp_path):
    out = run("recommend", model, "--nfe", 4, "-n", 4).out
    command, expected, *_, chosen = out.splitlines()
    assert expected.startswith("expected error ")
    assert chosen.startswith("Chosen on 4 seeds of tiny (cosine, 50 timesteps, sigma ")
    assert ("To make a grid for the model" in out) == ("--grid auto" in command)
    words = shlex.split(command)
    assert words[:3] == ["ddim-ode", "sample", str(model)]
    assert run(*words[1:-1], tmp_path / "samples").code == 0
    record = json.loads(run("recommend", model, "--tol", 0.2, "-n", 2, "--json").out)
    assert record["row"]["error"]["median"] <= 0.2


def test_bad_input_is_one_line(fails, model, tmp_path):
    out = ["--out", tmp_path / "a"]
    assert "unknown method 'dimm'; did you mean 'ddim'?" in fails("compare", model, "--methods", "dimm", *out)
    assert "methods is empty" in fails("compare", model, "--methods", ",", *out)
    assert "nfe='5,x' is not a list of numbers; write it as in 5,10,20" in fails("compare", model, "--nfe", "5,x", *out)
    assert "nfe=0 must be a whole number >= 1" in fails("compare", model, "--nfe", "0", *out)
    assert "unknown grid 'karas'" in fails("compare", model, "--grids", "karas", *out)
    assert "label 10 does not exist" in fails("compare", model, "--label", "10", *out)
    assert "give nfe, a budget, or tol" in fails("recommend", model)
    assert not (tmp_path / "a").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    assert "is not empty and has no study.json of ours" in fails("compare", model, "--out", tmp_path / "full")
