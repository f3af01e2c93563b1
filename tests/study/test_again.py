"""`ddim-ode compare` on a study of which nothing is left to measure."""

import json

import pytest

FOLDER = ["--methods", "ddim,adams2", "--nfe", "2,5", "-n", 2, "--reference-tol", 0.1]


@pytest.fixture
def folder(run, model, tmp_path):
    assert run("compare", model, *FOLDER, "--out", tmp_path / "a").code == 0
    return tmp_path / "a"


def test_a_finished_study_can_be_run_again(run, model, folder):
    before = json.loads((folder / "results.json").read_text())
    code, out, err = run("compare", model, *FOLDER, "--out", folder)
    assert code == 0
    assert "best at   5 evaluations: " in out
    assert "times what the network alone took" not in err
    after = json.loads((folder / "results.json").read_text())
    assert after["rows"] == before["rows"]
    assert (after["timing"]["ratio"], after["timing"]["evaluations"]) == (None, 0)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Nothing was left to measure: every cell was kept from an earlier run." in page


def test_a_study_killed_after_its_last_cell_still_writes_its_page(run, model, folder):
    for file in ("report.html", "results.json", "results.csv"):
        (folder / file).unlink()
    assert run("compare", model, *FOLDER, "--out", folder, "--json").code == 0
    assert (folder / "report.html").is_file()
